"""Pictures of flows: the density of a layer against its draws, what panels show, and titles within the figure."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from data.densities import TARGETS, Target
from lab import figures
from question3 import natural, plots
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
    """The figures that are saved, laid out."""
    kept = []

    def keep(drawing, path):
        drawing.draw_without_rendering()
        kept.append(drawing)

    monkeypatch.setattr(figures, "save", keep)
    return kept


def random_flow(layers: int = 2) -> Flow:
    torch.manual_seed(3)
    flow = Flow(2, layers)
    natural.spread(flow)
    return flow


OWN = Target("own", lambda z: 0.5 * z.square().sum(-1))  # an energy alone
POINTS = dataclasses.replace(OWN, points=torch.randn(50, 2))
SINE = TARGETS["sine"]
CASES = [("title", torch.tensor([-0.45, 0.0]), torch.tensor([2.0, 0.5]), torch.tensor(-1.0))]
PICTURES = {
    "samples": lambda path: plots.over_depth(path, SINE, "samples", [(31415, random_flow(k)) for k in (2, 8, 32)]),
    "density": lambda path: plots.over_depth(path, OWN, "density", [(31415, random_flow())]),
    "own data": lambda path: plots.over_depth(path, POINTS, "samples", [(31415, random_flow())]),
    "compared": lambda path: plots.compare(path, "density", {SINE: [(31415, random_flow(k)) for k in (2, 8, 32)]}),
    "directions": lambda path: plots.directions(path, SINE, {"forward": random_flow(), "reverse": random_flow()}),
    "transformations": lambda path: plots.transformations(path, 9 * CASES),
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


def test_panels_are_target_data_density_and_draws(drawn, tmp_path):
    plots.over_depth(tmp_path / "a.png", SINE, "samples", [(1, random_flow())])
    target, density, data, draws = (np.asarray(axes.images[0].get_array()) for axes in drawn[0].axes[:4])
    expected = torch.exp(-SINE.energy(plots.grid())) * (plots.grid()[..., 0].abs() <= 4)
    np.testing.assert_allclose(target / target.max(), expected / expected.max(), atol=1e-6)
    assert target.sum() * 0.05**2 == pytest.approx(1) and data.sum() * 0.1**2 == pytest.approx(1)
    for exact, counted in ((target, data), (density, draws)):
        assert np.corrcoef(exact[:-1:2, :-1:2].ravel(), counted.ravel())[0, 1] > 0.9


def test_an_unknown_target_is_not_drawn(drawn, tmp_path):
    plots.over_depth(tmp_path / "b.png", POINTS, "samples", [(1, random_flow())])
    above, _, below, _ = drawn[0].axes[:4]
    assert (above.get_title(), below.get_title()) == ("no target is known", "data")


def test_a_layer_moves_its_points_and_they_keep_their_colours(drawn, tmp_path):
    plots.transformations(tmp_path / "a.png", CASES)
    (_, u, w, b), (points, _) = CASES[0], plots.points_and_lines()
    before, after = ([line for line in axes.lines if line.get_marker() == "."] for axes in drawn[0].axes)
    side = points @ w + b > 0
    for mask, start, end in zip((side, ~side), before, after, strict=True):
        np.testing.assert_allclose(start.get_xydata(), points[mask])
        np.testing.assert_allclose(end.get_xydata(), planar_transformation(points[mask], u, w, b))


def test_a_layer_without_normal_or_inverse_is_drawn(drawn, tmp_path):
    b = torch.tensor(0.0)
    for u, w in ((torch.ones(2), torch.zeros(2)), (torch.tensor([-3.0, 0.0]), torch.tensor([3.0, 0.0]))):
        plots.layer(tmp_path / "a.png", u, w, b)
    (points, density), (folded, narrow) = (drawing.axes for drawing in drawn)
    assert "invertible" not in points.get_title() and "not invertible" in folded.get_title()
    usual, narrowed = (axes.images[0].get_array().max() for axes in (density, narrow))
    assert usual == pytest.approx(1 / (2 * math.pi)) and narrowed > 2 * usual
    assert torch.isnan(plots.hyperplane(torch.zeros(2), torch.tensor(1.0))).all()


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
