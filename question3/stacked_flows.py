"""Many planar flows of one depth as stacked tensors, their gradients, and one update of all of them.

The parameters of R flows with k layers are three tensors with leading dimensions (R, k), over which
:func:`solution.chain` broadcasts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lab.device import compile_where_possible
from solution import Flow, chain, invertible_u, loss1, loss2

Energy = Callable[[Tensor], Tensor]
Parameters = tuple[Tensor, ...]  # u, w and b, stacked


def stack(flows: Sequence[Flow]) -> Parameters:
    """The parameters u, w ``(R, k, 1, d)`` and b ``(R, k, 1, 1)`` of flows of the same depth."""
    return tuple(
        torch.stack(
            [torch.stack([getattr(layer, name).detach().view(1, -1) for layer in flow.planar]) for flow in flows]
        )
        for name in "uwb"
    )


def unstack(parameters: Parameters) -> list[Flow]:
    """The flows that hold the stacked parameters."""
    flows = []
    for u, w, b in zip(*parameters, strict=True):
        flow = Flow(u.shape[-1], len(u)).to(u.dtype)
        with torch.no_grad():
            for i, layer in enumerate(flow.planar):
                layer.u.copy_(u[i])
                layer.w.copy_(w[i])
                layer.b.copy_(b[i].view(1))
        flows.append(flow)
    return flows


def mean_loss(parameters: Parameters, x: Tensor, energies: tuple[Energy, ...] | None) -> tuple[Tensor, Tensor]:
    """The mean loss of each flow over its batch, in nats.

    Args:
        parameters: Stacked u, w, b, ``(R, k, B, d)``, ``(R, k, B, d)`` and ``(R, k, B, 1)``: one copy per point.
        x: Data or noise, ``(R, B, d)``.
        energies: For flows from densities, the targets of equal shares of the flows, each called with all points of
            its flows, ``(N, d)``; None for flows from samples.

    Returns:
        The sum over the flows, whose gradient with respect to one flow's parameters is that of the flow's own loss,
        and the losses ``(R,)``.
    """
    z, logdet = chain(x, list(zip(*(parameter.unbind(1) for parameter in parameters), strict=True)))
    if energies is None:
        losses = loss1(z, logdet).mean((1, 2))
    else:
        parts = zip(energies, z.chunk(len(energies)), strict=True)
        energy = torch.cat([energy(part.flatten(0, 1)).unflatten(0, part.shape[:2]) for energy, part in parts])
        losses = loss2(energy, x, logdet).mean((1, 2))
    return losses.sum(), losses


def point_gradients(
    parameters: Parameters, x: Tensor, energies: tuple[Energy, ...] | None
) -> tuple[list[Tensor], Tensor]:
    """Each point's part of the gradients of the mean losses, ``(R, k, B, d)`` and ``(R, k, B, 1)``, and the losses.

    Arguments are those of :func:`mean_loss`, with one copy of the parameters.
    """
    # A copy of the parameters per point makes the backward pass pointwise; sums over the batch follow it.
    copies = tuple(parameter.expand(-1, -1, x.shape[1], -1) for parameter in parameters)
    gradients, losses = torch.func.grad(mean_loss, has_aux=True)(copies, x, energies)
    return list(gradients), losses


class RMSprop:
    """``torch.optim.RMSprop`` with a constant step size, for stacked flows, whose parameters it changes in place."""

    def __init__(self, parameters: Parameters, energies: tuple[Energy, ...] | None, lr: float) -> None:
        self.parameters, self.energies, self.lr = parameters, energies, lr
        self.state = tuple(torch.zeros_like(parameter) for parameter in parameters)  # what a checkpoint keeps
        self.function = self.step  # what :func:`compile_flows` may compile: gradient and optimiser in one piece

    def update(self, number: int, x: Tensor, total: Tensor) -> None:
        """Update every flow from its batch ``(R, B, d)``, and add the losses to ``total`` ``(R,)``."""
        self.function(x, total)

    @torch.no_grad()
    def step(self, x: Tensor, total: Tensor) -> None:
        u, w, _ = self.parameters
        u.copy_(invertible_u(u, w))
        gradients, losses = point_gradients(self.parameters, x, self.energies)
        for parameter, average, parts in zip(self.parameters, self.state, gradients, strict=True):
            gradient = parts.sum(2, keepdim=True)
            average.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
            parameter.addcdiv_(gradient, average.sqrt() + 1e-8, value=-self.lr)
        total += losses


def compile_flows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile :meth:`RMSprop.step` or :func:`point_gradients`.

    All operations fuse in the order in which they are written. Searching for better pairs takes a third of the
    compilation and finds none, and a precompiled header takes seconds and would serve one file.
    """
    fusion = {"max_fusion_buffer_group_pairwise_attempts": 1, "max_fusion_size": 512}
    return compile_where_possible(function, **fusion, cpp_cache_precompile_headers=False)
