"""Scores against float64 computations and torch-fidelity's own functions on the same features."""

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

import data
from gan import to_uint8
from question2 import score


class Corner(nn.Module):
    """The corner of an image as features and logits."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        x = images[:, :, :2, :2].double().flatten(1)
        return x, x[:, :3] / 50


def images(seed: int, count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).byte()


def test_distance_of_a_set_with_itself_is_zero_and_of_a_shift_its_square(tmp_path):
    real = images(0, 500) // 2
    step = score.make_evaluation(score.Network(Corner(), "corner"), real, 4, tmp_path)
    assert score.distance(step, real)["FID"] == pytest.approx(0, abs=1e-4)
    assert score.distance(step, real + 10)["FID"] == pytest.approx(12 * 10**2, rel=1e-6)


def test_further_scores_tell_sets_apart_as_their_definitions_say(tmp_path):
    real = images(0, 400)
    step = score.make_evaluation(score.Network(Corner(), "corner"), real, 4, tmp_path)
    before = torch.get_rng_state()
    same, other = score.distance(step, images(1, 400)), score.distance(step, images(2, 400) // 8 + 220)
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(same["KID"]) < 0.02 * other["KID"] and same["precision"] > 0.8 and same["recall"] > 0.8
    assert other["precision"] < 0.5 and other["recall"] < 0.05

    def mean_kernel(x, y, unbiased):  # written out in float64; each subset holds every image
        k = (x @ y.T / x.shape[1] + 1) ** 3
        return ((k.sum() - k.trace()) / (len(x) * (len(x) - 1)) if unbiased else k.mean()).item()

    x, y = (part[:, :, :2, :2].double().flatten(1) for part in (real, images(1, 400)))
    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert same["KID"] == pytest.approx(expected, rel=1e-6)


def test_reference_is_kept_and_a_stale_one_is_not_used(tmp_path):
    real, network = images(0, 100), Corner()
    score.make_evaluation(score.Network(network, "corner"), real, 4, tmp_path)
    passes = network.passes
    score.make_evaluation(score.Network(network, "corner"), real, 4, tmp_path)
    assert network.passes == passes > 0 and len(list(tmp_path.iterdir())) == 1
    score.make_evaluation(score.Network(network, "other weights"), real, 4, tmp_path)
    score.make_evaluation(score.Network(network, "corner"), images(1, 100), 4, tmp_path)
    assert network.passes > passes and len(list(tmp_path.iterdir())) == 3


def test_batches_go_round_until_there_are_enough():
    x = images(0, 7)
    got = torch.cat(list(score.batches(x, 17, batch_size=3)))
    assert torch.equal(to_uint8(got), torch.cat([x, x, x[:3]])) and len(torch.cat(list(score.batches(x)))) == 7


def test_bytes_are_the_nearest():
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0, 100 / 127.5 - 1 + 0.003])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255, 100]


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


def test_inceptions_features_are_torch_fidelitys_and_other_weights_are_refused(random_inception, monkeypatch):
    with pytest.raises(data.DataUnavailableError, match="SHA-256"):
        score.inception(random_inception)
    with pytest.raises(data.DataUnavailableError, match="cannot be read"):
        score.inception("/nonexistent/weights.pth")
    monkeypatch.setattr(score, "INCEPTION_SHA256", "")
    network = score.inception(random_inception)
    images = (torch.rand(4, 3, 32, 32) * 255).to(torch.uint8)
    features, logits = network.module(images)
    assert features.shape == (4, 2048) and logits.shape == (4, 1008) and not network.suffix
    theirs = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(random_inception))
    torch.testing.assert_close(features, theirs(images)[0])


@pytest.mark.parametrize("folder", ["cache", "file"])
def test_weights_that_cannot_be_had_give_the_classifier_only_where_that_is_allowed(
    monkeypatch, tmp_path, capsys, folder
):
    """There is no network, or the cache cannot be written."""

    def offline(*args, **kwargs):
        raise OSError("no network")

    (tmp_path / "file").touch()
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / folder / "torch"))
    assert score.network("auto").suffix == "-C"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("own classifier instead.\n")
    with pytest.raises(data.DataUnavailableError, match="--inception_weights"):
        score.network("inception")


def test_fid_c_rises_with_corruption(real_cifar, tmp_path):
    step = score.make_evaluation(score.own_classifier(), real_cifar.train[::10], 4, tmp_path)
    other = real_cifar.test[::4]
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(other + s * noise).clamp(0, 255).to(torch.uint8) for s in (0, 10, 30)]
    values = [score.distance(step, x)["FID"] for x in noisy]
    assert values == sorted(values) and values[2] > 5 * values[0]
