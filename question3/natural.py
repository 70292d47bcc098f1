r"""The tuned recipe of flows: natural gradient, initial parameters and step sizes.

These flows have so few parameters that their Fisher information matrix can be factorised. A step descends in the metric
of the distributions, not of the parameters. With the gradients :math:`g_i` of the loss at single points, and :math:`P`
parameters, it is

.. math:: \Delta = -\eta \, (F + \lambda \tfrac{\operatorname{tr} F}{P} I)^{-1} \bar g, \quad
    F = \mathbb{E}[g_i g_i^\top]

For a flow from samples :math:`g_i` is the score at a point, so F is the Fisher information once the flow is close to
the data. For a flow from a density, the second moment of the gradients at its draws replaces it.

Source: Amari (1998), Natural gradient works efficiently in learning, https://doi.org/10.1162/089976698300017746
"""

import torch
from torch import Tensor

from question3.stacked_flows import Energy, Parameters, point_gradients
from solution import Flow, invertible_u

MOMENTUM, DECAY = 0.9, 0.99  # of the running means of gradient and information
# As a share of the information's mean eigenvalue. From a finite data set, strong damping prevents overfitting:
# directions of little information hardly move.
DAMPING = {"samples": 0.1, "density": 0.01}
RADIUS = 0.3  # the longest step in the metric, before the multiplication by the step size
EVERY = 5  # updates between two factorisations


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
    """The natural gradient with a step size for each update, of R stacked flows with P parameters each.

    It changes the parameters, ``(R, k, 1, d)``, in place. Energies are as for :func:`stacked_flows.mean_loss`.
    """

    def __init__(self, parameters: Parameters, energies: tuple[Energy, ...] | None, rates: Tensor) -> None:
        self.parameters, self.energies, self.rates = parameters, energies, rates
        self.sizes = [parameter[0].numel() for parameter in parameters]
        self.gradient = parameters[0].new_zeros(len(parameters[0]), sum(self.sizes))  # (R, P), a running mean
        self.information = torch.diag_embed(self.gradient)  # (R, P, P), a running mean
        self.factor = torch.zeros_like(self.information)  # the Cholesky factor of the damped information
        self.state = (self.gradient, self.information, self.factor)  # what a checkpoint keeps
        self.function = point_gradients  # what :func:`stacked_flows.compile_flows` may compile

    @torch.no_grad()
    def update(self, number: int, x: Tensor, total: Tensor) -> None:
        """Update every flow from its batch ``(R, B, d)``, and add the losses to ``total`` ``(R,)``."""
        u, w, _ = self.parameters
        u.copy_(invertible_u(u, w))
        gradients, losses = self.function(self.parameters, x, self.energies)
        total += losses
        # Each point's part of the mean's gradient, (R, B, P).
        parts = torch.cat([gradient.transpose(1, 2).flatten(2) for gradient in gradients], dim=-1)
        self.gradient.lerp_(parts.sum(1), 1 - MOMENTUM)
        self.information.lerp_(x.shape[1] * torch.bmm(parts.mT, parts), 1 - DECAY)
        if number % EVERY == 0:
            information = self.information / (1 - DECAY ** (number + 1))
            damping = DAMPING["density" if self.energies else "samples"]
            mean_eigenvalue = information.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
            damped = information + torch.diag_embed((damping * mean_eigenvalue).expand_as(self.gradient))
            # No check: a flow that has diverged has a loss that is not finite, which stops the run.
            self.factor.copy_(torch.linalg.cholesky_ex(damped).L)
        gradient = self.gradient / (1 - MOMENTUM ** (number + 1))
        direction = torch.cholesky_solve(gradient.unsqueeze(-1), self.factor).squeeze(-1)
        length = torch.linalg.vecdot(direction, gradient).clamp(min=0).sqrt()
        direction *= (RADIUS / length).clamp(max=1).unsqueeze(-1)
        for parameter, change in zip(self.parameters, direction.split(self.sizes, dim=1), strict=True):
            parameter.sub_(self.rates[number] * change.view_as(parameter))
