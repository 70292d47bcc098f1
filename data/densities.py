"""The targets of question 3: energies on the plane, exact samplers, and limits that no model can beat."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.options import InputError

HERE = Path(__file__).parent


def density_arcs(z: Tensor) -> Tensor:
    r"""Energy -log p̃(z) of a ring that two vertical Gaussian bands cut into two arcs: ``(*, 2)`` to ``(*)`` in nats.

    .. math:: \tfrac12 \Big(\frac{\|z\| - 2}{0.4}\Big)^2
        - \log\Big(e^{-\frac12 (\frac{z_1 - 2}{0.6})^2} + e^{-\frac12 (\frac{z_1 + 2}{0.6})^2}\Big)
    """
    ring = 0.5 * ((torch.linalg.vector_norm(z, dim=-1) - 2) / 0.4).square()
    x = z[..., 0]
    bands = torch.logaddexp(-0.5 * ((x - 2) / 0.6).square(), -0.5 * ((x + 2) / 0.6).square())
    return ring - bands


def density_sine(z: Tensor) -> Tensor:
    r"""Energy -log p̃(z) of a Gaussian band along a sine wave of period 4: ``(*, 2)`` to ``(*)`` in nats.

    .. math:: \tfrac12 \Big(\frac{z_2 - \sin(2 \pi z_1 / 4)}{0.4}\Big)^2
    """
    return 0.5 * ((z[..., 1] - torch.sin(2 * math.pi * z[..., 0] / 4)) / 0.4).square()


def sample_arcs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Exact samples of the arcs, ``(count, 2)``, by rejection from a wide normal distribution.

    With a proposal of standard deviation s, the ratio of the unnormalised densities is at most
    exp(2 / (s² - 0.16)), up to a factor below 1 + 1e-9 for the overlap of the bands.
    """
    s = 1.5
    log_bound = 2 / (s**2 - 0.16) + 1e-9
    samples = np.empty((0, 2))
    while len(samples) < count:
        z = rng.normal(scale=s, size=(8 * count, 2))
        log_density = -density_arcs(torch.from_numpy(z)).numpy()
        log_ratio = log_density + 0.5 * (z**2).sum(1) / s**2 - log_bound
        samples = np.concatenate([samples, z[np.log(rng.random(len(z))) < log_ratio]])
    return samples[:count]


def sample_sine(count: int, rng: np.random.Generator) -> np.ndarray:
    """Exact samples around the sine, ``(count, 2)``: z1 uniform on [-4, 4], z2 normal around its sine."""
    x = rng.uniform(-4, 4, count)
    return np.stack([x, np.sin(2 * np.pi * x / 4) + rng.normal(scale=0.4, size=count)], axis=1)


@dataclass(frozen=True)
class Target:
    r"""A target of question 3 and its known properties. A new target needs only this record.

    Args:
        name: Its name on the command line and in results.
        energy: Maps points ``(N, 2)`` to -log of the unnormalised density ``(N,)``.
        sampler: Draws points ``(count, 2)`` with NumPy's generator. Without one, flows learn from the density only.
        log_z: Log of the normaliser in nats, of the density restricted to the strip; without it, no divergence.
        entropy: Entropy of the data in nats, the lower bound of the expected negative log-likelihood.
        half_width: Half width a of the strip A = {\|z₁\| ≤ a} on which a density is normalised that cannot be
            normalised on the plane. None for the plane.
        points: A data set of your own, ``(N, d)``, of which nothing else is known.
    """

    name: str
    energy: Callable[[Tensor], Tensor]
    sampler: Callable[[int, np.random.Generator], np.ndarray] | None = None
    log_z: float | None = None
    entropy: float | None = None
    half_width: float | None = None
    points: Tensor | None = field(default=None, compare=False)

    def draw(self, seed: int = 0, count: int = 10_000) -> np.ndarray:
        """Draw points ``(count, 2)``, float32, the same for the same seed; without a sampler that is an InputError."""
        if self.sampler is None:
            raise InputError(f"{self.name} has no sampler: nothing to learn from samples")
        return self.sampler(count, np.random.default_rng(seed)).astype(np.float32)

    def data_set(self) -> Tensor:
        """Your own points, or the data set ``data_NAME``, float32, ``(10000, 2)``: the shipped file, or a draw."""
        if self.points is not None:
            return self.points
        path = HERE / f"data_{self.name}.npy"
        return torch.from_numpy(np.load(path) if path.exists() else self.draw())


# The sine's energy is flat along z1, so it has no normaliser on the plane. Its log_z and entropy are those on
# |z1| <= 4, where the data are uniform along z1 and normal around the wave.
TARGETS = {
    target.name: target
    for target in (
        Target("arcs", density_arcs, sample_arcs, log_z=1.87750, entropy=2.66001),
        Target(
            "sine",
            density_sine,
            sample_sine,
            log_z=math.log(8 * 0.4 * math.sqrt(2 * math.pi)),
            entropy=math.log(8) + 0.5 * math.log(2 * math.pi * math.e * 0.4**2),
            half_width=4.0,
        ),
    )
}
