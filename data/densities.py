"""The two targets of question 3: energies on the plane, exact samples, and the limits of any model of them.

``python -m data.densities`` draws the data sets that ship with the project again.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.checkpoint import atomic_write

HERE = Path(__file__).parent
# Nats. The arcs are normalised by exp(-1.87750); no model has a lower expected negative log-likelihood
# than the entropy. The sine's energy is flat along z1, so it cannot be normalised on the plane: its
# entropy is that of the data, whose z1 is uniform on [-4, 4].
LOG_Z = {"arcs": 1.87750}
LOG_Z_STRIP = math.log(8 * 0.4 * math.sqrt(2 * math.pi))  # of the sine's energy on |z1| <= 4
ENTROPY = {"arcs": 2.66001, "sine": math.log(8) + 0.5 * math.log(2 * math.pi * math.e * 0.4**2)}


def density_arcs(z: Tensor) -> Tensor:
    r"""Energy of a ring that two Gaussian bands cut into a left and a right arc.

    .. math:: \tfrac12 \Big(\frac{\|z\| - 2}{0.4}\Big)^2
        - \log\Big(e^{-\frac12 (\frac{z_1 - 2}{0.6})^2} + e^{-\frac12 (\frac{z_1 + 2}{0.6})^2}\Big)

    Args:
        z: Points, shape ``(*, 2)``.

    Returns:
        :math:`-\log \tilde p(z)`, shape ``(*)``, in nats.
    """
    ring = 0.5 * ((torch.linalg.vector_norm(z, dim=-1) - 2) / 0.4).square()
    x = z[..., 0]
    bands = torch.logaddexp(-0.5 * ((x - 2) / 0.6).square(), -0.5 * ((x + 2) / 0.6).square())
    return ring - bands


def density_sine(z: Tensor) -> Tensor:
    r"""Energy of a Gaussian band along a sine wave of period 4.

    .. math:: \tfrac12 \Big(\frac{z_2 - \sin(2 \pi z_1 / 4)}{0.4}\Big)^2

    Args:
        z: Points, shape ``(*, 2)``.

    Returns:
        :math:`-\log \tilde p(z)`, shape ``(*)``, in nats.
    """
    return 0.5 * ((z[..., 1] - torch.sin(2 * math.pi * z[..., 0] / 4)) / 0.4).square()


def sample_arcs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Exact samples of the arcs, ``(count, 2)``, by rejection from a wide normal distribution.

    With a proposal of standard deviation s, the density over the proposal's, both unnormalised, is at
    most exp(2 / (s² - 0.16)) times what the bands add to 1, which is below 1e-9.
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


DENSITIES = {"arcs": density_arcs, "sine": density_sine}
SAMPLERS = {"arcs": sample_arcs, "sine": sample_sine}


def data_set(name: str) -> Tensor:
    """The data set ``data_arcs`` or ``data_sine``: 10,000 points, float32, ``(10000, 2)``."""
    return torch.from_numpy(np.load(HERE / f"data_{name}.npy"))


def draw(name: str, seed: int = 0, count: int = 10_000) -> np.ndarray:
    """The points of a data set, drawn again: the same seed gives the same points."""
    return SAMPLERS[name](count, np.random.default_rng(seed)).astype(np.float32)


if __name__ == "__main__":
    for name in DENSITIES:
        path = HERE / f"data_{name}.npy"
        with atomic_write(path) as temporary:
            np.save(temporary, draw(name))
        print(path.name)
