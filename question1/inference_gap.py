r"""How far an approximate posterior is from the true one (question 3.10).

For every q, :math:`\log p(x) - \mathrm{ELBO} = \mathrm{KL}(q \| p(z|x))`. With two latent dimensions log p(x) is an
integral over a plane, which a grid gives to the last digits: then the divergence is known, not bounded. In any
dimension the gap falls into two parts: what the best q of a family still lacks (approximation), and what the encoder's
q lacks beside that one (amortisation).

Source: Cremer, Li and Duvenaud (2018), Inference suboptimality in variational autoencoders, section 3,
https://arxiv.org/abs/1801.03558
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from q1_solution import log_mean_exp
from question1.autoencoder import LOGIT_SHIFT, VAE, Posterior, log_likelihood_logits, path_elbo
from question1.decoding import Likelihood
from solution import get_logdet, inverse, invertible_u, log_standard_normal


class Plane(NamedTuple):
    """Cells of a square about the origin of the latent plane: their centres ``(G, 2)`` and their area."""

    points: Tensor
    area: float


def plane(half_width: float = 6.0, cells: int = 600) -> Plane:
    """A square of ``cells`` × ``cells`` cells. Beyond 6 the prior has 4e-9 of its mass."""
    side = 2 * half_width / cells
    line = torch.arange(cells) * side + side / 2 - half_width
    return Plane(torch.cartesian_prod(line, line), side**2)


@torch.no_grad()
def log_joint(vae: VAE, images: Tensor, points: Tensor, block: int = 4000) -> Tensor:
    """Log p(x, z) of each image at each point ``(G, L)``: ``(N, G)`` in nats."""
    parts = []
    x = images.to(vae.dtype)
    for z in points.split(block):
        logits = vae.decode(z)
        # The likelihood of a point's logits is linear in the image but for one term: one product serves all images.
        of_all = x @ logits.T - F.softplus(logits, threshold=40).sum(-1)
        parts.append(of_all + log_standard_normal(z).squeeze(-1))
    return torch.cat(parts, dim=1)


def log_likelihood_on_plane(vae: VAE, images: Tensor, on: Plane) -> Tensor:
    r"""Log p(x) of a model with two latent dimensions by quadrature, ``(N,)`` in nats.

    .. math:: \log p(x) \approx \log \sum_g p(x|z_g)\, p(z_g)\, \Delta, \quad \Delta \text{ the cells' area}
    """
    return torch.logsumexp(log_joint(vae, images, on.points).double(), dim=1) + math.log(on.area)


@torch.no_grad()
def bounds(
    vae: VAE, images: Tensor, q: Posterior, num_samples: int, seed: int = 0, rows: int = 2000
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower bounds on log p(x) from draws of each image's own q.

    Args:
        vae: The model, of which only the decoder counts.
        images: 0 or 1, ``(N, 784)``.
        q: The posteriors of these images.
        num_samples: Draws for each image.
        seed: Of the draws.
        rows: Latent vectors decoded at once.

    Returns:
        The ELBO and its standard error over the draws, and the importance-sampling estimate with all of them, each
        ``(N,)`` in nats.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    per_block = max(1, rows // len(images))
    log_px = Likelihood(vae.decoder, LOGIT_SHIFT, images.to(vae.dtype), per_block * len(images))
    log_weights = []
    for start in range(0, num_samples, per_block):
        count = min(per_block, num_samples - start)
        shape = (len(images), count, vae.latent_size)
        noise = torch.randn(shape, generator=generator, device=images.device, dtype=vae.dtype)
        z, log_ratio = q.weigh(noise)
        log_weights.append(log_px(z) + log_ratio)
    weights = torch.cat(log_weights, dim=1).double()
    return weights.mean(1), weights.std(1) / math.sqrt(num_samples), log_mean_exp(weights)


def fit(
    vae: VAE,
    images: Tensor,
    num_layers: int,
    steps: int = 1500,
    draws: int = 8,
    lr: float = 2e-2,
    seed: int = 0,
    progress: bool = False,
) -> Posterior:
    """The best q of a family for each image by itself, from the encoder's normal q on.

    Args:
        vae: The model, which is not changed.
        images: 0 or 1, ``(N, 784)``.
        num_layers: Planar layers of q; none for a normal q.
        steps: Updates of Adam with a one-cycle step size, all images side by side.
        draws: Draws for each image in an update.
        lr: Peak of the step size.
        seed: Of the layers' first parameters and of the draws.
        progress: Show a progress bar.
    """
    generator = torch.Generator(images.device).manual_seed(seed)

    def small(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=images.device) * 0.1

    with torch.no_grad():
        mean, logvar, _ = vae.posterior(images)
    count, size = mean.shape
    raw = [(small(count, size), small(count, size), small(count, 1)) for _ in range(num_layers)]
    parameters = [p.clone().requires_grad_() for p in (mean, logvar, *(p for layer in raw for p in layer))]

    def posterior() -> Posterior:
        flat = parameters[2:]
        layers = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        return Posterior(parameters[0], parameters[1], [(invertible_u(u, w), w, b) for u, w, b in layers])

    optimizer = torch.optim.Adam(parameters, lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(21, steps), pct_start=0.1)
    x = images.unsqueeze(1)
    for _ in tqdm(range(steps), desc=f"q of {num_layers} layers", unit=" updates", disable=not progress):
        noise = torch.randn(count, draws, size, generator=generator, device=images.device)
        z, log_q = posterior().sample(noise)
        # The decoder is fixed, so the gradient of the sum contains each image's own gradient.
        value = log_likelihood_logits(vae.decode(z), x) + log_standard_normal(z).squeeze(-1) - log_q
        gradients = torch.autograd.grad(-value.mean(1).sum(), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        q = posterior()
    return Posterior(q.mean.detach(), q.logvar.detach(), [tuple(p.detach() for p in layer) for layer in q.layers])


def fit_encoder(
    vae: VAE,
    images: Tensor,
    num_layers: int,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-3,
    flow_scale: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> VAE:
    """An encoder with planar layers for the decoder of a model, which is not changed.

    It is trained with the gradient along the path of the draw.

    Args:
        vae: The model. Where its encoder has the same layers, the new one begins as that one.
        images: Training images, 0 or 1, ``(N, 784)``.
        num_layers: Planar layers of the new encoder's posterior.
        epochs: Passes over the images, with Adam and a one-cycle step size.
        batch_size: Images in an update.
        lr: Peak of the step size.
        flow_scale: What its outputs for the layers are multiplied by; where it is small they change slowly.
        seed: Of the new weights, the order of the images and the noise.
        progress: Show a progress bar.

    Returns:
        A model of the new encoder and a copy of the decoder.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = int(next(vae.decoder.parameters()).shape[0])
        fitted = VAE(vae.latent_size, images.shape[1], width, num_layers, flow_scale=flow_scale)
    fitted = fitted.to(images.device, vae.dtype)
    fitted.decoder.load_state_dict(vae.decoder.state_dict())
    fitted.decoder.requires_grad_(requires_grad=False)
    with torch.no_grad():
        for new, old in zip(fitted.encoder.parameters(), vae.encoder.parameters(), strict=True):
            new[: len(old)] = old  # the same mean and log-variance, and then a flow near the identity
    optimizer = torch.optim.Adam(fitted.encoder.parameters(), lr, fused=True)
    updates = epochs * math.ceil(len(images) / batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(21, updates), pct_start=0.1)
    with tqdm(total=updates, desc=f"encoder, {num_layers} layers", unit=" updates", disable=not progress) as bar:
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
    z, logdet = z.double(), torch.zeros(len(z), 1, dtype=torch.float64, device=z.device)
    for u, w, b in reversed([tuple(p.double() for p in layer) for layer in q.layers]):
        z = inverse(z, u, w, b)
        logdet = logdet + get_logdet(z, u, w, b)
    noise = (z - q.mean.double()) * torch.exp(-0.5 * q.logvar.double())
    return (log_standard_normal(noise) - 0.5 * q.logvar.double().sum(-1, keepdim=True) - logdet).squeeze(-1)
