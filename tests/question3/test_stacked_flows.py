"""Stacked flows: there and back, and an update that is RMSprop's on the graded losses."""

import pytest
import torch

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
