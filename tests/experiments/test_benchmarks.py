"""The benchmarks time both sides in the same run, in turns."""

import statistics

import pytest
import torch
from torch import nn

from benchmarks import turns
from benchmarks.gan import Operations


@pytest.mark.parametrize(("ours", "settled"), [([1, 1, 1], True), ([1, 2, 1, 1, 1, 1], True), ([1, 2] * 6, False)])
def test_contestants_alternate_until_their_medians_settle(ours, settled, monkeypatch, capsys):
    now, order, seconds = [0.0], [], {"ours": iter([9, *ours]), "textbook": iter([99, *[4] * 12])}

    def contestant(name):
        order.append(name)
        now[0] += next(seconds[name])

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    found = turns.in_turns({name: lambda name=name: contestant(name) for name in seconds}, rounds=3, scale=10)
    assert order == ["ours", "textbook"] * (1 + len(ours))  # the first turn does not count
    assert found == {"ours": 10 * statistics.median(ours), "textbook": 40}
    assert ("too busy" in capsys.readouterr().out) != settled


def test_operations_are_those_of_a_convolution_and_its_gradients():
    image, convolution = torch.randn(2, 3, 8, 8, requires_grad=True), nn.Conv2d(3, 5, kernel_size=4, stride=2)
    forward = 2 * (2 * 5 * 3 * 3) * (3 * 4 * 4)  # outputs × weights of each, a product and a sum
    with Operations() as operations:
        values = convolution(image)
        (gradient,) = torch.autograd.grad(values.square().sum(), image, create_graph=True)
        gradient.square().sum().backward()
    assert operations.count >= 4 * forward and operations.count % forward == 0
