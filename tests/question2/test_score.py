"""Scores against float64 computations and torch-fidelity's own functions on the same features."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

import data
from model import Generator
from question2 import score


class Pixels(nn.Module):
    """Images of one pixel a channel to features and logits."""

    def forward(self, images):
        x = images.double().flatten(1)
        return x, x[:, :3] / 50


def pixels() -> score.Network:
    return score.Network(Pixels(), 12, "pixels", "-P")


def draw(seed: int, count: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 3, 2, 2, generator=generator) * 20 + 120 + shift).clamp(0, 255).round().to(torch.uint8)


def by_hand(real: torch.Tensor, fake: torch.Tensor) -> float:
    p, q = (x.double().flatten(1).numpy() for x in (real, fake))
    root = sqrtm(np.cov(p.T) @ np.cov(q.T)).real
    return float(((p.mean(0) - q.mean(0)) ** 2).sum() + np.trace(np.cov(p.T) + np.cov(q.T) - 2 * root))


def test_fid_is_that_of_scipy_and_of_torch_fidelity():
    real, fake = draw(0, 700), draw(1, 500, shift=5) // 2
    sums = score.reference(pixels(), real)
    result = score.score(pixels(), sums, fake.split(90), "cpu")
    assert result["FID-P"] == pytest.approx(by_hand(real, fake), rel=1e-6)
    theirs = [fid_features_to_statistics(Pixels()(x)[0]) for x in (real, fake)]
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert result["FID-P"] == pytest.approx(expected, rel=1e-6)


def test_fid_of_a_set_with_itself_is_nought_and_of_a_shift_its_square():
    real = draw(0, 500)
    sums = score.reference(pixels(), real)
    assert score.score(pixels(), sums, [real], "cpu")["FID-P"] == pytest.approx(0, abs=1e-4)
    assert score.score(pixels(), sums, [real + 10], "cpu")["FID-P"] == pytest.approx(12 * 10**2, rel=1e-6)


def test_inception_score_is_that_of_the_formula_and_of_torch_fidelity():
    fake = draw(2, 600)
    result = score.score(pixels(), score.reference(pixels(), draw(0, 50)), fake.split(100), "cpu")
    logits = Pixels()(fake)[1]
    torch.manual_seed(0)
    parts = logits[torch.randperm(600)].softmax(1).chunk(10)
    values = [(p * (p / p.mean(0)).log()).sum(1).mean().exp().item() for p in parts]
    assert result["IS-P"] == pytest.approx(np.mean(values), rel=1e-9)
    assert result["IS-P_deviation"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    theirs = isc_features_to_metric(logits[torch.randperm(600)], splits=10, shuffle=False)
    assert result["IS-P"] == pytest.approx(theirs["inception_score_mean"], rel=0.01)


def test_reference_is_kept_and_a_stale_one_is_not_used(tmp_path):
    path, real = tmp_path / "reference.pt", draw(0, 100)
    sums = score.reference(pixels(), real, path)
    held = path.read_bytes()

    def broken(images):
        raise AssertionError("the network must not run")

    again = score.reference(score.Network(broken, 12, "pixels"), real, path)
    torch.testing.assert_close(again, sums, rtol=0, atol=0)
    for network, images in [(score.Network(Pixels(), 12, "other weights"), real), (pixels(), draw(1, 100))]:
        fresh = score.reference(network, images, path)
        torch.testing.assert_close(fresh, score.reference(network, images))
        assert path.read_bytes() != held
        score.reference(pixels(), real, path)


def test_scoring_leaves_trainings_random_numbers_alone():
    generator = Generator(4, 2).eval()
    sums = score.reference(pixels(), draw(0, 50))
    before = torch.get_rng_state()
    network = score.Network(lambda x: Pixels()(x[:, :, :2, :2]), 12, "corner")
    first, second = (
        score.score(network, sums, score.generated(generator, 4, 60, seed=1, batch_size=25), "cpu") for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before) and first == second


def test_bytes_are_the_nearest():
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0, 100 / 127.5 - 1 + 0.003])
    assert score.to_uint8(x).tolist() == [0, 0, 128, 255, 255, 100]


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """Inception's architecture with random weights, as a file."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *a, **k: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *a, **k: None)
        (path.parent / "empty").touch()
        network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path.parent / "empty"))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.5)
    torch.save(network.state_dict(), path)
    return path


def test_inceptions_features_are_torch_fidelitys_and_other_weights_are_refused(random_inception):
    with pytest.raises(data.DataUnavailableError, match="SHA-256"):
        score.inception(random_inception)
    with pytest.raises(data.DataUnavailableError, match="cannot be read"):
        score.inception("/nonexistent/weights.pth")
    network = score.inception(random_inception, check=False)
    images = (torch.rand(4, 3, 32, 32) * 255).to(torch.uint8)
    features, logits = network.module(images)
    assert features.shape == (4, network.num_features) and logits.shape == (4, 1008) and network.names == ("IS", "FID")
    theirs = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(random_inception))
    torch.testing.assert_close(features, theirs(images)[0])


def test_weights_that_cannot_be_had_give_the_classifier_only_where_that_is_allowed(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/tmp/nonexistent-hub")
    with pytest.warns(UserWarning, match="classifier"):
        assert score.network("auto").names == ("IS-C", "FID-C")
    with pytest.raises(data.DataUnavailableError, match="--inception_weights"):
        score.network("inception")


def test_fid_c_rises_with_corruption(real_cifar):
    real = real_cifar.train[::10]
    other = real_cifar.test[::4]
    network = score.own_classifier()
    sums = score.reference(network, real)

    def distance(images):
        return score.score(network, sums, images.split(500), "cpu")["FID-C"]

    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(other + s * noise).clamp(0, 255).to(torch.uint8) for s in (0, 10, 30)]
    values = [distance(images) for images in noisy]
    assert values == sorted(values) and values[2] > 5 * values[0]
