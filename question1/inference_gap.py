r"""How far an approximate posterior is from the true one (question 3.10).

For every q, :math:`\log p(x) - \mathrm{ELBO} = \mathrm{KL}(q \| p(z|x))`. With two latent dimensions log p(x) is an
integral over a plane, which a grid computes to the last digits, so the divergence is known exactly. In any dimension
the gap has two parts: that of the best q of a family (approximation gap), and what the encoder's q loses in addition
(amortisation gap).

Source: Cremer, Li and Duvenaud (2018), Inference suboptimality in variational autoencoders, section 3,
https://arxiv.org/abs/1801.03558
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from q1_solution import log_mean_exp
from question1.autoencoder import VAE, Posterior, log_likelihood_logits, log_weights, path_elbo
from solution import get_logdet, inverse, log_standard_normal


def plane(half_width: float = 6.0, cells: int = 600) -> tuple[Tensor, float]:
    """Centres ``(G, 2)`` and area of a square's cells. Beyond 6 the prior has 4e-9 of its mass."""
    side = 2 * half_width / cells
    line = torch.arange(cells) * side + side / 2 - half_width
    return torch.cartesian_prod(line, line), side**2


@torch.no_grad()
def log_joint(vae: VAE, images: Tensor, points: Tensor, block: int = 4000) -> Tensor:
    """Log p(x, z) of each image at each point ``(G, L)``: ``(N, G)`` in nats."""
    parts, x = [], images.to(vae.dtype)
    for z in points.split(block):
        logits = vae.decode(z)
        # One matrix product gives the term that depends on the image, for all images.
        log_px = x @ logits.T - F.softplus(logits, threshold=40).sum(-1)
        parts.append(log_px + log_standard_normal(z).squeeze(-1))
    return torch.cat(parts, dim=1)


def log_likelihood_on_plane(vae: VAE, images: Tensor, on: tuple[Tensor, float]) -> Tensor:
    r"""Log p(x) of a model with two latent dimensions by quadrature over a :func:`plane`, ``(N,)`` in nats.

    .. math:: \log p(x) \approx \log \sum_g p(x|z_g)\, p(z_g)\, \Delta, \quad \Delta \text{ the cells' area}
    """
    points, area = on
    return torch.logsumexp(log_joint(vae, images, points).double(), dim=1) + math.log(area)


@torch.no_grad()
def bounds(vae: VAE, images: Tensor, q: Posterior, num_samples: int) -> tuple[Tensor, Tensor]:
    """ELBO and importance-sampling estimate from draws of each image's own q, each ``(N,)`` in nats.

    Only the model's decoder is used.
    """
    generator = torch.Generator(images.device).manual_seed(0)
    x = images.to(vae.dtype)
    per_block = max(1, 2000 // len(x))  # bounds the memory
    parts = []
    for start in range(0, num_samples, per_block):
        shape = (len(x), min(per_block, num_samples - start), vae.latent_size)
        noise = torch.randn(shape, generator=generator, device=x.device, dtype=vae.dtype)
        parts.append(log_weights(vae, x, q, noise))
    weights = torch.cat(parts, dim=1).double()
    return weights.mean(1), log_mean_exp(weights)


def fit(vae: VAE, images: Tensor, num_layers: int, steps: int = 1500, draws: int = 8, lr: float = 2e-2) -> Posterior:
    """Optimise the q of each image separately, starting from the encoder's normal q, with ``num_layers`` planar layers.

    Each step is an update of Adam for all images ``(N, 784)``, from some draws per image. The learning rate is
    one-cycle with peak ``lr``. The model does not change.
    """
    random: dict[str, Any] = {"generator": torch.Generator(images.device).manual_seed(0), "device": images.device}
    with torch.no_grad():
        mean, logvar, _ = vae.posterior(images)
    count, size = mean.shape
    layers = [0.1 * torch.randn(count, width, **random) for width in (size, size, 1) * num_layers]
    parameters = [p.clone().requires_grad_() for p in (mean, logvar, *layers)]
    optimizer = torch.optim.Adam(parameters, lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(21, steps), pct_start=0.1)
    x = images.unsqueeze(1)
    for _ in tqdm(range(steps), desc=f"q of {num_layers} layers", unit="update"):
        z, log_q = Posterior.from_parameters(*parameters).sample(torch.randn(count, draws, size, **random))
        # The decoder is fixed, so the gradient of the sum contains each image's own gradient.
        value = log_likelihood_logits(vae.decode(z), x) + log_standard_normal(z).squeeze(-1) - log_q
        optimizer.zero_grad()
        (-value.mean(1).sum()).backward(inputs=parameters)
        optimizer.step()
        scheduler.step()
    return Posterior.from_parameters(*(parameter.detach() for parameter in parameters))


def fit_encoder(
    vae: VAE,
    images: Tensor,
    num_layers: int,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-3,
    flow_scale: float = 1.0,
) -> VAE:
    """Train an encoder with planar layers for the decoder of a model, on images ``(N, 784)``, with the path gradient.

    The new encoder starts from the model's, which does not change; it is returned with a copy of the decoder. The
    learning rate of Adam is one-cycle with peak ``lr``.
    """
    generator = torch.Generator(images.device).manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        width = int(next(vae.decoder.parameters()).shape[0])
        fitted = VAE(vae.latent_size, images.shape[1], width, num_layers, flow_scale=flow_scale)
    fitted = fitted.to(images.device, vae.dtype)
    fitted.decoder.load_state_dict(vae.decoder.state_dict())
    fitted.decoder.requires_grad_(requires_grad=False)
    with torch.no_grad():
        for new, old in zip(fitted.encoder.parameters(), vae.encoder.parameters(), strict=True):
            new[: len(old)] = old  # the same mean and log-variance; the outputs for the flow follow
    optimizer = torch.optim.Adam(fitted.encoder.parameters(), lr, fused=True)
    updates = epochs * math.ceil(len(images) / batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(21, updates), pct_start=0.1)
    with tqdm(total=updates, desc=f"encoder, {num_layers} layers", unit="update") as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator, device=images.device)
            for index in order.split(batch_size):
                noise = torch.randn(len(index), vae.latent_size, generator=generator, device=images.device)
                loss = -path_elbo(fitted, images[index], noise).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                bar.update()
    return fitted


@torch.no_grad()
def log_density(q: Posterior, z: Tensor) -> Tensor:
    """Log q(z|x) of one image's posterior at points ``(G, L)``, through the inverse of its layers: ``(G,)`` in nats."""
    q, z = q.each(Tensor.double), z.double()
    logdet = torch.zeros_like(z[:, :1])
    for u, w, b in reversed(q.layers):
        z = inverse(z, u, w, b)
        logdet = logdet + get_logdet(z, u, w, b)
    noise = (z - q.mean) * torch.exp(-0.5 * q.logvar)
    return (log_standard_normal(noise) - 0.5 * q.logvar.sum(-1, keepdim=True) - logdet).squeeze(-1)
