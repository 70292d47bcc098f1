"""The likelihood without a gradient is that with one, whatever multiplies and however many threads there are."""

import itertools
import time
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from question1 import autoencoder, decoding


def network(*sizes: int, scale: float = 1.0) -> nn.Sequential:
    """Linear layers with ELU between them, and weights so large that all of ELU and of the sigmoid is met."""
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ELU())]
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
    return nn.Sequential(*layers[:-1])


def usual(layers: nn.Sequential, shift: float, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return autoencoder.log_likelihood_logits(layers(z) + shift, x.unsqueeze(1)).detach()


@given(
    seed=st.integers(0, 100),
    hidden=st.lists(st.integers(1, 20), min_size=0, max_size=3),
    size=st.integers(1, 40),
    draws=st.integers(1, 9),
    scale=st.floats(0.1, 9),
    shift=st.floats(-6, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_likelihood_is_that_of_the_logits(seed, hidden, size, draws, scale, shift, dtype):
    torch.manual_seed(seed)
    layers = network(3, *hidden, size, scale=scale).to(dtype)
    images, z = torch.randint(0, 2, (7, size)).to(dtype), torch.randn(7, draws, 3, dtype=dtype)
    log_px = decoding.Likelihood(layers, shift, images, rows=7 * draws)
    precision = 100 * torch.finfo(dtype).eps
    atol = precision * (1 + layers(z).abs().max().item()) * size  # the terms of a likelihood can cancel
    expected = usual(layers.double(), shift, z.double(), images.double()).to(dtype)
    first = log_px(z[2:5], slice(2, 5))
    torch.testing.assert_close(log_px(z), expected, rtol=precision, atol=atol)
    # What came before was not written over.
    torch.testing.assert_close(first, expected[2:5], rtol=precision, atol=atol)


def test_logits_whose_exponential_overflows():
    torch.manual_seed(0)
    layers = network(3, 10, 30, scale=1e3)
    images, z = torch.randint(0, 2, (4, 30)).float(), torch.randn(4, 5, 3)
    expected = usual(layers, -5, z, images)
    assert layers(z).max() > 1e3
    torch.testing.assert_close(decoding.Likelihood(layers, -5, images, rows=20)(z), expected, rtol=1e-5, atol=0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_both_libraries_give_the_same(monkeypatch):
    torch.manual_seed(0)
    layers, images, z = network(4, 8, 30), torch.randint(0, 2, (6, 30)).float(), torch.randn(6, 5, 4)
    asked = []
    monkeypatch.setattr(decoding, "ONEDNN_ON_X86", True)
    for preferred in (True, False):
        monkeypatch.setattr(decoding, "prefers_onednn", lambda *shape: asked.append(shape) or preferred)  # noqa: B023
        found = decoding.Likelihood(layers, -5, images, rows=30)(z)
        torch.testing.assert_close(found, usual(layers, -5, z, images), rtol=1e-5, atol=1e-5)
    assert asked == 2 * [(30, 4, 8), (30, 8, 30)]


def test_without_onednn_or_in_float64_the_plain_product_is_taken(monkeypatch):
    """OneDNN has no float64, and on an ARM processor converting to it is slow or fails."""
    monkeypatch.setattr(decoding, "prefers_onednn", lambda *shape: pytest.fail("asked"))
    monkeypatch.setattr(decoding, "ONEDNN_ON_X86", True)
    decoding.Likelihood(network(3, 5).double(), -5, torch.ones(2, 5, dtype=torch.float64), rows=2)
    monkeypatch.setattr(decoding, "ONEDNN_ON_X86", False)
    decoding.Likelihood(network(3, 5), -5, torch.ones(2, 5), rows=2)


def test_a_buffer_is_handed_out_again_but_not_in_another_type():
    buffer = decoding.Buffer()
    first = buffer((3, 4), torch.empty(0))
    assert buffer((2, 5), torch.empty(0)).data_ptr() == first.data_ptr()
    assert buffer((2, 5), torch.empty(0, dtype=torch.float64)).dtype == torch.float64
    assert buffer((7, 5), torch.empty(0)).shape == (7, 5)


def test_the_estimate_has_the_same_bits_whatever_the_number_of_threads():
    torch.manual_seed(0)
    model, images = autoencoder.VAE(latent_size=5, num_layers=2), torch.randint(0, 2, (50, 784), dtype=torch.uint8)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(autoencoder.log_likelihood(model, images, num_samples=30, rows=100))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len(found[0]) == 50 and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_draws_are_made_in_order_and_an_error_ends_all():
    blocks, drawn, done = [slice(i, i + 1) for i in range(200)], [], []

    def draw(block: slice) -> torch.Tensor:
        time.sleep(1e-3 * (block.start % 2))  # without the lock, draws would overtake each other
        drawn.append(block.start)
        return torch.tensor(block.start)

    def work(block: slice, value: torch.Tensor) -> torch.Tensor:
        if block.start == 20 and len(blocks) == 100:
            raise ZeroDivisionError
        time.sleep(1e-3)
        done.append(block.start)
        assert torch.get_num_threads() == 1
        return value + block.start

    found = decoding.in_threads(draw, work, blocks, workers=4)
    assert [int(value) for value in found] == list(range(0, 400, 2))
    assert drawn == list(range(200)) and sorted(done) == drawn
    done.clear()
    blocks = blocks[:100]
    with pytest.raises(ZeroDivisionError):
        decoding.in_threads(draw, work, blocks, workers=4)
    assert len(done) < 99


@pytest.mark.skipif(not decoding.ONEDNN_ON_X86, reason="oneDNN is taken on x86 only")
@pytest.mark.parametrize(("mkl", "onednn", "preferred"), [(1.0, 0.5, True), (1.0, 0.9, False), (0.5, 1.0, False)])
def test_the_faster_library_is_taken_where_it_is_clearly_faster(tmp_path, monkeypatch, mkl, onednn, preferred):
    monkeypatch.setattr(decoding, "choices_path", lambda: tmp_path / "choices.json")
    clock, turns = [0.0], []

    def tick():
        """Each product takes two readings of the clock, and the two libraries alternate."""
        turns.append(None)
        if len(turns) % 2 == 0:
            clock[0] += mkl if (len(turns) // 2) % 2 else onednn
        return clock[0]

    before = torch.get_rng_state()
    assert not decoding.prefers_onednn.__wrapped__(100, 100, 100) and not turns  # too small to matter
    monkeypatch.setattr(decoding, "WORTH_MEASURING", 1)
    monkeypatch.setattr(decoding, "time", types.SimpleNamespace(perf_counter=tick))
    assert decoding.prefers_onednn.__wrapped__(4, 3, 2) == preferred
    # Another process decides the same, whatever it would have measured; another shape is measured by itself.
    measured = len(turns)
    assert decoding.prefers_onednn.__wrapped__(4, 3, 2) == preferred and len(turns) == measured
    assert decoding.prefers_onednn.__wrapped__(5, 3, 2) == preferred and len(turns) > measured
    monkeypatch.setattr(decoding, "choices_path", lambda: tmp_path / "choices.json" / "below a file")
    assert decoding.prefers_onednn.__wrapped__(6, 3, 2) == preferred
    assert torch.equal(torch.get_rng_state(), before)
