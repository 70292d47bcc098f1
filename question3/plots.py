"""Pictures of planar flows: target beside model, on the same square and the same scale."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator
from torch import Tensor

from data.densities import Target
from lab import figures
from question3.scores import log_density
from solution import Flow, get_logdet, inverse, invertible_u, log_standard_normal, planar_transformation

SIDE = 5.0  # the axes reach from -5 to 5
EDGES: dict[str, Any] = {"sharex": True, "sharey": True}
Layer = tuple[str, Tensor, Tensor, Tensor]  # title, u, w ``(2,)`` and b, a scalar


def grid(points: int = 201) -> Tensor:
    """The points of the square, ``(points, points, 2)``, rows along z2 as ``imshow`` has them."""
    axis = torch.linspace(-SIDE, SIDE, points)
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)


def show(axes: Axes, values: np.ndarray, title: str, norm: Normalize) -> None:
    """Draw a density on the square, in a perceptually uniform colour map."""
    extent = (-SIDE, SIDE, -SIDE, SIDE)
    axes.imshow(values, origin="lower", extent=extent, cmap="viridis", norm=norm, interpolation="bilinear")
    axes.set(title=title, aspect="equal", xticks=(-4, 0, 4), yticks=(-4, 0, 4))
    axes.grid(False)


def label_edges(panels: Sequence[Axes], name: str = "z") -> None:
    """Name the axes once for all panels, which share them."""
    for axes in panels:
        axes.label_outer()
    panels[0].figure.supxlabel(f"${name}_1$")
    panels[0].figure.supylabel(f"${name}_2$")


def target_density(target: Target) -> np.ndarray:
    """The target's density on the grid, normalised on the square, or on its strip about z₁ = 0."""
    points = grid()
    density = torch.exp(-target.energy(points.flatten(0, 1))).view(points.shape[:2])
    density *= points[..., 0].abs() <= (target.half_width or SIDE)
    cell = (2 * SIDE / (len(density) - 1)) ** 2
    return (density / (density.sum() * cell)).numpy()


def flow_density(flow: Flow, source: str) -> np.ndarray:
    """The flow's density on the grid."""
    return torch.exp(log_density(flow, source, grid().flatten(0, 1))).view(grid().shape[:2]).numpy()


def histogram(points: Tensor) -> np.ndarray:
    """Histogram of points on the square, as a density."""
    edges = np.linspace(-SIDE, SIDE, 101)
    counts, _, _ = np.histogram2d(points[:, 1].numpy(), points[:, 0].numpy(), bins=(edges, edges))
    return counts / (len(points) * (edges[1] - edges[0]) ** 2)


def draw_rows(path: str | Path, rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> None:
    """Densities with their titles in rows, all on one scale, which few data with their noisy histogram do not set."""
    panels = [panel for row in rows for panel in row]
    norm = Normalize(0, max(density.max() for title, density in panels if title != "data"))
    columns = len(rows[0])
    width = min(figures.WIDTH / columns, 1.35 + 1 / columns)  # the colour bar and the labels take an inch
    with figures.figure(path, columns=columns, rows=len(rows), size=(width, 1.65), **EDGES) as places:
        for axes, (title, density) in zip(places, panels, strict=True):
            show(axes, density, title, norm)
        label_edges(places)
        figures.colour_bar(places, "density")


@torch.no_grad()
def over_depth(path: str | Path, target: Target, source: str, flows: Sequence[tuple[int, Flow]]) -> None:
    """The target once, and beside it each flow with its seed: density above, draws below.

    Below the target, which may be unknown, is the flow's input: the data, or noise.
    """
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    start = ("data", histogram(target.data_set())) if source == "samples" else ("noise", histogram(noise))
    draws = [histogram(flow.inverse(noise) if source == "samples" else flow(noise)[0]) for _, flow in flows]
    known = source == "density" or target.sampler is not None
    above = [("target", target_density(target)) if known else ("no target is known", np.zeros_like(start[1]))]
    above += [(f"flow, $k = {len(flow.layers)}$, seed {seed}", flow_density(flow, source)) for seed, flow in flows]
    below = [start, *(("draws", density) for density in draws)]
    draw_rows(path, [above, below])


@torch.no_grad()
def compare(path: str | Path, source: str, rows: Mapping[Target, Sequence[tuple[int, Flow]]]) -> None:
    """Targets, a row each, and what flows of several depths learnt of them.

    From samples, the density that was learnt; from a density, the samples that were learnt, as a histogram.
    """
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    shown = []
    for target, flows in rows.items():
        panels = [(f"{target.name}, target", target_density(target))]
        for seed, flow in flows:
            learnt = flow_density(flow, source) if source == "samples" else histogram(flow(noise)[0])
            panels.append((f"$k = {len(flow.layers)}$, seed {seed}", learnt))
        shown.append(panels)
    draw_rows(path, shown)


@torch.no_grad()
def directions(path: str | Path, target: Target, flows: dict[str, Flow]) -> None:
    """What few layers learn with each divergence: the target, and the flows of least forward and least reverse KL.

    The colours are logarithmic, over three powers of ten: the flows differ most where the density is low.
    """
    densities = {"target": target_density(target)}
    for name, flow in flows.items():
        densities[f"least {name} KL"] = flow_density(copy.deepcopy(flow).float(), "samples")
    top = max(density.max() for density in densities.values())
    with figures.figure(path, columns=3, size=(0.85 * figures.WIDTH / 3, 1.75), **EDGES) as panels:
        for axes, (title, density) in zip(panels, densities.items(), strict=True):
            show(axes, density / top, title, LogNorm(1e-3, 1, clip=True))
        label_edges(panels)
        figures.colour_bar(panels, "density / highest", ticks=LogLocator(), extend="min")


def points_and_lines() -> tuple[Tensor, Tensor]:
    """Points of a standard normal distribution ``(400, 2)``, and the lines of a square grid ``(26, 31, 2)``."""
    across = torch.cartesian_prod(torch.linspace(-3, 3, 13), torch.linspace(-3, 3, 31)).view(13, 31, 2)
    points = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    return points, torch.cat([across, across.flip(-1)])


def hyperplane(w: Tensor, b: Tensor, reach: float = 20.0) -> Tensor:
    """Two distant points of the line w·x + b = 0, ``(2, 2)``; NaN where w is zero and there is no line."""
    if not w.any():
        return torch.full((2, 2), torch.nan)
    along = torch.stack([-w[1], w[0]]) / w.norm()
    return torch.stack([t * along - b * w / w.square().sum() for t in (-reach, reach)])


@torch.no_grad()
def transformations(path: str | Path, cases: Sequence[Layer]) -> None:
    """A standard normal distribution before and after single layers, in two rows: points, and what was a square grid.

    Each side of the layer's hyperplane (dashed) has a colour, which its points keep. The first panel shows the points
    before any layer, with the first layer's colours.
    """
    _, _, w, b = cases[0]
    contents = [("before", torch.zeros(2), w, b)]
    for title, u, w, b in cases:
        numbers = f"$u=({u[0]:g}, {u[1]:g})$\n$w=({w[0]:g}, {w[1]:g})$, $b={b:g}$"
        contents.append((f"{title}\n{numbers}", u, w, b))
    columns = (len(contents) + 1) // 2
    with figures.figure(path, columns=columns, rows=2, size=(figures.WIDTH / columns, 1.85), **EDGES) as panels:
        for axes, content in zip(panels, contents, strict=False):
            draw_layer(axes, *content)
        label_edges(panels, "x")
        for axes in panels:
            axes.tick_params(labelbottom=True)


def draw_layer(axes: Axes, title: str, u: Tensor, w: Tensor, b: Tensor) -> None:
    """Points and a square grid after a layer, as :func:`transformations` shows them."""
    points, lines = points_and_lines()
    moved = planar_transformation(lines.view(-1, 2), u, w, b).view(lines.shape)
    axes.plot(*moved.permute(2, 1, 0), color="0.6", linewidth=0.3, zorder=0)
    after, side = planar_transformation(points, u, w, b), points @ w + b > 0
    for mask, colour in ((side, figures.COLOURS[0]), (~side, figures.COLOURS[4])):  # dark and light in grey too
        axes.plot(*after[mask].T, ".", color=colour, markersize=2.2, markeredgewidth=0)
    axes.plot(*hyperplane(w, b).T, "--", color="black", linewidth=0.8)
    axes.set_title(title, linespacing=1.3)
    if u.any():
        axes.text(-6, -6, f"$w\\cdot u={torch.dot(w, u):g}$", bbox={"color": "white", "pad": 0.5}, zorder=2.2)
    axes.set(xlim=(-6.5, 6.5), ylim=(-6.5, 6.5), xticks=(-4, 0, 4), yticks=(-4, 0, 4), aspect="equal")
    axes.grid(visible=False)


@torch.no_grad()
def layer(path: str | Path, u: Tensor, w: Tensor, b: Tensor) -> None:
    """Points, a square grid and the density after one layer, with û in the place of u where w·u < -1."""
    used = invertible_u(u, w)
    title = "points, grid"
    if not used.equal(u):
        title = f"$w\\cdot u={torch.dot(w, u):g}$, not invertible: drawn with $\\hat u$"
    with figures.figure(path, columns=2, size=(figures.HALF, figures.HALF)) as (left, right):
        draw_layer(left, title, used, w, b)
        # The same colours for every layer; the normal distribution's peak is 1 / 2π.
        show(right, layer_density(used, w, b, grid(101)).numpy(), "density", Normalize(0, 0.16))


def layer_density(u: Tensor, w: Tensor, b: Tensor, points: Tensor) -> Tensor:
    r"""The density of a standard normal distribution after a layer, at points ``(*, 2)``: ``(*)``.

    .. math:: q(y) = \mathcal{N}(x; 0, I) \, |1 + u \cdot \psi(x)|^{-1}, \quad x = f^{-1}(y)

    Where w·u < -1 the layer has no inverse; the density is then that of the layer with :func:`solution.invertible_u`.
    """
    u, y = invertible_u(u, w), points.reshape(-1, 2)
    x = inverse(y, u, w, b)
    return torch.exp(log_standard_normal(x) - get_logdet(x, u, w, b)).view(points.shape[:-1])


def bends(path: str | Path, products: Sequence[float]) -> None:
    r"""What a layer does along w, :math:`a + c \tanh a` with c = w·u, and the product w·û after the adjustment of u."""
    a, c = torch.linspace(-4, 4, 401), torch.linspace(-5, 3, 801)
    with figures.figure(path, columns=2, size=(3.4, 2.6)) as (left, right):
        for product in products:
            dashes = "--" if product < -1 else "-"
            left.plot(a, a + product * torch.tanh(a), dashes, label=f"$w\\cdot u={product:g}$")
        left.set(xlabel="before, $a = w\\cdot x + b$", ylabel="after, $a + (w\\cdot u)\\,\\tanh a$", ylim=(-4, 4))
        left.legend()
        adjusted = (torch.nn.functional.softplus(c) - 1)[c < -1]
        right.plot(c[c < -1], adjusted, color=figures.COLOURS[1], label="$m(w\\cdot u)$, adjusted")
        right.plot(c[c >= -1], c[c >= -1], color=figures.COLOURS[0], label="$w\\cdot u$, as it is")
        right.axhline(-1, color="0.5", linewidth=0.8, linestyle=":")
        right.set(xlabel="$w\\cdot u$ of the parameter", ylabel="$w\\cdot u$ of the map")
        right.legend()


def depth(path: Path, settings: Sequence[dict[str, Any]], tuned: dict[str, Any]) -> None:
    """Distance from the limit over depth: each seed a point, their mean a line.

    Crosses are means of flows that were trained by natural gradient, to the right of their depth. From samples there
    is a second limit, that of a finite data set, which grows with the number of parameters.
    """
    depths = list(dict.fromkeys(row["num_layers"] for row in settings))
    measures = {"samples": ("gap", "NLL $-$ entropy (nats)"), "density": ("kl", r"KL$(q\,\Vert\,p)$ (nats)")}
    with figures.figure(path, columns=2, size=(figures.WIDTH / 2, 2.3)) as columns:
        for axes, (source, (key, label)) in zip(columns, measures.items(), strict=True):
            plain, crosses = (
                [row for row in table if row["source"] == source and key in row]
                for table in (settings, tuned["settings"]["tuned"])
            )
            names = dict.fromkeys(row["data"] for row in plain)
            for name, colour, dashes in zip(names, figures.COLOURS, figures.DASHES, strict=False):
                rows = [row for row in plain if row["data"] == name]
                k = [row["num_layers"] for row in rows]
                axes.plot(k, [row[key]["mean"] for row in rows], linestyle=dashes, color=colour, label=name)
                axes.plot(k, [row[key]["values"] for row in rows], ".", color=colour, markersize=4)
                for row in (row for row in crosses if row["data"] == name):
                    # Beside the dots, and those of one target beside the other's.
                    place = row["num_layers"] * 1.2 ** (1 + list(names).index(name))
                    axes.plot(place, row[key]["mean"], "x", color=colour, ms=6, label=f"{name}, natural gradient")
            axes.set(xscale="log", yscale="log", ylim=(2e-3, 5), xlabel="layers $k$", ylabel=label)
            axes.set_title(f"from {source}")
            axes.set_xticks(depths, [str(k) for k in depths])
            axes.minorticks_off()
        limit, deepest = tuned["limit_of_the_data"], tuned["settings"]["tuned"][0]["num_layers"]
        columns[0].plot(depths, [limit * k / deepest for k in depths], ":", color="0.5", linewidth=0.8)
        columns[0].text(0.45 * deepest, 0.5 * limit, "$P/(2N)$", color="0.4", ha="right", va="bottom")
        columns[0].figure.legend(*columns[1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
