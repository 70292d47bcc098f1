"""Scores of planar flows in nats, and their distance from the best possible score (questions 3.7 and 3.9)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from data.densities import Target
from lab.estimates import mean_and_error
from solution import Flow, log_standard_normal, loss1, loss2


@torch.no_grad()
def in_blocks(function: Callable[[Tensor], Tensor], points: Tensor, block: int = 100_000) -> Tensor:
    """Apply a function to blocks of points that fit into memory."""
    return torch.cat([function(part) for part in points.split(block)])


@torch.no_grad()
def log_density(flow: Flow, source: str, x: Tensor) -> Tensor:
    """Log-density at points ``(N, 2)`` of a flow learnt from ``samples`` or a ``density``: ``(N,)`` in nats.

    A flow from samples maps data to noise, one from a density noise to the target.
    """
    if source == "samples":
        return -loss1(*flow(x)).squeeze(1)
    z0 = flow.inverse(x)
    _, logdet = flow(z0)
    return (log_standard_normal(z0) - logdet).squeeze(1)


def score_from_samples(flow: Flow, target: Target, count: int = 100_000, seed: int = 12345) -> dict[str, Any]:
    r"""Expected negative log-likelihood, and its gap to the entropy of the target, its lower bound, in nats.

    Both are estimated from fresh points of the target p. If p is known, its own log-density is a control variate:

    .. math:: \mathrm{gap} = \mathbb{E}_p[\log p - \log q], \quad \mathrm{NLL} = H(p) + \mathrm{gap}

    have a much smaller standard error than the mean of :math:`-\log q`.
    Without a known entropy there is no gap. Without a sampler there is only ``train_nll``, on the data it learnt from.
    """
    points = torch.from_numpy(target.draw(seed, count)) if target.sampler else target.data_set().float()
    losses = in_blocks(lambda x: loss1(*flow(x)).squeeze(1), points)
    if target.sampler is None:
        return {"train_nll": mean_and_error(losses)}
    if target.entropy is None or target.log_z is None:
        return {"nll": mean_and_error(losses)}
    gap = mean_and_error(losses - target.energy(points) - target.log_z)
    return {"nll": {**gap, "mean": target.entropy + gap["mean"]}, "gap": gap["mean"]}


def score_from_density(flow: Flow, target: Target, count: int = 1_000_000, seed: int = 12345) -> dict[str, Any]:
    r"""The loss, and the divergence from the target if log Z is known, in nats.

    KL(q‖p) is the mean of loss2 plus log Z. If the density cannot be normalised on the plane, flow and target are both
    restricted to the strip A = {\|z₁\| ≤ a} and normalised there:

    .. math:: \mathrm{KL}(q_A \| p_A) = \mathbb{E}_{q|A}[\log q - \log \tilde p] - \log q(A) + \log Z_A,

    estimated from the draws in A; its standard error combines those of the mean and of log q(A) in quadrature. With
    fewer than two draws in A there is no estimate.
    """
    noise = torch.randn(count, flow.planar[0].u.shape[-1], generator=torch.Generator().manual_seed(seed))

    def both(z0: Tensor) -> Tensor:
        z, logdet = flow(z0)
        return torch.cat([loss2(target.energy(z), z0, logdet), z], dim=1)

    values = in_blocks(both, noise).double()
    result: dict[str, Any] = {"loss": mean_and_error(values[:, 0])}
    if target.log_z is None:
        return result
    if target.half_width is None:
        return {**result, "kl": {**result["loss"], "mean": result["loss"]["mean"] + target.log_z}}
    inside = values[:, 1].abs() <= target.half_width
    share = inside.double().mean().item()
    if inside.sum() < 2:
        return {**result, "share_inside": share}
    within = mean_and_error(values[inside, 0])
    error = math.hypot(within["standard_error"], math.sqrt((1 - share) / (share * count)))
    kl = within["mean"] - math.log(share) + target.log_z
    return {**result, "share_inside": share, "kl": {"mean": kl, "standard_error": error}}
