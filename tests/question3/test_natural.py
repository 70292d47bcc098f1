"""The natural gradient, against the gradients of single points and torch.linalg.solve."""

import pytest
import torch
from torch.func import functional_call, grad, vmap

from data.densities import TARGETS
from question3 import natural, stacked_flows
from solution import Flow, loss1, loss2


@pytest.mark.parametrize("energies", [None, (TARGETS["arcs"].energy,)])
@pytest.mark.parametrize("radius", [0.01, 1e6])
def test_a_step_solves_with_the_damped_second_moment_of_the_points_gradients(energies, radius, monkeypatch):
    monkeypatch.setattr(natural, "RADIUS", radius)
    torch.manual_seed(0)
    flows = [Flow(2, 3).double() for _ in range(2)]
    x = torch.randn(2, 40, 2, dtype=torch.float64)
    parameters, total = stacked_flows.stack(flows), torch.zeros(2, dtype=torch.float64)
    natural.NaturalGradient(parameters, energies, torch.tensor([0.2], dtype=torch.float64)).update(0, x, total)
    damping = natural.DAMPING["density" if energies else "samples"]
    for flow, batch, moved, loss in zip(flows, x, stacked_flows.unstack(parameters), total, strict=True):

        def point_loss(values, point, flow=flow):
            z, logdet = functional_call(flow, values, (point.unsqueeze(0),))
            one = loss2(energies[0](z), point.unsqueeze(0), logdet) if energies else loss1(z, logdet)
            return one.sum()

        values = dict(flow.named_parameters())
        names = [f"layers.{layer}.{name}" for name in "uwb" for layer in range(3)]
        parts = vmap(grad(point_loss), in_dims=(None, 0))(values, batch)
        gradients = torch.cat([parts[name].flatten(1) for name in names], dim=1)  # (B, P)
        information = gradients.T @ gradients / len(batch)
        size = len(information)
        damped = information + damping * information.trace() / size * torch.eye(size, dtype=torch.float64)
        mean = gradients.mean(0)
        direction = torch.linalg.solve(damped, mean)
        direction *= min(1.0, radius / (direction @ mean).sqrt().item())
        before = torch.cat([values[name].detach().flatten() for name in names])
        after = torch.cat([dict(moved.named_parameters())[name].detach().flatten() for name in names])
        torch.testing.assert_close(after, before - 0.2 * direction, rtol=1e-7, atol=1e-10)
        expected = torch.stack([point_loss(values, point) for point in batch]).mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_every_fifth_update_factorises_the_running_mean():
    torch.manual_seed(0)
    parameters = stacked_flows.stack([Flow(2, 2).double()])
    updater = natural.NaturalGradient(parameters, None, torch.full((natural.EVERY + 1,), 0.1, dtype=torch.float64))
    factors = []
    for number in range(natural.EVERY + 1):
        updater.update(number, torch.randn(1, 20, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        factors.append(updater.factor.clone())
    assert torch.equal(factors[0], factors[natural.EVERY - 1])
    information = updater.information[0] / (1 - natural.DECAY ** (natural.EVERY + 1))
    damped = information + natural.DAMPING["samples"] * information.diagonal().mean() * torch.eye(len(information))
    torch.testing.assert_close(factors[-1][0] @ factors[-1][0].T, damped, rtol=1e-9, atol=1e-12)


def test_the_one_cycle_schedule_rises_to_its_peak_and_falls():
    rates = natural.one_cycle(1e-2, 1000)
    assert rates.max().item() == pytest.approx(1e-2, rel=1e-4) and 200 < rates.argmax() < 400
    assert rates[-1] < 1e-4 and len(rates) == 1000
