"""Losses, penalties and the step against closed forms: linear and quadratic critics, worked out on paper."""

import copy
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.utils.parametrizations import spectral_norm

import gan

numbers = st.floats(-3, 3).map(lambda x: round(x, 3))
seeds = st.integers(0, 10**6)


def samples(seed: int, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(seeds, st.sampled_from([(7,), (7, 1), (2, 3, 4)]))
def test_losses_are_the_formulas_over_all_values(seed, shape):
    cp, cq = samples(seed, *shape), samples(seed + 1, *shape)
    p, q = cp.numpy(), cq.numpy()
    expected = -np.log1p(np.exp(-p)).mean() / 2 - np.log1p(np.exp(q)).mean() / 2 + np.log(2)
    assert gan.jsd(cp, cq).item() == pytest.approx(expected, rel=1e-12)
    assert gan.w1(cp, cq).item() == pytest.approx(p.mean() - q.mean(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jsd_is_stable_and_differentiable_at_huge_values(dtype):
    for sign in (1, -1):
        cp = torch.full((3,), sign * 1e4, dtype=dtype, requires_grad=True)
        value = gan.jsd(cp, -cp)
        value.backward()
        assert value.dtype == dtype and torch.isfinite(cp.grad).all()
        assert value.item() == pytest.approx(math.log(2) if sign == 1 else math.log(2) - 1e4, rel=1e-6)


@given(seeds, st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_penalties_of_a_linear_critic_on_images(seed, dtype, ready):
    """C(x) = a·x has the slope a everywhere."""
    a = samples(seed, 3, 4, 4, dtype=dtype).requires_grad_()
    p, q = samples(seed + 1, 5, 3, 4, 4, dtype=dtype), samples(seed + 2, 5, 3, 4, 4, dtype=dtype)
    p.requires_grad_(ready)

    def critic(x):
        return (x * a).flatten(1).sum(1)

    norm = a.detach().norm().item()
    values = (p, critic(p), q, critic(q), critic)
    for penalty, expected, slope in [
        (gan.r1gp, norm**2, 2 * a.detach()),
        (gan.ogp, (norm - 1) ** 2, 2 * (norm - 1) * a.detach() / norm),
    ]:
        value = penalty(*values)
        assert value.dtype == dtype and value.shape == ()
        assert value.item() == pytest.approx(expected, rel=1e-5)
        (gradient,) = torch.autograd.grad(value, a)
        torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)
    assert p.grad is None and q.grad is None


@given(seeds, numbers, numbers)
def test_penalties_of_a_quadratic_critic_on_scalars(seed, a, b):
    """C(x) = a x² + b x has the slope 2ax + b; with p = q there is nothing in between to draw."""
    p, q = samples(seed, 6), samples(seed + 1, 6)
    parameter = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)

    def critic(x):
        return parameter[0] * x**2 + parameter[1] * x

    slope = 2 * a * p + b
    assert gan.r1gp(p, critic(p), q, critic(q), critic).item() == pytest.approx(slope.square().mean().item(), abs=1e-12)
    on_real = gan.ogp(p, critic(p), p, critic(p), critic).item()
    assert on_real == pytest.approx((slope.abs() - 1).square().mean().item(), abs=1e-12)


def test_one_centred_penalty_draws_its_points_between_each_pair():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    p, q = torch.zeros(4000, 2), torch.tensor([[1.0, 2.0]]).expand(4000, 2)
    gan.ogp(p, None, q, None, critic)
    (x,) = seen
    share = x[:, 0]
    torch.testing.assert_close(x[:, 1], 2 * share)  # one ε a pair, not one a coordinate
    assert share.min() >= 0 and share.max() <= 1 and len(share.unique()) > 3000
    assert share.mean().item() == pytest.approx(0.5, abs=0.02) and share.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_r1_is_right_where_the_values_at_hand_are_of_other_points_or_without_a_graph():
    a = samples(0, 3).requires_grad_()
    critic = lambda x: x @ a  # noqa: E731
    p = samples(1, 5, 3)
    cp = critic(p)
    p.requires_grad_()
    for values in (cp, cp.detach()):
        assert gan.r1gp(p, values, None, None, critic).item() == pytest.approx(a.square().sum().item())
    with torch.no_grad():
        loss = gan.make_losses("W1", "R1", 0.5)[1](p, p, critic)
    assert loss.item() == pytest.approx(a.square().sum().item() / 2)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 2, 2)])
@pytest.mark.parametrize("ready", [False, True])
def test_penalties_of_a_critic_that_ignores_its_input(shape, ready):
    bias = torch.ones((), requires_grad=True)
    for critic in (lambda x: torch.ones(len(x)), lambda x: bias.expand(len(x)), lambda x: 0 * x):
        p, q = samples(0, *shape).requires_grad_(ready), samples(1, *shape)
        for cp in (critic(p), None):
            assert gan.r1gp(p, cp, q, None, critic).item() == 0
            assert gan.ogp(p, cp, q, None, critic).item() == 1
    for reg_type, penalty in [("R1", 0.0), ("GP", 1.0)]:  # the second critic's slope is zero and has a gradient
        for critic in (lambda x: bias.expand(len(x)), lambda x: (bias - bias.detach()) * x.flatten(1).sum(1)):
            loss = gan.make_losses("W1", reg_type, 0.5)[1](p.reshape(4, -1), q.reshape(4, -1), critic)
            (gradient,) = torch.autograd.grad(loss + bias * 0, bias)
            assert loss.item() == penalty / 2 and gradient.isfinite()


def test_errors_are_those_of_the_public_tests():
    for loss, reg in [("KL", None), ("jsd", None), ("JSD", "R2"), ("W1", "gp")]:
        with pytest.raises(NotImplementedError):
            gan.make_losses(loss, reg)
        with pytest.raises(NotImplementedError):
            gan.make_train_step(loss, reg_type=reg)
    for reg_cf in (0, -1, math.nan):
        with pytest.raises(AssertionError):
            gan.make_losses("JSD", "R1", reg_cf)
    for wrong in ({"critic_inner_iters": 0}, {"alpha_ema": 0}, {"alpha_ema": 1}, {"alpha_ema": -0.1}, {"reg_cf": 0}):
        with pytest.raises(AssertionError):
            gan.make_train_step("JSD", **wrong)


@given(st.floats(0.01, 0.99), seeds)
def test_moving_average(alpha, seed):
    torch.manual_seed(seed)
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    before, original = copy.deepcopy(target), copy.deepcopy(source)
    assert gan.apply_exponential_moving_average(source, target, alpha) is None
    for new, old, s in zip(target.parameters(), before.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(new, alpha * old + (1 - alpha) * s)
        assert new.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), original.parameters(), strict=True))


class Point(nn.Module):
    """A generator of one point."""

    def __init__(self, at):
        super().__init__()
        self.at = nn.Parameter(at)

    def forward(self):
        return self.at


def hand_step(loss, reg, cf, theta, psi, target, lr):
    """One alternating update of the dirac game, worked out on paper."""
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731

    def weights(psi):
        if loss == "W1":
            return 1.0, 1.0
        return sigmoid(-(psi[0] * target + psi[1])) / 2, sigmoid(psi[0] * theta + psi[1]) / 2

    for _ in range(2):
        a, b = weights(psi)
        penalty = {"R1": 2 * psi[0], "GP": 2 * (abs(psi[0]) - 1) * math.copysign(1, psi[0]), None: 0.0}[reg]
        psi = [psi[0] + lr * (a * target - b * theta - cf * penalty), psi[1] + lr * (a - b)]
    return theta + lr * weights(psi)[1] * psi[0], psi


@given(
    st.sampled_from(gan.AVAILABLE_LOSSES),
    st.sampled_from(gan.AVAILABLE_REGULARIZERS),
    *[numbers.filter(lambda x: abs(x) > 0.1)] * 4,
)
def test_train_step_of_a_linear_critic_with_sgd(loss, reg, theta, psi0, psi1, target):
    generator = Point(torch.tensor([theta], dtype=torch.float64))
    critic = torch.tensor([psi0, psi1], dtype=torch.float64, requires_grad=True)
    average = copy.deepcopy(generator)
    step = gan.make_train_step(loss, 2, reg, 0.3, alpha_ema=None)
    optimizers = [torch.optim.SGD(p, lr=0.1) for p in ([critic], generator.parameters())]
    data = itertools.repeat(torch.tensor([target], dtype=torch.float64))
    before = gan.make_losses(loss)[0]
    value = step(data, lambda x: critic[0] * x + critic[1], optimizers[0], generator, average, optimizers[1])
    expected_theta, expected_psi = hand_step(loss, reg, 0.3, theta, [psi0, psi1], target, 0.1)
    assert generator.at.item() == pytest.approx(expected_theta, rel=1e-9, abs=1e-9)
    assert critic.tolist() == pytest.approx(expected_psi, rel=1e-9, abs=1e-9)
    assert average.at.item() == theta  # no average was asked for
    at = before(next(data), torch.tensor([theta], dtype=torch.float64), lambda x: critic[0] * x + critic[1])
    assert value.item() == pytest.approx(at.item(), rel=1e-9, abs=1e-9) and not value.requires_grad


def test_each_update_touches_one_player_and_takes_fresh_batches():
    generator, critic = nn.Linear(1, 2), nn.Linear(2, 1)
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            grads = [[p.grad is not None for p in player.parameters()] for player in (critic, generator)]
            seen.append((self is critic_optim, grads))
            return super().step(closure)

    critic_optim, generator_optim = Watched(critic.parameters(), lr=0.1), Watched(generator.parameters(), lr=0.1)
    drawn, made = itertools.count(), itertools.count()
    data = (torch.full((4, 2), float(next(drawn))) for _ in itertools.count())

    def make():
        next(made)
        return generator(torch.randn(4, 1))

    step = gan.make_train_step("JSD", 3, "R1", 0.1)
    for _ in range(2):
        step(data, lambda x: critic(x).squeeze(1), critic_optim, make, None, generator_optim)
    assert [is_critic for is_critic, _ in seen] == [True, True, True, False] * 2
    for is_critic, (on_critic, on_generator) in seen:
        assert set(on_critic) == {is_critic} and set(on_generator) == {not is_critic}
    assert next(drawn) == next(made) == 8
    assert all(p.grad is None for player in (critic, generator) for p in player.parameters())


@pytest.mark.parametrize("bare", [False, True])
def test_train_step_moves_the_average(bare):
    generator, critic = Point(torch.ones(1)), nn.Linear(1, 1)
    critic.bias.requires_grad_(False)  # the optimiser may hold frozen parameters
    average = copy.deepcopy(generator)
    optimizers = [torch.optim.SGD(p.parameters(), lr=0.1) for p in (critic, generator)]
    step, data = gan.make_train_step("W1", alpha_ema=0.9), itertools.repeat(torch.zeros(1))
    draw = (lambda: generator()) if bare else generator
    step(data, lambda x: critic(x.view(-1, 1)), optimizers[0], draw, average, optimizers[1])
    assert average.at.item() == pytest.approx(0.9 + 0.1 * generator.at.item())
    assert generator.at.item() != 1


@pytest.mark.parametrize("reg_type", gan.AVAILABLE_REGULARIZERS)
def test_step_reads_no_value_so_nothing_waits_for_the_device(reg_type):
    """On tensors with shapes but no values, where reading a value is an error."""
    with FakeTensorMode():
        with pytest.raises(DataDependentOutputException):
            torch.ones(1).item()
        generator, averaged = (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2))
        critic = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.LeakyReLU(), nn.Linear(4, 1))
        optims = [torch.optim.Adam(player.parameters(), fused=True) for player in (critic, generator)]
        step = gan.make_train_step("JSD", 2, reg_type, alpha_ema=0.9)
        batches = iter(lambda: torch.randn(5, 3), None)
        step(batches, critic, optims[0], lambda: generator(torch.randn(5, 3)), averaged, optims[1])


@pytest.mark.slow
def test_the_module_checks_itself(capsys):
    done = subprocess.run([sys.executable, gan.__file__], capture_output=True, text=True)
    assert done.returncode == 0 and "checks passed" in done.stdout


@pytest.mark.parametrize("reg_type", gan.AVAILABLE_REGULARIZERS)
def test_the_assignments_own_calls(reg_type):
    """Real batches of the dirac game are (1, 1), generated ones (1,); tests pass one tensor as both."""
    x = torch.zeros(4, 1, requires_grad=True)
    for function in gan.make_losses("W1", reg_type):
        assert function(x, x, lambda x: 2 * x).shape == ()
    theta, psi = (nn.Parameter(torch.ones(n)) for n in (1, 2))
    optims = [torch.optim.SGD([player], lr=0.1) for player in (psi, theta)]
    step = gan.make_train_step("JSD", 1, reg_type, 0.1)
    step(itertools.repeat(torch.zeros(1, 1)), lambda x: psi[0] * x + psi[1], optims[0], lambda: theta, None, optims[1])
    assert theta.shape == (1,) and theta.item() > 1
