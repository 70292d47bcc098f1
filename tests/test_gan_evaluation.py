"""The evaluation step of gan.py: its scores against formulas, what it keeps on disk, what it leaves as it was."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch_fidelity.metric_isc import isc_features_to_metric

import gan


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
    path, real = tmp_path / "stats.pt", list(torch.randn(3, 20, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
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
