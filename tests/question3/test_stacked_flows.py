"""Stacked flows: stack and unstack, and an update that is RMSprop's on the graded losses."""

import pytest
import torch

from data.densities import density_arcs, density_sine
from question3 import stacked_flows
from solution import Flow, loss1, loss2


@pytest.mark.parametrize("energies", [None, (density_arcs, density_sine)])
def test_loss_and_update_are_those_of_each_flow_alone_in_double_precision(energies):
    torch.manual_seed(0)
    flows = [Flow(2, 3).double() for _ in range(4)]
    for flow in flows:
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter)  # far from the start, where some u have to be moved
    x = torch.randn(4, 16, 2, dtype=torch.float64)
    parameters = stacked_flows.stack(flows)
    updater, total = stacked_flows.RMSprop(parameters, energies, lr=0.01), torch.zeros(4, dtype=torch.float64)
    for number in range(2):
        updater.update(number, x, total)
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


def test_energies_that_do_not_give_one_number_for_each_point_are_refused():
    parameters = stacked_flows.stack([Flow(2, 1)])
    with pytest.raises(ValueError, match="target_density has shape"):
        stacked_flows.mean_loss(parameters, torch.randn(1, 4, 2), (lambda z: z.square().sum(1, keepdim=True),))
