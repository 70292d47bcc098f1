r"""Forward and reverse divergence: what few layers learn with each (between questions 3.7 and 3.9).

Learning from samples minimises :math:`\mathrm{KL}(p \| q)`, learning from a density :math:`\mathrm{KL}(q \| p)`. The
flows of the two questions are different families, one from data to noise and one from noise to data, so the questions
differ in more than the divergence. Here both divergences are minimised over one family, flows from the plane to noise.
Their density is explicit at every point, so the divergences are sums over a grid.

Source: Murphy (2023), Probabilistic machine learning: advanced topics, section 5.1, https://probml.github.io/book2
"""

import math

import torch
from torch import Tensor
from tqdm.auto import tqdm

from data.densities import Target
from solution import Flow, loss1

Grid = tuple[Tensor, float]  # centres of cells, (G, 2), and their area


def square(half_width: float = 6.0, cells: int = 120) -> Grid:
    """A square of ``cells`` × ``cells`` cells about the origin."""
    side = 2 * half_width / cells
    line = torch.arange(cells, dtype=torch.float64) * side + side / 2 - half_width
    return torch.cartesian_prod(line, line), side**2


def divergences(log_p: Tensor, log_q: Tensor, area: float) -> dict[str, Tensor]:
    r"""KL(p‖q), ``forward``, and KL(q‖p), ``reverse``, in nats, from log-densities at the cells of a grid, ``(G,)``.

    .. math:: \mathrm{KL}(p \| q) = \sum_g \Big[p_g \log \frac{p_g}{q_g} - p_g + q_g\Big] \Delta

    The last two terms cancel if the whole mass of both densities is on the grid; otherwise they keep the sum from being
    negative.
    """
    p, q = log_p.exp(), log_q.exp()
    integrands = {"forward": p * (log_p - log_q) - p + q, "reverse": q * (log_q - log_p) - q + p}
    return {name: values.sum() * area for name, values in integrands.items()}


def log_target(target: Target, grid: Grid) -> Tensor:
    """The target's log-density at the cells of a grid, ``(G,)``, normalised on the grid."""
    points, area = grid
    log_p = -target.energy(points)
    return log_p - torch.logsumexp(log_p, 0) - math.log(area)


def fit(target: Target, direction: str, num_layers: int, seed: int, grid: Grid, steps: int = 1500) -> Flow:
    """Minimise the divergence ``forward`` or ``reverse``, summed over a grid, over flows from the plane to noise.

    The initial parameters are standard normal. Adam has a one-cycle step size with peak 0.02.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = Flow(2, num_layers).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.normal_()
    points, area = grid
    log_p = log_target(target, grid)
    optimizer = torch.optim.Adam(flow.parameters())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=max(21, steps), cycle_momentum=False)
    for _ in tqdm(range(steps), desc=f"{direction} KL, seed {seed}", unit="update"):
        log_q = -loss1(*flow(points)).squeeze(1)
        optimizer.zero_grad()
        divergences(log_p, log_q, area)[direction].backward()
        optimizer.step()
        scheduler.step()
    return flow


@torch.no_grad()
def measure(target: Target, flow: Flow, grid: Grid) -> dict[str, float]:
    """Both divergences of a flow from the plane to noise, in nats."""
    points, area = grid
    log_q = -loss1(*flow(points)).squeeze(1)
    return {name: value.item() for name, value in divergences(log_target(target, grid), log_q, area).items()}
