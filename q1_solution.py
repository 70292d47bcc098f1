"""The densities, divergences and estimates of a variational autoencoder (questions 1.1 to 1.5).

Every function takes a batch on the first dimension, sums over all the others and returns one number
per sample, in nats. Inputs keep their dtype and device; nothing is modified in place.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _sum_per_sample(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def log_likelihood_bernoulli(mu: Tensor, target: Tensor) -> Tensor:
    r"""Log-likelihood of binary samples under independent Bernoulli variables.

    .. math:: \log p(x) = \sum_i x_i \log \mu_i + (1 - x_i) \log (1 - \mu_i)

    Args:
        mu: Means in [0, 1], shape ``(B, *)``.
        target: Samples, 0 or 1, shape ``(B, *)``.

    Returns:
        Shape ``(B,)``, in nats. A certain outcome (mean 0 or 1, and that sample) counts exactly 0; an
        impossible one counts -100, the floor that ``binary_cross_entropy`` puts under each logarithm,
        so that value and gradient stay finite.

    Example:
        >>> log_likelihood_bernoulli(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([-0.6931])
    """
    return -_sum_per_sample(F.binary_cross_entropy(mu, target, reduction="none"))


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
    return -0.5 * _sum_per_sample(math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar))


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
    return torch.logsumexp(y, dim=-1) - math.log(y.shape[-1])


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
    # expm1 keeps the digits that exp(d) - 1 loses where the two variances nearly agree.
    d = logvar_q - logvar_p
    return 0.5 * _sum_per_sample(torch.expm1(d) - d + (mu_q - mu_p).square() * torch.exp(-logvar_p))


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
        ValueError: ``num_samples`` is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    noise = torch.randn((num_samples, *mu_q.shape), dtype=mu_q.dtype, device=mu_q.device)
    z = mu_q + torch.exp(0.5 * logvar_q) * noise
    # At z = mu_q + exp(logvar_q / 2) noise, the exponent of q(z) is that of the noise itself.
    log_ratio = logvar_p - logvar_q + (z - mu_p).square() * torch.exp(-logvar_p) - noise.square()
    return 0.5 * _sum_per_sample(log_ratio.mean(0))
