"""The layers' two ways give the same, and the faster library is taken."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from question1 import layers


@given(
    logits=st.lists(st.floats(-1e4, 1e4) | st.floats(-20, 20), min_size=1, max_size=100),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_log_partition_is_the_sum_of_softplus(logits, dtype):
    logits = torch.tensor([logits, logits[::-1]], dtype=dtype)
    expected = torch.from_numpy(np.logaddexp(0, logits.double().numpy()).sum(-1))
    precision = 4 * torch.finfo(dtype).eps * logits.shape[-1]
    torch.testing.assert_close(layers.log_partition(logits).double(), expected, rtol=precision, atol=1e-36)


def test_log_partition_keeps_the_digits_of_certain_pixels():
    """1 + e^-20 is 1 in float32; of 784 such pixels a product would keep nothing."""
    found = layers.log_partition(torch.full((3, 784), -20.0))
    torch.testing.assert_close(found, torch.full((3,), 784 * math.exp(-20)), rtol=1e-5, atol=0)


@given(x=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20))
def test_elu_without_a_gradient_is_that_with_one(x):
    elu, x = layers.ELU(inplace=True), torch.tensor(x)
    with torch.no_grad():
        found = elu(x.clone())
    torch.testing.assert_close(found, torch.nn.functional.elu(x), rtol=1e-7, atol=1e-7)
    assert found[x >= 0].equal(x[x >= 0])


def with_onednn(monkeypatch, preferred: bool, there: bool = True) -> list[int]:
    """Make the choice, and count how often it is asked for."""
    asked = []
    monkeypatch.setattr(layers, "HAS_ONEDNN", there)
    monkeypatch.setattr(layers, "prefers_onednn", lambda *shape: asked.append(shape) or preferred)
    return asked


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_both_libraries_give_the_same_product_and_training_asks_for_neither(monkeypatch):
    layer, x = layers.Linear(30, 20), torch.randn(7, 5, 30)
    results = []
    for preferred in (True, False):
        asked = with_onednn(monkeypatch, preferred)
        with torch.no_grad():
            results.append(layer(x))
        assert asked == [(35, 30, 20, torch.get_num_threads())]
        layer(x).sum().backward()
        assert len(asked) == 1
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_without_onednn_the_plain_product_is_taken(monkeypatch):
    """As on an ARM processor, where converting to it is slow or fails."""
    asked = with_onednn(monkeypatch, preferred=True, there=False)
    layer, x = layers.Linear(4, 3), torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias)) and not asked


@pytest.mark.skipif(not layers.HAS_ONEDNN, reason="oneDNN is taken on x86 only")
@pytest.mark.parametrize(("mkl", "onednn", "preferred"), [(1.0, 0.5, True), (1.0, 0.9, False), (0.5, 1.0, False)])
def test_the_faster_library_is_taken_where_it_is_clearly_faster(tmp_path, monkeypatch, mkl, onednn, preferred):
    monkeypatch.setattr(layers, "choices_path", lambda: tmp_path / "choices.json")
    clock, turns = [0.0], []

    def tick():
        """Each product takes two readings of the clock, and the two libraries alternate."""
        turns.append(None)
        if len(turns) % 2 == 0:
            clock[0] += mkl if (len(turns) // 2) % 2 else onednn
        return clock[0]

    before = torch.get_rng_state()
    monkeypatch.setattr(layers.time, "perf_counter", tick)
    assert layers.prefers_onednn.__wrapped__(4, 3, 2, 1) == preferred
    # Another process decides the same, whatever it would have measured; another shape is measured by itself.
    measured = len(turns)
    assert layers.prefers_onednn.__wrapped__(4, 3, 2, 1) == preferred and len(turns) == measured
    assert layers.prefers_onednn.__wrapped__(5, 3, 2, 1) == preferred and len(turns) > measured
    monkeypatch.setattr(layers, "choices_path", lambda: tmp_path / "choices.json" / "below a file")
    assert layers.prefers_onednn.__wrapped__(6, 3, 2, 1) == preferred
    assert torch.equal(torch.get_rng_state(), before)
