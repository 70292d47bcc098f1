"""Pictures of flows: the density of a layer against its draws, what panels show, and titles within the figure."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from data.densities import TARGETS, Target
from lab import figures
from question3 import plots
from solution import Flow, invertible_u, planar_transformation


@pytest.mark.parametrize("u", [[2.0, 0.5], [-3.0, 1.0]])  # the second has no inverse before it is adjusted
def test_the_density_of_a_layer_is_that_of_its_draws(u):
    u, w, b = torch.tensor(u), torch.tensor([1.0, 0.7]), torch.tensor(-0.4)
    draws = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(1))
    after = planar_transformation(draws, invertible_u(u, w), w, b)
    line = torch.linspace(-9, 9, 721)
    points = torch.cartesian_prod(line, line)
    density = plots.layer_density(u, w, b, points).double() * (line[1] - line[0]).double() ** 2
    assert density.sum().item() == pytest.approx(1, abs=0.01)
    for contains in (lambda z: z.sum(1) > 1, lambda z: z[:, 0] < -0.5):
        share = contains(after).double().mean().item()
        assert density[contains(points)].sum().item() == pytest.approx(share, abs=0.02)
    zero = torch.zeros(2)
    assert plots.layer_density(zero, zero, b, zero).item() == pytest.approx(1 / (2 * math.pi))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figures that are saved, laid out and still open."""
    kept = []

    def keep(drawing, path):
        drawing.canvas.draw()
        kept.append(drawing)

    monkeypatch.setattr(figures, "save", keep)
    monkeypatch.setattr(plt, "close", lambda *_: None)
    yield kept
    monkeypatch.undo()
    plt.close("all")


def random_flow(layers: int = 2) -> Flow:
    torch.manual_seed(3)
    flow = Flow(2, layers)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.7)
    return flow


OWN = Target("own", lambda z: 0.5 * z.square().sum(-1))  # an energy alone
SINE = TARGETS["sine"]
CASES = [(title, torch.tensor([-0.45, 0.0]), torch.tensor([2.0, 0.5]), torch.tensor(-1.0)) for title in ("one", "two")]
FLOWS = {("arcs", 2): random_flow(), ("arcs", 32): random_flow(8)}
PICTURES = {
    "learned_density": lambda path: plots.learned_density(path, random_flow(8), SINE, SINE.data_set(), seed=31415),
    "own data": lambda path: plots.learned_density(path, random_flow(), OWN, torch.randn(50, 2), seed=31415),
    "samples": lambda path: plots.samples(path, random_flow(8), OWN, seed=31415),
    "over_depth": lambda path: plots.over_depth(path, SINE, "samples", [(31415, random_flow(k)) for k in (2, 8, 32)]),
    "data_by_depth": lambda path: plots.data_by_depth(path, "samples", FLOWS, dict.fromkeys(FLOWS, 0.5)),
    "from a density": lambda path: plots.data_by_depth(path, "density", FLOWS, {}),
    "directions": lambda path: plots.directions(path, SINE, {"forward": random_flow(), "reverse": random_flow()}),
    "transformations": lambda path: plots.transformations(path, 8 * CASES[:1]),
    "layers": lambda path: plots.layers(path, CASES),
    "bends": lambda path: plots.bends(path, [2.0, -1.0, -3.0]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_titles_are_within_the_figure_and_apart_and_clipped_colours_are_marked(name, drawn, tmp_path):
    PICTURES[name](tmp_path / "a.png")
    (drawing,) = drawn
    titles = [axes.title for axes in drawing.axes if axes.get_title()]
    for text in (*titles, *(axis.label for axes in drawing.axes for axis in (axes.xaxis, axes.yaxis))):
        (left, bottom), (right, top) = text.get_window_extent().get_points()
        assert not text.get_text() or (min(left, bottom) > -1 and right < drawing.bbox.width + 1), text
        assert top < drawing.bbox.height + 1, text
    boxes = [title.get_window_extent() for title in titles]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    images = [image for axes in drawing.axes for image in axes.images]
    bars = [image.colorbar for image in images if image.colorbar]
    assert bool(images) == bool(bars)
    marked = any(bar.extend in ("max", "both") for bar in bars)
    assert marked == any(image.get_array().max() > image.norm.vmax for image in images)


def test_the_first_panel_is_the_target_where_it_is_known_and_else_the_data(drawn, tmp_path):
    data = SINE.data_set()
    plots.learned_density(tmp_path / "a.png", random_flow(), SINE, data)
    plots.learned_density(tmp_path / "b.png", random_flow(), OWN, data)
    known, unknown = (drawing.axes[0] for drawing in drawn)
    assert (known.get_title(), unknown.get_title()) == ("target", "data")
    density, histogram = (np.asarray(axes.images[0].get_array()) for axes in (known, unknown))
    expected = torch.exp(-SINE.energy(plots.grid())) * (plots.grid()[..., 0].abs() <= 4)
    np.testing.assert_allclose(density / density.max(), expected / expected.max(), atol=1e-6)
    assert density.sum() * 0.05**2 == pytest.approx(1) and histogram.sum() * 0.1**2 == pytest.approx(1)
    assert np.corrcoef(density[:-1:2, :-1:2].ravel(), histogram.ravel())[0, 1] > 0.9


def test_a_flows_panels_are_its_density_and_its_draws(drawn, tmp_path):
    plots.over_depth(tmp_path / "a.png", SINE, "samples", [(1, random_flow())])
    target, density, data, draws = (axes.images[0].get_array() for axes in drawn[0].axes[:4])
    assert np.corrcoef(density[:-1:2, :-1:2].ravel(), draws.ravel())[0, 1] > 0.9
    assert np.corrcoef(target[:-1:2, :-1:2].ravel(), data.ravel())[0, 1] > 0.9


def test_one_picture_has_a_row_for_each_target(tmp_path):
    flows = {(name, k): random_flow(k) for name in TARGETS for k in (1, 2)}
    one = {key: flow for key, flow in flows.items() if key[0] == "arcs"}
    heights = []
    for chosen in (flows, one):
        plots.data_by_depth(tmp_path / "a.png", "density", chosen, dict.fromkeys(chosen, 0.5))
        heights.append(Image.open(tmp_path / "a.png").height)
    assert heights[0] == pytest.approx(len(TARGETS) * heights[1], abs=2)


def test_a_target_without_limits_is_left_out_of_the_depth_curves(drawn, tmp_path):
    numbers = {"mean": 0.1, "values": [0.1, 0.2]}
    rows = [{"source": source, "data": "arcs", "num_layers": k, "gap": numbers, "kl": numbers}
            for source in ("samples", "density") for k in (2, 8)]  # fmt: skip
    own = [{"source": "density", "data": "own", "num_layers": k} for k in (2, 8)]
    plots.depth(tmp_path / "a.svg", rows + own, {"settings": {"tuned": rows[1::2]}, "limit_of_the_data": 0.01})
    left, right = drawn[0].axes
    for axes in (left, right):
        curve, *_ = axes.get_lines()
        assert curve.get_xydata().tolist() == [[2, 0.1], [8, 0.1]]
        assert sum(line.get_marker() == "x" for line in axes.get_lines()) == 1
