r"""The tuned recipe of flows: natural gradient, initial parameters and step sizes.

These flows have so few parameters that their Fisher information matrix can be factorised.

A step descends in the metric of the distributions, not of the parameters. With the gradients :math:`g_i` of the loss at
single points, and :math:`P` parameters, it is

.. math:: \Delta = -\eta \, (F + \lambda \tfrac{\operatorname{tr} F}{P} I)^{-1} \bar g, \quad
    F = \mathbb{E}[g_i g_i^\top]

For a flow from samples :math:`g_i` is the score at a point, so F is the Fisher information once the flow is close to
the data. For a flow from a density, the second moment of the gradients at its draws replaces it.

Source: Amari (1998), Natural gradient works efficiently in learning, https://doi.org/10.1162/089976698300017746
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from question3.stacked_flows import Energy, Parameters, compile_flows, point_gradients
from solution import Flow, invertible_u

MOMENTUM, DECAY = 0.9, 0.99  # of the running means of gradient and information
# As a share of the information's mean eigenvalue. From a finite data set, strong damping prevents overfitting:
# directions of little information hardly move.
DAMPING = {"samples": 0.1, "density": 0.01}
RADIUS = 0.3  # the longest step in the metric, before the multiplication by the step size
EVERY = 5  # updates between two factorisations


class State(NamedTuple):
    """Running means for R flows with P parameters, changed in place."""

    gradient: Tensor  # (R, P)
    information: Tensor  # (R, P, P)
    factor: Tensor  # (R, P, P), the Cholesky factor of the damped information


def initial_state(parameters: Sequence[Tensor]) -> State:
    """The state before the first update of stacked parameters ``(R, k, 1, d)``."""
    count, dtype = len(parameters[0]), parameters[0].dtype
    size = sum(parameter[0].numel() for parameter in parameters)
    identity = torch.eye(size, dtype=dtype).expand(count, -1, -1)
    return State(torch.zeros(count, size, dtype=dtype), torch.zeros_like(identity), identity.clone())


def spread(flow: Flow) -> None:
    """Spread the layers' hyperplanes: u and w from N(0, 0.3²), b from N(0, 1), far from the identity."""
    with torch.no_grad():
        for layer in flow.planar:
            layer.u.normal_(std=0.3)
            layer.w.normal_(std=0.3)
            layer.b.normal_()


def one_cycle(peak: float, num_iter: int) -> Tensor:
    """The one-cycle step sizes of a run, ``(num_iter,)`` (Smith and Topin 2018)."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=num_iter + 1, cycle_momentum=False)
    rates = []
    for _ in range(num_iter):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return torch.tensor(rates)


class NaturalGradient:
    """The natural gradient with given step sizes, of stacked flows.

    Args:
        parameters: Stacked parameters of the flows; changed in place.
        energies: As for :func:`stacked_flows.mean_loss`.
        rates: The step size of each update.
    """

    def __init__(self, parameters: Parameters, energies: tuple[Energy, ...] | None, rates: Tensor) -> None:
        self.parameters, self.energies, self.rates = parameters, energies, rates
        self.state = initial_state(parameters)  # what a checkpoint keeps
        self.function = point_gradients

    def compile(self) -> None:
        """Compile the gradients."""
        self.function = compile_flows(point_gradients)

    def update(self, number: int, x: Tensor, total: Tensor) -> None:
        """Update every flow from its batch ``(R, B, d)``, and add the losses to ``total`` ``(R,)``."""
        u, w, _ = self.parameters
        u.copy_(invertible_u(u, w))
        gradients, losses = self.function(self.parameters, x, self.energies)
        damping = DAMPING["density" if self.energies else "samples"]
        step(self.parameters, gradients, self.state, number, self.rates[number], damping)
        total += losses


@torch.no_grad()
def step(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: State,
    number: int,
    rate: float | Tensor,
    damping: float,
) -> None:
    """Update stacked parameters, and the state, in place.

    Args:
        parameters: Each ``(R, k, 1, d)``.
        gradients: Of the mean loss over B points, the part of each point: ``(R, k, B, d)``.
        state: As from :func:`initial_state`.
        number: Number of the update, from 0.
        rate: Step size.
        damping: Share of the mean eigenvalue that is added to all eigenvalues.
    """
    parts = torch.cat([gradient.transpose(1, 2).flatten(2) for gradient in gradients], dim=-1)  # (R, B, P)
    count = parts.shape[1]
    state.gradient.lerp_(parts.sum(1), 1 - MOMENTUM)
    state.information.lerp_(count * torch.bmm(parts.mT, parts), 1 - DECAY)  # each part is 1/B of a gradient
    if number % EVERY == 0:
        information = state.information / (1 - DECAY ** (number + 1))
        mean_eigenvalue = information.diagonal(dim1=1, dim2=2).mean(1)
        damped = information + torch.diag_embed(damping * mean_eigenvalue.unsqueeze(1).expand_as(state.gradient))
        # No check: a flow that has diverged has a loss that is not finite, which stops the run.
        state.factor.copy_(torch.linalg.cholesky_ex(damped).L)
    gradient = state.gradient / (1 - MOMENTUM ** (number + 1))
    direction = torch.cholesky_solve(gradient.unsqueeze(-1), state.factor).squeeze(-1)
    length = torch.linalg.vecdot(direction, gradient).clamp(min=0).sqrt()
    direction *= (RADIUS / length).clamp(max=1).unsqueeze(-1)
    sizes = [parameter[0].numel() for parameter in parameters]
    for parameter, change in zip(parameters, direction.split(sizes, dim=1), strict=True):
        parameter.sub_(rate * change.view_as(parameter))
