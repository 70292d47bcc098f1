"""A variational autoencoder of binary images: network, posterior, bounds, log-likelihood (questions 1.6, 1.7, 3.10)."""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from lab.device import one_thread
from q1_solution import kl_gaussian_gaussian_analytic, log_mean_exp
from solution import chain, invertible_u, log_standard_normal

LOGIT_SHIFT = -5


class VAE(nn.Module):
    r"""Encoder 784-300-300-2L and decoder L-300-300-784, with ELU between the layers and a standard normal prior.

    Args:
        latent_size: Size L of the latent vector.
        image_size: Number of pixels.
        width: Size of the hidden layers.
        num_layers: Number of planar layers of the posterior; the encoder outputs their parameters for each image.
        flow_scale: Factor of the encoder's outputs for the layers. Adam changes every output by about the same
            amount per update, so with a small factor the flow starts near the identity and changes slowly.

    Source:
        Kingma and Welling (2014), Auto-encoding variational Bayes; Rezende and Mohamed (2015), Variational
        inference with normalizing flows.

    Example:
        >>> mean, logvar = VAE(latent_size=8).encode(torch.zeros(5, 784))
        >>> mean.shape, logvar.shape
        (torch.Size([5, 8]), torch.Size([5, 8]))
    """

    def __init__(
        self,
        latent_size: int = 100,
        image_size: int = 784,
        width: int = 300,
        num_layers: int = 0,
        flow_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.latent_size, self.num_layers, self.flow_scale = latent_size, num_layers, flow_scale
        self.encoder = _perceptron(image_size, width, 2 * latent_size + num_layers * (2 * latent_size + 1))
        self.decoder = _perceptron(latent_size, width, image_size)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters and of all results."""
        return next(self.parameters()).dtype

    def posterior(self, x: Tensor) -> "Posterior":
        """The approximate posterior q(z|x) of images ``(B, 784)`` of any dtype."""
        size = self.latent_size
        sizes = [size, size] + self.num_layers * [size, size, 1]
        mean, logvar, *flows = self.encoder(x.to(self.dtype)).split(sizes, dim=1)
        return Posterior.from_parameters(mean, logvar, *(self.flow_scale * parameter for parameter in flows))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x) without its flow, each ``(B, L)``, of images ``(B, 784)`` of any dtype."""
        return self.posterior(x)[:2]

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x|z), ``(B, 784)``: the last layer's output minus 5, because most pixels are black."""
        return self.decoder(z.to(self.dtype)).add_(LOGIT_SHIFT)


def log_prior(z: Tensor) -> Tensor:
    """Log-density of a standard normal distribution at ``(*, L)``: ``(*)`` in nats. A norm is one pass over z."""
    return -0.5 * (torch.linalg.vector_norm(z, dim=-1).square() + z.shape[-1] * math.log(2 * math.pi))


class Posterior(NamedTuple):
    """A normal distribution of z0 with mean and log-variance, and planar layers (u, w, b) that map z0 to z."""

    mean: Tensor
    logvar: Tensor
    layers: list[tuple[Tensor, ...]]

    @classmethod
    def from_parameters(cls, mean: Tensor, logvar: Tensor, *flat: Tensor) -> "Posterior":
        """A posterior from u, w, b of one layer after the other; each u is adjusted so that its layer is invertible."""
        layers = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        return cls(mean, logvar, [(invertible_u(u, w), w, b) for u, w, b in layers])

    def each(self, function: Callable[[Tensor], Tensor]) -> "Posterior":
        """The posterior with a function applied to each of its tensors."""
        layers = [tuple(map(function, layer)) for layer in self.layers]
        return Posterior(function(self.mean), function(self.logvar), layers)

    def select(self, images: slice) -> "Posterior":
        """The posteriors of a slice of the images."""
        return self.each(lambda parameter: parameter[images])

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        r"""Draws of z ``(B, K, L)`` from standard normal noise of that shape, and log q(z|x), ``(B, K)`` in nats.

        .. math:: z_0 = \mu + e^{v/2} \varepsilon, \quad z = f_k \circ \dots \circ f_1(z_0), \quad
            \log q(z|x) = \log \mathcal{N}(z_0; \mu, \operatorname{diag} e^v) - \log|\det \partial z / \partial z_0|

        Source:
            Rezende and Mohamed (2015), equations 13 and 20.
        """
        mean, logvar, layers = self.each(lambda parameter: parameter.unsqueeze(1))
        z, logdet = chain(torch.addcmul(mean, torch.exp(0.5 * logvar), noise), layers)
        return z, log_prior(noise) - 0.5 * logvar.sum(-1) - logdet.squeeze(-1)

    def path_sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        r"""As :meth:`sample`; the derivative of log q(z|x) in any parameter is :math:`g_k \cdot dz`, through z only.

        The density's gradient in its argument, at fixed parameters, is propagated forwards through the layers. With
        :math:`g_0 = -e^{-v}(z_0 - \mu)` and the Jacobian :math:`J_j = I + u_j \psi_j^\top`,

        .. math:: g_j = J_j^{-\top} (g_{j-1} - \nabla \log|\det J_j|), \quad
            J_j^{-\top} a = a - \frac{u_j \cdot a}{1 + u_j \cdot \psi_j} \psi_j

        Source:
            Roeder, Wu and Duvenaud (2017), section 3; Vaitl et al. (2022), Gradients should stay on path, section 3,
            https://arxiv.org/abs/2207.08219
        """
        z, log_q = self.sample(noise)
        with torch.no_grad():
            mean, logvar, layers = self.each(lambda parameter: parameter.unsqueeze(1))
            x, gradient = mean + torch.exp(0.5 * logvar) * noise, -noise * torch.exp(-0.5 * logvar)
            for u, w, b in layers:
                value = torch.tanh((w * x).sum(-1, keepdim=True) + b)
                slope = 1 - value.square()
                wu = (w * u).sum(-1, keepdim=True)
                det = 1 + wu * slope
                gradient = gradient + 2 * wu * value * slope / det * w
                gradient = gradient - slope * (u * gradient).sum(-1, keepdim=True) / det * w
                x = x + u * value
        along = (gradient * z).sum(-1)
        return z, log_q.detach() + along - along.detach()


def _perceptron(size_in: int, width: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size_in, width),
        nn.ELU(inplace=True),
        nn.Linear(width, width),
        nn.ELU(inplace=True),
        nn.Linear(width, size_out),
    )


def log_likelihood_logits(logits: Tensor, x: Tensor) -> Tensor:
    r"""Log-likelihood of binary samples from logits, exact for logits of any size: ``(B, *)`` in nats.

    .. math:: \log p(x) = \sum_i x_i \ell_i - \log(1 + e^{\ell_i})

    Args:
        logits: Shape ``(B, *, D)``.
        x: Samples, 0 or 1, any dtype, shape ``(B, D)`` or any that broadcasts.
    """
    # The default threshold, 20, above which softplus returns its argument, would cost digits in float64.
    return torch.linalg.vecdot(x.to(logits.dtype), logits) - F.softplus(logits, threshold=40).sum(-1)


def elbo(vae: VAE, x: Tensor, noise: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""Evidence lower bound of binary images, with one draw of the latent vector per image: ``(B,)`` in nats.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z|x)} \log p(x|z) - \mathrm{KL}(q(z|x) \| p(z))

    The divergence is exact for a normal q; with a flow it is estimated from the same draw.

    Args:
        x: Images, 0 or 1, any dtype, shape ``(B, 784)``.
        noise: Standard normal, from which :meth:`Posterior.sample` draws, shape ``(B, L)``.
        seen: What the encoder sees of the images, shape ``(B, 784)``; None for the images themselves. The bound
            holds for any q, so also for one that sees less.

    Source:
        Kingma and Welling (2014), equations 7 and 10; Rezende et al. (2014).
    """
    q = vae.posterior(x if seen is None else seen)
    if q.layers:
        return _sampled_bound(vae, x, *q.sample(noise.unsqueeze(1)))
    z = q.mean + torch.exp(0.5 * q.logvar) * noise
    zero = torch.zeros_like(z)
    return log_likelihood_logits(vae.decode(z), x) - kl_gaussian_gaussian_analytic(q.mean, q.logvar, zero, zero)


def sampled_elbo(vae: VAE, x: Tensor, noise: Tensor, seen: Tensor | None = None) -> Tensor:
    """As :func:`elbo`, with the divergence estimated from the draw for a normal q too."""
    return _sampled_bound(vae, x, *vae.posterior(x if seen is None else seen).sample(noise.unsqueeze(1)))


def path_elbo(vae: VAE, x: Tensor, noise: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""As :func:`sampled_elbo`, with the path gradient: through the draw only.

    .. math:: \log p(x|z) + \log p(z) - \log q_{\bar\phi}(z|x), \quad z = \mu_\phi + e^{v_\phi/2} \varepsilon

    The parameters :math:`\bar\phi` are constants. The term left out, the score function
    :math:`\nabla_\phi \log q_\phi(z|x)` at fixed z, is zero on average; without it the variance of the gradient
    vanishes as q approaches the true posterior.

    Source:
        Roeder, Wu and Duvenaud (2017), Sticking the landing, section 3; with a flow, :meth:`Posterior.path_sample`.
    """
    return _sampled_bound(vae, x, *vae.posterior(x if seen is None else seen).path_sample(noise.unsqueeze(1)))


def _sampled_bound(vae: VAE, x: Tensor, z: Tensor, log_q: Tensor) -> Tensor:
    log_ratio = log_standard_normal(z).squeeze(-1) - log_q
    return (log_likelihood_logits(vae.decode(z), x.unsqueeze(1)) + log_ratio).squeeze(1)


@torch.no_grad()
def evaluate_elbo(vae: VAE, images: Tensor, seed: int = 0, block: int = 1000) -> Tensor:
    """ELBO of each image, ``(N,)`` in nats, with a fixed draw of the noise."""
    generator = torch.Generator(images.device).manual_seed(seed)
    noise = torch.randn(len(images), vae.latent_size, generator=generator, device=images.device, dtype=vae.dtype)
    return torch.cat([elbo(vae, x, e) for x, e in zip(images.split(block), noise.split(block), strict=True)])


@torch.no_grad()
def log_likelihood_of_draws(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """Log p(x|z) of images ``(B, D)`` of the model's dtype at latent vectors ``(B, K, L)``: ``(B, K)`` in nats.

    The decoder and :func:`log_likelihood_logits` without gradient: torch computes an exponential and a clamp faster
    than ``elu``, and an exponential and a logarithm, in place, faster than ``softplus``.
    """
    *hidden, last = [layer for layer in vae.decoder if isinstance(layer, nn.Linear)]
    h = z.flatten(0, 1)
    for layer in hidden:
        h = layer(h)
        h = torch.clamp(h, h.new_zeros(()), h.exp().sub_(1), out=h)  # ELU
    bias = last.bias + LOGIT_SHIFT
    # x·(Wh + b) as (Wᵀx)·h + x·b: one product of 784 numbers for each image, instead of one for each draw.
    score = (h.view(*z.shape[:2], -1) @ (x @ last.weight).unsqueeze(2)).squeeze(2) + (x @ bias).unsqueeze(1)
    log_partition = F.linear(h, last.weight, bias).exp_().add_(1).log_().sum(1)
    if not log_partition.isfinite().all():  # an exponential overflows
        log_partition = F.softplus(F.linear(h, last.weight, bias), threshold=40).sum(1)
    return score - log_partition.view_as(score)


@torch.no_grad()
def log_weights(vae: VAE, x: Tensor, q: Posterior, noise: Tensor) -> Tensor:
    """Log p(x|z) p(z) / q(z|x) of draws from q, shapes as there: ``(B, K)`` in nats."""
    z, log_q = q.sample(noise)
    return log_likelihood_of_draws(vae, x, z) + log_prior(z) - log_q


@torch.no_grad()
def log_likelihood(
    vae: VAE, images: Tensor, num_samples: int = 200, seed: int = 0, progress: bool = False, rows: int = 2000
) -> Tensor:
    r"""Importance-sampling estimate of the log-likelihood of binary images, ``(N,)`` in nats.

    .. math:: \log p(x) \approx \log \frac1K \sum_k \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    A lower bound of :math:`\log p(x)` in expectation, which tightens as K grows; K = 1 is the ELBO. On the CPU each
    thread computes whole blocks of images, so results do not depend on the number of threads.

    Args:
        images: 0 or 1, shape ``(N, 784)``.
        num_samples: Number of draws :math:`K` per image.
        rows: Latent vectors decoded at once by each thread. All draws of an image are in memory together.

    Source:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    x = images.to(vae.dtype)

    def estimate(block: slice, noise: Tensor) -> Tensor:
        parts = [log_weights(vae, x[block], q.select(block), part) for part in noise.split(rows, dim=1)]
        return log_mean_exp(torch.cat(parts, dim=1))

    size = max(1, rows // num_samples)
    workers = torch.get_num_threads() if x.device.type == "cpu" else 1
    running: deque[Future[Tensor]] = deque()
    results = []
    with (
        one_thread(),  # for MKL; OpenMP has its own number in each thread
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        tqdm(total=len(x), desc=f"log p(x), K = {num_samples}", unit="image", disable=not progress) as bar,
    ):
        q = vae.posterior(x)
        for start in range(0, len(x), size):
            if len(running) == 2 * workers:  # bounds the memory of the noise
                results.append(running.popleft().result())
            block = slice(start, start + size)
            shape = (len(x[block]), num_samples, vae.latent_size)
            noise = torch.randn(shape, generator=generator, device=x.device, dtype=vae.dtype)
            running.append(pool.submit(estimate, block, noise))
            bar.update(len(x[block]))
        results += [future.result() for future in running]
    return torch.cat(results)


@torch.no_grad()
def kl_per_dimension(vae: VAE, images: Tensor) -> Tensor:
    """Mean over images of each latent dimension's KL divergence from the prior before any flow, ``(L,)`` in nats."""
    mean, logvar = (statistic.reshape(-1, 1) for statistic in vae.encode(images))
    zero = torch.zeros_like(mean)
    return kl_gaussian_gaussian_analytic(mean, logvar, zero, zero).view(len(images), -1).mean(0)
