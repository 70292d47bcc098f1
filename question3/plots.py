"""Pictures of planar flows: target beside model, on the same square and the same scale."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from data.densities import TARGETS, Target
from lab import figures
from question3.scores import log_density
from solution import Flow, get_logdet, inverse, invertible_u, log_standard_normal, planar_transformation

SIDE = 5.0  # the axes reach from -5 to 5
EDGES: dict[str, Any] = {"sharex": True, "sharey": True}
Layer = tuple[str, Tensor, Tensor, Tensor]  # title, u, w ``(2,)`` and b, a scalar


def grid(points: int = 201) -> Tensor:
    """The points of the square, ``(points, points, 2)``, rows along z2 as ``imshow`` has them."""
    axis = torch.linspace(-SIDE, SIDE, points)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    return torch.stack([x, y], dim=-1)


def show(axes: Axes, values: np.ndarray, title: str, top: float | None = None) -> None:
    """Draw a density on the square, in a perceptually uniform colour map."""
    axes.imshow(
        values,
        origin="lower",
        extent=(-SIDE, SIDE, -SIDE, SIDE),
        cmap="viridis",
        vmin=0,
        vmax=top,
        interpolation="bilinear",
    )
    axes.set(title=title, aspect="equal", xticks=(-4, 0, 4), yticks=(-4, 0, 4))
    axes.grid(False)


def label_edges(panels: Sequence[Axes], names: tuple[str, str] = ("$z_1$", "$z_2$")) -> None:
    """Name the axes once for all panels, which share them."""
    for axes in panels:
        axes.label_outer()
    panels[0].figure.supxlabel(names[0])
    panels[0].figure.supylabel(names[1])


def target_density(target: Target, half_width: float | None) -> np.ndarray:
    """The target's density on the grid, normalised on the square, or on the strip of this half width about z₁ = 0."""
    points = grid()
    density = torch.exp(-target.energy(points.flatten(0, 1))).view(points.shape[:2])
    density *= points[..., 0].abs() <= (half_width or SIDE)
    cell = (2 * SIDE / (len(density) - 1)) ** 2
    return (density / (density.sum() * cell)).numpy()


def flow_density(flow: Flow, source: str) -> np.ndarray:
    """The flow's density on the grid."""
    return torch.exp(log_density(flow, source, grid().flatten(0, 1))).view(grid().shape[:2]).numpy()


def histogram(points: Tensor, cells: int = 101) -> np.ndarray:
    """Histogram of points on the square, as a density."""
    edges = np.linspace(-SIDE, SIDE, cells)
    counts, _, _ = np.histogram2d(points[:, 1].numpy(), points[:, 0].numpy(), bins=(edges, edges))
    return counts / (len(points) * (edges[1] - edges[0]) ** 2)


def draws(flow: Flow, source: str, count: int = 100_000) -> Tensor:
    """Samples ``(count, 2)`` of a flow."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return flow.inverse(noise) if source == "samples" else flow(noise)[0]


def save_row(path: str | Path, densities: Mapping[str, np.ndarray], top: float) -> None:
    """Save densities by title, side by side on one scale from 0 to ``top``."""
    with figures.figure(path, columns=len(densities), size=(figures.WIDTH / 3, 2.0), **EDGES) as panels:
        for axes, (title, density) in zip(panels, densities.items(), strict=True):
            show(axes, density, title, top)
        label_edges(panels)
        figures.colour_bar(panels, "density")


def setting(flow: Flow, seed: int | None) -> str:
    """Depth and seed of a flow, the second line of a title."""
    return f"k = {len(flow.layers)}" + ("" if seed is None else f", seed {seed}")


@torch.no_grad()
def learned_density(path: str | Path, flow: Flow, target: Target, data: Tensor, seed: int | None = None) -> None:
    """A flow learnt from samples: the target, the flow's density, and what its inverse generates from noise.

    Without a known density, the first panel is the histogram of the data, and the scale is that of the flow's density.
    """
    learnt = flow_density(flow, "samples")
    known = target.sampler is not None
    first = target_density(target, target.half_width) if known else histogram(data)
    densities = {
        "target" if known else "data": first,
        f"learnt density\n{setting(flow, seed)}": learnt,
        "generated": histogram(draws(flow, "samples")),
    }
    save_row(path, densities, top=float((first if known else learnt).max()))


@torch.no_grad()
def samples(path: str | Path, flow: Flow, target: Target, seed: int | None = None) -> None:
    """A flow learnt from a density: the target, and samples of the flow, on a scale that holds both."""
    densities = {
        "target": target_density(target, None),
        f"samples\n{setting(flow, seed)}": histogram(draws(flow, "density")),
    }
    save_row(path, densities, top=max(float(density.max()) for density in densities.values()))


@torch.no_grad()
def over_depth(path: str | Path, target: Target, source: str, flows: Sequence[tuple[int, Flow]]) -> None:
    """The target once, and beside it the flows of each depth: density above, draws below, all on one scale.

    Below the target is the flow's input: the data, or noise.

    Args:
        path: The picture.
        target: What the flows learnt.
        source: What they learnt from: samples or density.
        flows: Seed and flow, from shallow to deep.
    """
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    start, points = ("data", target.data_set()) if source == "samples" else ("noise", noise)
    above = [("target", target_density(target, target.half_width))]
    above += [(setting(flow, seed), flow_density(flow, source)) for seed, flow in flows]
    below = [(start, histogram(points)), *(("draws", histogram(draws(flow, source))) for _, flow in flows)]
    top = max(float(density.max()) for _, density in [*above, *below[1:]])  # few data have a noisy histogram
    columns = len(above)
    with figures.figure(path, columns=columns, rows=2, size=(figures.WIDTH / columns, 1.65), **EDGES) as panels:
        for axes, (title, density) in zip(panels, above + below, strict=True):
            show(axes, density, title, top)
        label_edges(panels)
        figures.colour_bar(panels, "density")


@torch.no_grad()
def data_by_depth(
    path: str | Path, source: str, flows: dict[tuple[str, int], Flow], nats: dict[tuple[str, int], float]
) -> None:
    """One picture of all targets: a row per target, a column per depth k, and the distance from the limit against k.

    From samples the columns show the learnt density, and one more the draws of the deepest flow, made by its inverse;
    from densities they show the flow's draws. Each row has its own colour scale.

    Args:
        path: The picture.
        source: What the flows learnt from: samples or density.
        flows: Flows by name of the target and k.
        nats: Distance from the limit in nats, NLL minus entropy or KL(q‖p), by the same keys; targets whose limit is
            unknown are left out.
    """
    names, depths = list(dict.fromkeys(name for name, _ in flows)), list(dict.fromkeys(k for _, k in flows))
    from_samples = source == "samples"
    columns = 1 + len(depths) + from_samples + 1
    with figures.figure(path, columns=columns, rows=len(names), size=(8.4 / columns, 8.4 / columns + 0.25)) as panels:
        for row, name in enumerate(names):
            target = target_density(TARGETS[name], TARGETS[name].half_width)
            densities, deepest = {f"{name}, target": target}, flows[name, depths[-1]]
            for k in depths:
                flow = flows[name, k]
                densities[f"k = {k}"] = flow_density(flow, source) if from_samples else histogram(draws(flow, source))
            if from_samples:
                densities[f"draws, k = {depths[-1]}"] = histogram(draws(deepest, source))
            *images, curve = panels[row * columns : (row + 1) * columns]
            for axes, (title, density) in zip(images, densities.items(), strict=True):
                show(axes, density, title, 1.2 * float(target.max()))
            figures.colour_bar(images, "density")
            known = [k for k in depths if (name, k) in nats]
            curve.plot(known, [nats[name, k] for k in known], "o-", markersize=4)
            curve.set(xlabel="layers $k$", box_aspect=1, title="gap (nats)" if from_samples else "KL(q‖p) (nats)")
            curve.set_xscale("log")
            curve.set_xticks(depths, [str(k) for k in depths])
            curve.minorticks_off()
            if nats:  # one scale for all rows
                figures.logarithmic(curve, list(nats.values()))
                curve.set_ylim(min(nats.values()) / 1.3, max(nats.values()) * 1.3)


@torch.no_grad()
def directions(path: str | Path, target: Target, flows: dict[str, Flow]) -> None:
    """What few layers learn with each divergence: the target, and the flows of least forward and least reverse KL.

    The colours are logarithmic, over three powers of ten: the flows differ most where the density is low.
    """
    densities = {"target": target_density(target, target.half_width)}
    densities |= {
        f"least {name} KL": flow_density(copy.deepcopy(flow).float(), "samples") for name, flow in flows.items()
    }
    top = max(density.max() for density in densities.values())
    with figures.figure(path, columns=3, size=(0.85 * figures.WIDTH / 3, 1.75), **EDGES) as panels:
        for axes, (title, density) in zip(panels, densities.items(), strict=True):
            show(axes, np.log10(np.maximum(density / top, 1e-3)) + 3, title, 3)
        label_edges(panels)
        bar = figures.colour_bar(panels, "density / highest", ticks=range(4), extend="min")
        bar.set_ticklabels([f"$10^{{{power}}}$" for power in range(-3, 1)])


def draw_layers(panels: Sequence[Axes], cases: Sequence[Layer], reach: float) -> None:
    """Draw a standard normal distribution, and what each layer makes of it: points and grid in axes of their own.

    Each side of the layer's hyperplane (dashed) has a colour, which its points keep; the thin lines were a square
    grid. The first panel shows the points before any layer, with the first layer's colours.
    """
    points = torch.randn(1500, 2, generator=torch.Generator().manual_seed(0))
    _, _, w, b = cases[0]
    before = f"before\n(colours by\n$w=${vector(w)}, $b=${number(b)})"
    titles = [
        f"{title}\n$u=${vector(u)}\n$w=${vector(w)}\n$b=${number(b)}, $w\\cdot u=${number(torch.dot(w, u))}"
        for title, u, w, b in cases
    ]
    layers = [(torch.zeros(2), w, b), *((u, w, b) for _, u, w, b in cases)]
    for axes, title, (u, w, b) in zip(panels, [before, *titles], layers, strict=False):
        draw_layer(axes, points, u, w, b)
        axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), xticks=(-4, 0, 4), yticks=(-4, 0, 4))
        axes.set_aspect("equal")
        axes.grid(visible=False)


def draw_layer(axes: Axes, points: Tensor, u: Tensor, w: Tensor, b: Tensor) -> None:
    """Draw points and a grid after a layer, coloured by the side of the hyperplane from which they come."""
    fine = torch.linspace(-3, 3, 121)
    for at in torch.linspace(-3, 3, 13):
        for line in (torch.stack([fine, at.expand_as(fine)], 1), torch.stack([at.expand_as(fine), fine], 1)):
            axes.plot(*planar_transformation(line, u, w, b).T, color="0.6", linewidth=0.3, zorder=0)
    after, side = planar_transformation(points, u, w, b), points @ w + b > 0
    for mask, colour in ((side, figures.COLOURS[0]), (~side, figures.COLOURS[4])):  # dark and light in grey too
        axes.plot(*after[mask].T, ".", color=colour, markersize=1.0)
    axes.plot(*hyperplane(w, b).T, "--", color="black", linewidth=0.8)


def hyperplane(w: Tensor, b: Tensor, reach: float = 20.0) -> Tensor:
    """Two distant points of the line w·x + b = 0, ``(2, 2)``; NaN where w is zero and there is no line."""
    if not w.any():
        return torch.full((2, 2), torch.nan)
    along = torch.stack([-w[1], w[0]]) / w.norm()
    return torch.stack([t * along - b * w / w.square().sum() for t in (-reach, reach)])


def vector(values: Tensor) -> str:
    """A vector in a title."""
    return f"({', '.join(map(number, values))})"


def number(value: Tensor) -> str:
    """A number in a title, with a true minus sign."""
    return f"{value.item():g}".replace("-", "\N{MINUS SIGN}")


@torch.no_grad()
def transformations(path: str | Path, cases: Sequence[Layer]) -> None:
    """Points of a standard normal distribution before and after single layers, in two rows."""
    columns = (len(cases) + 2) // 2
    with figures.figure(path, columns=columns, rows=2, size=(figures.WIDTH / columns, 1.95), **EDGES) as panels:
        draw_layers(panels, cases, reach=7.0)
        for axes in panels[1 + len(cases) :]:
            axes.set_axis_off()
        label_edges(panels, ("$x_1$", "$x_2$"))


@torch.no_grad()
def layers(path: str | Path, cases: Sequence[Layer]) -> None:
    """A standard normal distribution before and after single layers: points and grid above, density below."""
    count, reach = 1 + len(cases), 4.5
    with figures.figure(path, columns=count, rows=2, size=(8.4 / count, 1.55)) as panels:
        draw_layers(panels, cases, reach)
        before = ("before", torch.zeros(2), *cases[0][2:])
        for axes, (_, u, w, b) in zip(panels[count:], [before, *cases], strict=True):
            show(axes, layer_density(u, w, b, grid(151)).numpy(), "", top=0.16)  # a standard normal's peak is 1 / 2π
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        figures.colour_bar(panels, "density")


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
            label = f"$w\\cdot u=${number(torch.tensor(product))}"
            left.plot(a, a + product * torch.tanh(a), "--" if product < -1 else "-", label=label)
        left.set(xlabel="before, $a = w\\cdot x + b$", ylabel="after, $a + (w\\cdot u)\\,\\tanh a$", ylim=(-4, 4))
        left.legend()
        adjusted = (torch.nn.functional.softplus(c) - 1)[c < -1]
        right.plot(c[c < -1], adjusted, color=figures.COLOURS[1], label="$m(w\\cdot u)$, adjusted")
        right.plot(c[c >= -1], c[c >= -1], color=figures.COLOURS[0], label="$w\\cdot u$, as it is")
        right.axhline(-1, color="0.5", linewidth=0.8, linestyle=":")
        right.set(xlabel="$w\\cdot u$ of the parameter", ylabel="$w\\cdot u$ of the map")
        right.legend()


def depth(path: Path, settings: Sequence[dict[str, Any]], tuned: dict[str, Any]) -> None:
    """Distance from the limit over depth: each seed a point, their mean a line; tuned flows as crosses.

    From samples there is a second limit, that of a finite data set, which grows with the number of parameters.
    """
    names = dict.fromkeys(row["data"] for row in settings)
    depths = list(dict.fromkeys(row["num_layers"] for row in settings))
    with figures.figure(path, columns=2, size=(figures.WIDTH / 2, 2.3)) as columns:
        for axes, source, key, label in zip(
            columns, ("samples", "density"), ("gap", "kl"), ("NLL − entropy (nats)", "KL(q‖p) (nats)"), strict=True
        ):
            for name, colour, dashes in zip(names, figures.COLOURS, figures.DASHES, strict=False):
                rows, crosses = (
                    [row for row in table if (row["source"], row["data"]) == (source, name) and key in row]
                    for table in (settings, tuned["settings"]["tuned"])
                )
                means = [row[key]["mean"] for row in rows]
                axes.plot([row["num_layers"] for row in rows], means, linestyle=dashes, color=colour, label=name)
                for row in rows:
                    values = row[key]["values"]
                    axes.plot([row["num_layers"]] * len(values), values, ".", color=colour, markersize=4)
                for row in crosses:
                    mark: dict[str, Any] = {"color": colour, "ms": 7, "mew": 1.5, "label": f"{name}, tuned"}
                    axes.plot(row["num_layers"], row[key]["mean"], "x", **mark)
            axes.set(xscale="log", yscale="log", ylim=(2e-3, 1.5))
            axes.set(xlabel="layers $k$", ylabel=label, title=f"from {source}")
            axes.set_xticks(depths, [str(k) for k in depths])
            axes.minorticks_off()
        limit, deepest = tuned["limit_of_the_data"], tuned["settings"]["tuned"][0]["num_layers"]
        columns[0].plot(depths, [limit * k / deepest for k in depths], ":", color="0.5", linewidth=0.8)
        columns[0].text(0.45 * deepest, 0.5 * limit, "P / (2N)", color="0.4", ha="right", va="bottom")
        columns[1].legend()
