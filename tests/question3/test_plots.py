"""Pictures of the lesson: the density of a layer against its draws, and that something is drawn where it belongs."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from question3 import plots
from solution import Flow, invertible_u, planar_transformation


def drawn(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), dtype=float)


@pytest.mark.parametrize("u", [[2.0, 0.5], [-3.0, 1.0]])  # the second has no inverse before it is adjusted
def test_the_density_of_a_layer_is_that_of_its_draws(u):
    u, w, b = torch.tensor(u), torch.tensor([1.0, 0.7]), torch.tensor(-0.4)
    draws = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(1))
    after = planar_transformation(draws, invertible_u(u, w), w, b)
    line = torch.linspace(-9, 9, 721)
    points = torch.cartesian_prod(line, line)
    density = plots.of_layer(u, w, b, points).double() * (line[1] - line[0]).double() ** 2
    assert density.sum().item() == pytest.approx(1, abs=0.01)
    for half in (points @ torch.tensor([1.0, 1.0]) > 1, points[:, 0] < -0.5):
        of_draws = (after @ torch.tensor([1.0, 1.0]) > 1 if half[-1] else after[:, 0] < -0.5).double().mean().item()
        assert density[half].sum().item() == pytest.approx(of_draws, abs=0.02)


def test_where_there_is_no_layer_the_density_is_the_normal_one():
    at = plots.of_layer(torch.zeros(2), torch.zeros(2), torch.tensor(0.0), torch.zeros(1, 1, 2))
    assert at.shape == (1, 1) and at.item() == pytest.approx(1 / (2 * math.pi))


def test_pictures_of_layers(tmp_path):
    u, w, b = torch.tensor([2.0, 0.0]), torch.tensor([2.0, 0.0]), torch.tensor(0.0)
    plots.layers(tmp_path / "one.png", [("expansion", u, w, b)])
    plots.layers(tmp_path / "other.png", [("expansion", -u / 5, w, b)])
    one, other = drawn(tmp_path / "one.png"), drawn(tmp_path / "other.png")
    assert one.shape == other.shape
    half = one.shape[1] // 2
    assert np.abs(one - other)[:, half:].mean() > 20 * np.abs(one - other)[:, : half - 20].mean()  # not "before"
    plots.bends(tmp_path / "bends.png", [2.0, -1.0, -3.0])
    assert drawn(tmp_path / "bends.png").std() > 5


@pytest.mark.parametrize("source", ["samples", "density"])
def test_one_picture_of_data_by_depth(source, tmp_path):
    torch.manual_seed(0)
    flows = {(name, k): Flow(2, k) for name in ("arcs", "sine") for k in (1, 2)}
    nats = dict.fromkeys(flows, 0.5)
    plots.data_by_depth(tmp_path / "both.png", source, flows, nats)
    plots.data_by_depth(tmp_path / "one.png", source, {key: flows[key] for key in flows if key[0] == "arcs"}, nats)
    both, one = drawn(tmp_path / "both.png"), drawn(tmp_path / "one.png")
    assert both.shape[1] == one.shape[1] and both.shape[0] == pytest.approx(2 * one.shape[0], abs=2)
    assert both.std() > 5 and one.std() > 5
