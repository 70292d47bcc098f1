"""The densities, divergences and estimates of a variational autoencoder (questions 1.1 to 1.5).

Every function takes a batch on the first dimension, sums over all the others and returns one number
per sample, in nats. The result has the inputs' dtype and device; nothing is modified in place.
Half precision is computed in float32 and rounded once. Shapes must agree: nothing is broadcast.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _checked(**tensors: Tensor) -> list[Tensor]:
    """The tensors, half precision as float32.

    Raises:
        ValueError: Their shapes differ.
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {first} {tuple(reference.shape)}: not the same")
    return [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors.values()]


def _sum_per_sample(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def _half_scaled_square(difference: Tensor, logvar: Tensor) -> Tensor:
    """Half the square of the difference in units of the standard deviation: ½ difference² · exp(-logvar).

    Halved first, it overflows where the density does, and not before. Where a factor leaves the range of its type, the
    product is taken between logarithms; nought stays nought.
    """
    square = 0.5 * difference.square()
    extreme = (square == 0) | (-logvar > math.log(torch.finfo(logvar.dtype).max))
    direct = square * torch.exp(-torch.where(extreme, 0, logvar))
    # What the other branch takes is masked too: the gradient of a value that is not used must not be NaN.
    by_logarithms = extreme & (difference != 0)
    size, scale = torch.where(by_logarithms, difference, 1).abs(), torch.where(by_logarithms, logvar, 0)
    return torch.where(by_logarithms, torch.exp(2 * torch.log(size) - math.log(2) - scale), direct)


def log_likelihood_bernoulli(mu: Tensor, target: Tensor) -> Tensor:
    r"""Log-likelihood of binary samples under independent Bernoulli variables.

    .. math:: \log p(x) = \sum_i x_i \log \mu_i + (1 - x_i) \log (1 - \mu_i)

    Args:
        mu: Means in [0, 1], shape ``(B, *)``.
        target: Samples, 0 or 1, shape ``(B, *)``.

    Returns:
        Shape ``(B,)``, in nats. A certain outcome (mean 0 or 1, and that sample) counts exactly 0; an
        impossible one counts -100, the floor that ``binary_cross_entropy`` puts under each logarithm,
        so that value and gradient stay finite; in float16 both saturate at ±65504.

    Example:
        >>> log_likelihood_bernoulli(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([-0.6931])
    """
    p, x = _checked(mu=mu, target=target)
    loss = _sum_per_sample(F.binary_cross_entropy(p, x, reduction="none"))
    if mu.dtype == torch.float16:
        # Value and gradient are held within the type's range; the gradient is that of the value before.
        largest = torch.finfo(mu.dtype).max
        loss = loss + (loss.clamp(max=largest) - loss).detach()
        if p.requires_grad:
            p.register_hook(lambda gradient: gradient.clamp(-largest, largest))
    return -loss.to(mu.dtype)


def log_likelihood_normal(mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
    r"""Log-density of samples under a normal distribution with diagonal covariance.

    .. math:: \log \mathcal{N}(z; \mu, \operatorname{diag} e^{v})
        = -\tfrac12 \sum_i \log 2\pi + v_i + (z_i - \mu_i)^2 e^{-v_i}

    Args:
        mu: Means, shape ``(B, *)``.
        logvar: Log-variances :math:`v`, shape ``(B, *)``.
        z: Samples, shape ``(B, *)``.

    Returns:
        Shape ``(B,)``, in nats.

    Example:
        >>> log_likelihood_normal(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([-1.8379])
    """
    dtype = z.dtype
    mu, logvar, z = _checked(mu=mu, logvar=logvar, z=z)
    return -_sum_per_sample(0.5 * (math.log(2 * math.pi) + logvar) + _half_scaled_square(z - mu, logvar)).to(dtype)


def log_mean_exp(y: Tensor) -> Tensor:
    r"""Log of the mean of exponentials over the last dimension, without overflow.

    .. math:: \log \tfrac1K \sum_k e^{y_k - a} + a, \quad a = \max_k y_k

    Args:
        y: Log-weights in nats, shape ``(B, K)``.

    Returns:
        Shape ``(B,)``, in nats. A row of ``-inf`` gives ``-inf``.

    Example:
        >>> log_mean_exp(torch.tensor([[1e4, 1e4], [-math.inf, -math.inf]]))
        tensor([10000.,   -inf])
    """
    dtype = y.dtype
    (y,) = _checked(y=y)
    return (torch.logsumexp(y, dim=-1) - math.log(y.shape[-1])).to(dtype)


def kl_gaussian_gaussian_analytic(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence between two normal distributions with diagonal covariances.

    .. math:: \mathrm{KL}(q \| p) = \tfrac12 \sum_i e^{d_i} - 1 - d_i + (\mu_{q,i} - \mu_{p,i})^2 e^{-v_{p,i}},
        \quad d = v_q - v_p

    Args:
        mu_q, logvar_q: Mean and log-variance :math:`v_q` of q, shapes ``(B, *)``.
        mu_p, logvar_p: Mean and log-variance :math:`v_p` of p, shapes ``(B, *)``.

    Returns:
        Shape ``(B,)``, in nats.

    Source:
        Kingma and Welling (2014), appendix B, there for a standard normal p.

    Example:
        >>> kl_gaussian_gaussian_analytic(*(torch.full((1, 2), v) for v in (1.0, 0.0, 0.0, 0.0)))
        tensor([1.])
    """
    dtype = mu_q.dtype
    mu_q, logvar_q, mu_p, logvar_p = _checked(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    d = logvar_q - logvar_p
    # expm1 keeps the digits that exp(d) - 1 loses where the two variances nearly agree; where the 1 counts no longer,
    # the exponential is halved before it overflows.
    large = d > 80
    growth = torch.where(
        large, torch.exp(torch.where(large, d, 0) - math.log(2)), 0.5 * torch.expm1(torch.where(large, 0, d))
    )
    return _sum_per_sample(growth - 0.5 * d + _half_scaled_square(mu_q - mu_p, logvar_p)).to(dtype)


def kl_gaussian_gaussian_mc(
    mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor, num_samples: int = 1
) -> Tensor:
    r"""Monte Carlo estimate of the Kullback-Leibler divergence between two diagonal normal distributions.

    .. math:: \mathrm{KL}(q \| p) \approx \tfrac1S \sum_s \log q(z_s) - \log p(z_s), \quad
        z_s = \mu_q + e^{v_q / 2} \varepsilon_s, \quad \varepsilon_s \sim \mathcal{N}(0, I)

    The draws are reparametrised, so the estimate is differentiable in the parameters of q and of p.

    Args:
        mu_q, logvar_q: Mean and log-variance :math:`v_q` of q, shapes ``(B, *)``.
        mu_p, logvar_p: Mean and log-variance of p, shapes ``(B, *)``.
        num_samples: Number of draws :math:`S`, at least 1.

    Returns:
        Shape ``(B,)``, in nats; unbiased, with a variance that falls as 1/S. Single estimates can be negative.

    Raises:
        ValueError: ``num_samples`` is below 1, or shapes differ.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    dtype = mu_q.dtype
    mu_q, logvar_q, mu_p, logvar_p = _checked(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    noise = torch.randn((num_samples, *mu_q.shape), dtype=mu_q.dtype, device=mu_q.device)
    # Both exponents in units of their own deviations, so that no variance is too large or small: at
    # z = mu_q + exp(logvar_q / 2) noise that of q(z) is the noise itself, that of p(z) is
    # (mu_q - mu_p) exp(-logvar_p / 2) + exp((logvar_q - logvar_p) / 2) noise. Half a factor at a time, and none
    # where the means agree, because 0 times infinity has no value.
    difference = mu_q - mu_p
    half = torch.exp(-0.25 * torch.where(difference == 0, 0, logvar_p))
    of_means, of_noise = difference * half * half, torch.exp(0.5 * (logvar_q - logvar_p)) * noise
    # Two infinite terms of opposite signs do not cancel: the larger one is beyond the range by itself.
    scaled = torch.where(of_means.isinf() & of_noise.isinf(), of_noise, of_means + of_noise)
    log_ratio = logvar_p - logvar_q + scaled.square() - noise.square()
    return _sum_per_sample(0.5 * log_ratio.mean(0)).to(dtype)
