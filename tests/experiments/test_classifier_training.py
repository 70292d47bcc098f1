"""The classifier learns, resumes, and its committed weights do what is said of them."""

import json

import pytest
import torch

from data.cifar import LabelledImages
from experiments import classifier as training
from question2 import classifier


def images(count: int = 600) -> LabelledImages:
    """Ten kinds of images that are easy to tell apart: a bright stripe at one of ten heights."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (count,), generator=generator)
    x = torch.randint(0, 60, (count, 3, 32, 32), generator=generator)
    for i, label in enumerate(labels):
        x[i, :, 3 * label : 3 * label + 3] += 150
    half = count // 2
    x = x.to(torch.uint8)
    return LabelledImages(x[:half], labels[:half], x[half:], labels[half:])


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "cifar10", lambda root: images())
    monkeypatch.setattr(training, "PADDING", 1)
    return lambda **changes: training.Hyperparameters(
        **{"width": 4, "epochs": 3, "batch_size": 20, "out": str(tmp_path / "run"), "device": "cpu", **changes}
    )


@pytest.mark.slow
def test_it_learns_and_what_is_tested_is_what_is_kept(options, tmp_path):
    result = training.run(options(epochs=8))
    assert result["test_accuracy"] > 0.8
    network = classifier.load(tmp_path / "run" / "classifier.pt")
    assert training.accuracy(network, *images()[2:]) == result["test_accuracy"]
    state = torch.load(tmp_path / "run" / "classifier.pt", weights_only=True)["network"]
    assert {state[name].dtype for name, _ in network.named_parameters()} == {torch.float16}
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result


@pytest.mark.slow
def test_a_run_that_was_cut_off_resumes_to_the_same_weights(options, tmp_path, monkeypatch):
    whole, _ = training.train(options(out=str(tmp_path)), images())
    (tmp_path / "cut").mkdir()
    cut = options(out=str(tmp_path / "cut"))

    def interrupted(batches, name):
        return batches if name.startswith(("epoch 1", "epoch 2")) else 1 / 0

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(training, "tqdm", interrupted)
        training.train(cut, images())
    resumed, history = training.train(cut, images())
    assert len(history) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_shifted_images_are_parts_of_the_padded_ones():
    steps = torch.arange(40, dtype=torch.uint8)
    padded = torch.stack([steps[:, None].expand(40, 40), steps.expand(40, 40), torch.full((40, 40), 7)]).byte()[None]
    batch = training.shifted(padded, torch.zeros(200, dtype=torch.int64)).int()
    down, right = batch[:, 0], batch[:, 1]
    assert ((down[:, 1:] - down[:, :-1]) == 1).all() and (batch[:, 2] == 7).all()
    directions = (right[:, :, 1:] - right[:, :, :-1])[:, 0, 0]
    assert ((right[:, :, 1:] - right[:, :, :-1]) == directions[:, None, None]).all()
    assert set(directions.tolist()) == {-1, 1} and len(down[:, 0, 0].unique()) == 9


def test_committed_weights_are_small_and_classify(real_cifar):
    assert classifier.WEIGHTS.stat().st_size < 6e6
    said = json.loads(classifier.WEIGHTS.with_suffix(".json").read_text())["test_accuracy"]
    measured = training.accuracy(classifier.load(), real_cifar.test[::5], real_cifar.test_labels[::5])
    assert said > 0.9 and measured == pytest.approx(said, abs=0.015)
