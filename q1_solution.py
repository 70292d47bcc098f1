"""The densities, divergences and estimates of a variational autoencoder (questions 1.1 to 1.5).

Every function takes a batch on the first dimension, sums over all the others and returns one number
per sample, in nats. Types are promoted as torch does: integers, booleans and half precision count as float32. Nothing
is modified in place. Shapes must agree: nothing is broadcast.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _promoted(**tensors: Tensor) -> list[Tensor]:
    """The tensors in the dtype of the result.

    Raises:
        ValueError: Their shapes differ.
    """
    (first, reference), *others = tensors.items()
    dtype = torch.promote_types(reference.dtype, torch.float32)
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {first} {tuple(reference.shape)}: not the same")
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [x.to(dtype) for x in tensors.values()]


def _sum_per_sample(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def _half_scaled_square(difference: Tensor, logvar: Tensor) -> Tensor:
    """Half the square of the difference in units of the standard deviation: ½ difference² · exp(-logvar).

    Scaled before it is squared, and halved before the last product, it overflows where the density does.
    """
    scaled = difference * torch.exp(-0.5 * logvar)
    return 0.5 * scaled * scaled


def _finite_log(log: Callable[[Tensor], Tensor], x: Tensor, probability: Tensor) -> Tensor:
    """The logarithm of a probability, with a finite value and a finite derivative at probability 0.

    ``log`` and ``x`` are ``torch.log`` and the probability, or ``torch.log1p`` and the probability minus 1.
    """
    info = torch.finfo(x.dtype)
    overflows = probability * info.max < 1
    value = log(x.detach()).clamp(min=math.log(info.tiny * info.eps))
    value = value + (probability - probability.detach()) / info.eps  # adds the derivative alone
    # The branch that is not taken has a finite derivative too, because zero times infinity is NaN.
    return torch.where(overflows, value, log(torch.where(overflows, 0.5, x)))


def log_likelihood_bernoulli(mu: Tensor, target: Tensor) -> Tensor:
    r"""Log-likelihood of binary samples under independent Bernoulli variables.

    .. math:: \log p(x) = \sum_i x_i \log \mu_i + (1 - x_i) \log (1 - \mu_i)

    Args:
        mu: Means in [0, 1], shape ``(B, *)``.
        target: Samples, 0 or 1 of any dtype, shape ``(B, *)``.

    Returns:
        Shape ``(B,)``, in nats. If the mean is 0 or 1 and the sample agrees, the log-likelihood is 0. If it disagrees,
        it is the logarithm of the smallest positive number: -103.3 in float32, -744.4 in float64. The derivative is
        exact except where it would overflow, below a probability of 3e-39 in float32: there it is 1 / eps in size. A
        mean outside [0, 1] gives NaN.

    Example:
        >>> log_likelihood_bernoulli(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([-0.6931])
    """
    p, x = _promoted(mu=mu, target=target)
    log_one, log_zero = _finite_log(torch.log, p, p), _finite_log(torch.log1p, -p, 1 - p)
    return _sum_per_sample(x * log_one + (1 - x) * log_zero)


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
    mu, logvar, z = _promoted(mu=mu, logvar=logvar, z=z)
    return -_sum_per_sample(0.5 * (math.log(2 * math.pi) + logvar) + _half_scaled_square(z - mu, logvar))


def log_mean_exp(y: Tensor) -> Tensor:
    r"""Log of the mean of exponentials over the last dimension, without overflow.

    .. math:: \log \tfrac1K \sum_k e^{y_k - a} + a, \quad a = \max_k y_k

    Args:
        y: Log-weights in nats, shape ``(B, K)``.

    Returns:
        Shape ``(B,)``, in nats. A row of ``-inf`` gives ``-inf``, with a gradient of 0.

    Example:
        >>> log_mean_exp(torch.tensor([[1e4, 1e4], [-math.inf, -math.inf]]))
        tensor([10000.,   -inf])
    """
    (y,) = _promoted(y=y)
    impossible = (y == -math.inf).all(-1)
    # Such a row is set aside: the gradient of its logsumexp would be NaN.
    value = torch.logsumexp(y.masked_fill(impossible.unsqueeze(-1), 0), dim=-1) - math.log(y.shape[-1])
    return value.masked_fill(impossible, -math.inf)


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
    mu_q, logvar_q, mu_p, logvar_p = _promoted(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    d = logvar_q - logvar_p
    # expm1 keeps the digits that exp(d) - 1 loses where the two variances nearly agree.
    return _sum_per_sample(0.5 * (torch.expm1(d) - d) + _half_scaled_square(mu_q - mu_p, logvar_p))


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
    mu_q, logvar_q, mu_p, logvar_p = _promoted(mu_q=mu_q, logvar_q=logvar_q, mu_p=mu_p, logvar_p=logvar_p)
    noise = torch.randn((num_samples, *mu_q.shape), dtype=mu_q.dtype, device=mu_q.device)
    # (z - mu_q) exp(-logvar_q / 2) is the noise itself; this is (z - mu_p) exp(-logvar_p / 2).
    scaled = (mu_q - mu_p) * torch.exp(-0.5 * logvar_p) + torch.exp(0.5 * (logvar_q - logvar_p)) * noise
    log_ratio = logvar_p - logvar_q + scaled.square() - noise.square()
    return _sum_per_sample(0.5 * log_ratio.mean(0))
