"""Losses, penalties and the step against closed forms: linear and quadratic critics, worked out on paper."""

import copy
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.utils.parametrizations import spectral_norm
from torch_fidelity.metric_isc import isc_features_to_metric

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


class Pixels(nn.Module):
    """Features that can be worked out, the mean of each channel, and logits that follow from them."""

    def forward(self, images):
        assert images.dtype == torch.uint8
        x = images.double().mean((2, 3))
        return x, x / 50


class Constant(nn.Module):
    """Images of one colour each, whose channels are the noise."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.normalisation = nn.BatchNorm1d(3, affine=False)
        self.shift = shift

    def forward(self, z):
        return (self.normalisation(z) / 4 + self.shift).clamp(-1, 1)[..., None, None].expand(-1, 3, 4, 4)


def test_eval_step_scores_against_kept_statistics(tmp_path):
    torch.manual_seed(0)
    real = [(torch.randn(100, 3) / 4).clamp(-1, 1)[..., None, None].expand(-1, 3, 4, 4) for _ in range(20)]
    path = tmp_path / "stats.pt"
    make = lambda data: gan.make_eval_step(path, data, 3, 100, network=Pixels())  # noqa: E731
    step = make(real)
    previous = path.read_bytes()
    before = torch.get_rng_state()
    generator = Constant(shift=0.2)
    generator.normalisation.running_mean += 100  # stale, as an average's are
    samples, scores = step(real, lambda x: x.mean((1, 2, 3)), generator)
    assert samples.shape == (100, 3, 4, 4) and generator.training
    # Two Gaussians of the same covariance: the squared distance of their means, 0.2 · 127.5 in each channel.
    assert scores["FID"] == pytest.approx(3 * (0.2 * 127.5) ** 2, rel=0.1)
    assert scores["cp"] == pytest.approx(0, abs=0.02) and scores["cq"] == pytest.approx(0.2, abs=0.02)
    assert set(scores) == {"IS", "FID", "cp", "cq"} and scores["IS"] >= 1
    again = step(real, lambda x: x.mean((1, 2, 3)), generator)
    assert torch.equal(again[0], samples) and again[1] == scores  # from the same noise
    assert torch.equal(torch.get_rng_state(), before)
    _, other = make([])(real, lambda x: x.mean((1, 2, 3)), Constant())  # the file is enough
    assert other["FID"] < 30 and path.read_bytes() == previous


def test_damaged_statistics_are_computed_again_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch, capsys):
    path, real = tmp_path / "stats.pt", list(samples(0, 3, 20, 3, 4, 4, dtype=torch.float32))
    scores = lambda data: gan.make_eval_step(path, data, 3, network=Pixels())(real, lambda x: x, Constant())[1]  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
        expected = scores(real)
    assert not list(tmp_path.iterdir()) and "stats.pt cannot be written (No space left" in capsys.readouterr().err
    assert scores(real) == expected == scores([])  # the file is enough
    whole = path.read_bytes()
    flipped = whole[:-20] + bytes([whole[-20] ^ 4]) + whole[-19:]
    for damaged in (b"", whole[: len(whole) // 2], flipped, b"no statistics"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no images"):
            scores([])
        assert scores(real) == expected and path.read_bytes() == whole


def test_scores_of_the_eval_step_are_the_formula_and_torch_fidelitys(tmp_path):
    """Of given images in a generator's place, in one pass of one network."""
    real, fake = (torch.randint(0, 256, (n, 3, 4, 4), generator=torch.Generator().manual_seed(n)) for n in (700, 600))
    network, given = Pixels(), iter((fake // 2).split(90))
    batches = [batch / 127.5 - 1 for batch in real.split(100)]
    step = gan.make_eval_step(tmp_path / "stats.pt", batches, 2, network=network)
    drawn = [torch.zeros(len(batch), 3, 4, 4) for batch in (fake // 2).split(90)]
    _, scores = step(
        drawn, lambda x: torch.zeros(len(x)), lambda z: next(given, torch.zeros(len(z), 3, 1, 1)).float() / 127.5 - 1
    )
    p, (q, logits) = network(real.byte())[0], network((fake // 2).byte())
    root = sqrtm(np.cov(p.T) @ np.cov(q.T)).real
    expected = ((p.mean(0) - q.mean(0)) ** 2).sum() + np.trace(np.cov(p.T) + np.cov(q.T) - 2 * root)
    assert scores["FID"] == pytest.approx(float(expected), rel=1e-6)
    theirs = isc_features_to_metric(logits[torch.randperm(600)], splits=10, shuffle=False)
    assert scores["IS"] == pytest.approx(theirs["inception_score_mean"], rel=0.01)


def test_eval_step_stops_at_its_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(gan, "EVAL_SAMPLES", 100)
    endless = itertools.repeat(torch.rand(64, 3, 4, 4))
    step = gan.make_eval_step(tmp_path / "s.pt", endless, 3, network=Pixels())
    seen = []
    step(endless, lambda x: seen.append(len(x)) or x.mean((1, 2, 3)), Constant())
    assert seen == [64, 64, 36, 36]


class Mixed(nn.Module):
    """A generator with batch normalisation, and a part that stays in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.rest = nn.Sequential(nn.BatchNorm1d(8, momentum=0.3), nn.Linear(8, 3))
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, z):
        return torch.tanh(self.frozen(self.rest(self.first(z))))[..., None, None].expand(-1, 3, 4, 4)


def test_eval_step_changes_nothing_but_batch_norm_statistics(tmp_path):
    torch.manual_seed(0)
    generator, critic = Mixed(), nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(48, 1)), nn.Dropout().eval())
    before = copy.deepcopy((generator.state_dict(), critic.state_dict()))
    modes = [module.training for player in (generator, critic) for module in player.modules()]
    real = [torch.rand(100, 3, 4, 4) * 2 - 1 for _ in range(5)]
    step = gan.make_eval_step(tmp_path / "stats.pt", real, 3, network=Pixels())
    (images, scores), (again, scores_again) = (step(real, critic, generator) for _ in range(2))
    assert torch.equal(images, again) and scores == scores_again
    changed = {name for name, value in generator.state_dict().items() if not torch.equal(value, before[0][name])}
    assert changed == {"rest.0.running_mean", "rest.0.running_var", "rest.0.num_batches_tracked"}
    assert all(torch.equal(value, before[1][name]) for name, value in critic.state_dict().items())
    assert [module.training for player in (generator, critic) for module in player.modules()] == modes
    assert generator.rest[0].momentum == 0.3


@pytest.mark.parametrize("passes", [3, 51])  # in the batch-norm statistics, among the scored images
def test_an_interrupt_during_an_evaluation_leaves_the_networks_as_they_were(passes, tmp_path):
    generator, critic = Mixed(), nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    modes = [module.training for player in (generator, critic) for module in player.modules()]
    real = [torch.rand(10, 3, 4, 4)] * 5
    step = gan.make_eval_step(tmp_path / "stats.pt", real, 3, network=Pixels())
    calls = itertools.count()

    def interrupt(*_):
        if next(calls) == passes:
            raise KeyboardInterrupt

    generator.register_forward_hook(interrupt)
    random_state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        step(real, critic, generator)
    assert [module.training for player in (generator, critic) for module in player.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_that_are_not_finite_are_an_error(value, tmp_path):
    real, broken = torch.rand(20, 3, 4, 4), torch.rand(20, 3, 4, 4)
    broken[3, 1, 2, 0] = value
    step = gan.make_eval_step(tmp_path / "stats.pt", [real], 3, network=Pixels())
    with pytest.raises(FloatingPointError, match="NaN"):
        step([real], lambda x: x, lambda z: broken[: len(z)])
    with pytest.raises(FloatingPointError, match="NaN"):
        gan.make_eval_step(tmp_path / "other.pt", [broken], 3, network=Pixels())
    assert not (tmp_path / "other.pt").exists()


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
