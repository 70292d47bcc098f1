"""Stacked flows: there and back, and an update that is RMSprop's on the graded losses."""

import math

import pytest
import torch
from torch.func import grad

from data.densities import TARGETS
from question3 import stacked_flows
from solution import Flow, loss1, loss2


def test_stacking_is_undone_by_unstacking():
    flows = [Flow(3, 5) for _ in range(2)]
    for flow, back in zip(flows, stacked_flows.unstack(stacked_flows.stack(flows)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(flow.parameters(), back.parameters(), strict=True))


@pytest.mark.parametrize("energies", [None, tuple(target.energy for target in TARGETS.values())])
def test_loss_and_update_are_those_of_each_flow_alone_in_double_precision(energies):
    torch.manual_seed(0)
    flows = [Flow(2, 3).double() for _ in range(4)]
    for flow in flows:
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter)  # far from the start, where some u have to be moved
    x = torch.randn(4, 16, 2, dtype=torch.float64)
    parameters = stacked_flows.stack(flows)
    averages = tuple(torch.zeros_like(parameter) for parameter in parameters)
    total = torch.zeros(4, dtype=torch.float64)
    for _ in range(2):
        steps = [torch.tensor(0.0) for _ in parameters]
        stacked_flows.update(parameters, averages, steps, total, x, energies, lr=0.01)
    moved = stacked_flows.unstack(parameters)
    for i, (flow, batch) in enumerate(zip(flows, x, strict=True)):
        optimizer, losses = torch.optim.RMSprop(flow.parameters(), lr=0.01), []
        for _ in range(2):
            z, logdet = flow(batch)
            loss = (loss2(energies[i // 2](z), batch, logdet) if energies else loss1(z, logdet)).mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert total[i].item() == pytest.approx(sum(losses), rel=1e-12)
        for a, b in zip(moved[i].parameters(), flow.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("product", [-1.0, -20.0, -1e4])
def test_a_second_update_moves_no_u_that_the_first_has_adjusted(product):
    torch.manual_seed(0)
    flows = [Flow(2, 50) for _ in range(2)]
    parameters = stacked_flows.stack(flows)
    u, w, _ = parameters
    w.normal_()
    u.normal_()
    u += (product - (w * u).sum(-1, keepdim=True)) * w / w.square().sum(-1, keepdim=True)
    states = [torch.tensor(0.0) for _ in parameters], torch.zeros(2), torch.randn(2, 8, 2)
    for _ in range(2):
        stacked_flows.update(parameters, tuple(map(torch.zeros_like, parameters)), *states, None, lr=0.0)
        adjusted = u.clone()
    flow = stacked_flows.unstack(parameters)[0]
    flow(torch.zeros(1, 2))
    for layer, expected in zip(flow.planar, adjusted[0], strict=True):
        assert torch.equal(layer.u, expected) and (layer.u * layer.w).sum() >= -1


ENERGIES = {
    "by column": lambda z: (z[:, 0] ** 2 + z[:, 1] ** 2) / 2,
    "sum over 1": lambda z: (z**2 / 2).sum(1),
    "chunks": lambda z: sum(part.squeeze(1) ** 2 / 2 for part in z.chunk(2, dim=1)),
}


@pytest.mark.parametrize("batch", [2, 5])
def test_energies_are_called_with_points_and_give_each_flow_its_own(batch):
    """Whatever way they take the coordinates apart, also where there are as many points as coordinates."""
    torch.manual_seed(0)
    parameters = stacked_flows.stack([Flow(2, 3) for _ in range(6)])
    x = torch.randn(6, batch, 2)
    copies = tuple(parameter.expand(-1, -1, batch, -1) for parameter in parameters)
    normal = [lambda z: -torch.distributions.Normal(0, 1).log_prob(z).sum(-1) - math.log(2 * math.pi)] * 3
    (loss, losses), (_, expected) = (
        stacked_flows.mean_loss(copies, x, tuple(energies)) for energies in (ENERGIES.values(), normal)
    )
    torch.testing.assert_close(losses, expected)
    assert loss.item() == pytest.approx(expected.sum().item(), abs=1e-5)
    gradients = [
        grad(lambda u, e=energies: stacked_flows.mean_loss((u, *copies[1:]), x, tuple(e))[0])(copies[0])
        for energies in (ENERGIES.values(), normal)
    ]
    torch.testing.assert_close(*gradients)


def test_energies_that_do_not_give_one_number_for_each_point_are_refused():
    parameters = stacked_flows.stack([Flow(2, 1)])
    with pytest.raises(ValueError, match="target_density has shape"):
        stacked_flows.mean_loss(parameters, torch.randn(1, 4, 2), (lambda z: z.square().sum(1, keepdim=True),))
