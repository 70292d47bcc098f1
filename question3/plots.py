"""Pictures of planar flows: target beside model, on the same square and the same scale."""

import copy
from collections.abc import Sequence
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


def grid(points: int = 201) -> Tensor:
    """The points of the square, ``(points, points, 2)``, rows along z2 as ``imshow`` has them."""
    axis = torch.linspace(-SIDE, SIDE, points)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    return torch.stack([x, y], dim=-1)


def show(axes: Axes, values: np.ndarray, title: str, top: float | None = None) -> None:
    """A density on the square, in colours that are even to the eye."""
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


def density_on_grid(target: Target) -> Tensor:
    """The target's unnormalised density at the points of :func:`grid`, ``(201, 201)``."""
    points = grid()
    return torch.exp(-target.energy(points.flatten(0, 1))).unflatten(0, points.shape[:2])


def normalised(values: Tensor) -> Tensor:
    """Divide by the sum times the area of a cell: a density that is normalised on the square."""
    cell = (2 * SIDE / (len(values) - 1)) ** 2
    return values / (values.sum() * cell)


def histogram(points: Tensor, cells: int = 101) -> np.ndarray:
    """The density of points on the square."""
    edges = np.linspace(-SIDE, SIDE, cells)
    counts, _, _ = np.histogram2d(points[:, 1].numpy(), points[:, 0].numpy(), bins=(edges, edges))
    return counts / (len(points) * (edges[1] - edges[0]) ** 2)


def of_target(target: Target) -> Tensor:
    """The target's density on the square's grid, normalised there or on the strip where it is known."""
    inside = (grid()[..., 0].abs() <= (target.half_width or SIDE)).float()
    return normalised(density_on_grid(target) * inside)


def draws(flow: Flow, source: str, count: int = 100_000) -> Tensor:
    """Points ``(count, 2)`` that a flow makes of noise."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return flow.inverse(noise) if source == "samples" else flow(noise)[0]


def of_flow(flow: Flow, source: str) -> np.ndarray:
    """The flow's density on the square's grid."""
    return torch.exp(log_density(flow, source, grid().flatten(0, 1))).view(grid().shape[:2]).numpy()


@torch.no_grad()
def learned_density(path: str | Path, flow: Flow, target: Target, data: Tensor, seed: int | None = None) -> None:
    """A flow learnt from samples: the data, the density it gives, and what its inverse generates from noise."""
    top = None
    first = histogram(data)
    if target.sampler is not None:  # else the data's density is not known
        first = of_target(target).numpy()
        top = float(first.max())
    of_seed = "" if seed is None else f", seed {seed}"
    with figures.figure(path, columns=3, size=(figures.WIDTH / 3, 2.0), **EDGES) as axes:
        show(axes[0], first, "data", top)
        show(axes[1], of_flow(flow, "samples"), f"learnt density, k = {len(flow.layers)}{of_seed}", top)
        show(axes[2], histogram(draws(flow, "samples")), "generated", top)
        label_edges(axes)
        if top is not None:  # else each panel has a scale of its own
            figures.colour_bar(axes, "density")


@torch.no_grad()
def samples(path: str | Path, flow: Flow, target: Target, seed: int | None = None) -> None:
    """A flow learnt from a density: the target, and samples of the flow, on a scale that holds both."""
    density, found = normalised(density_on_grid(target)).numpy(), histogram(draws(flow, "density"))
    top = float(max(density.max(), found.max()))
    of_seed = "" if seed is None else f", seed {seed}"
    with figures.figure(path, columns=2, size=(figures.WIDTH / 3, 2.0), **EDGES) as axes:
        show(axes[0], density, "target", top)
        show(axes[1], found, f"samples, k = {len(flow.layers)}{of_seed}", top)
        label_edges(axes)
        figures.colour_bar(axes, "density")


@torch.no_grad()
def over_depth(path: str | Path, target: Target, source: str, flows: Sequence[tuple[int, Flow]]) -> None:
    """The target once, and beside it the flows of each depth: density above, draws below, all on one scale.

    Below the target is what a flow starts from: the data, or noise.

    Args:
        path: The picture.
        target: What the flows learnt.
        source: From what: samples or density.
        flows: Seed and flow, from shallow to deep.
    """
    densities = [of_target(target).numpy(), *(of_flow(flow, source) for _, flow in flows)]
    drawn = [histogram(draws(flow, source)) for _, flow in flows]
    top = float(max(values.max() for values in [*densities, *drawn]))
    titles = ["target", *(f"k = {len(flow.layers)}, seed {seed}" for seed, flow in flows)]
    columns, generator = len(densities), torch.Generator().manual_seed(0)
    with figures.figure(path, columns=columns, rows=2, size=(figures.WIDTH / columns, 1.65), **EDGES) as panels:
        for axes, values, title in zip(panels, densities, titles, strict=False):
            show(axes, values, title, top)
        start = target.data_set() if source == "samples" else torch.randn(100_000, 2, generator=generator)
        show(panels[columns], histogram(start), "data" if source == "samples" else "noise", top)
        for axes, values in zip(panels[columns + 1 :], drawn, strict=True):
            show(axes, values, "draws", top)
        label_edges(panels)
        figures.colour_bar(panels, "density")


@torch.no_grad()
def directions(path: str | Path, target: Target, flows: dict[str, Flow]) -> None:
    """What the two divergences make of few layers: the target, the flow of least forward and of least reverse KL.

    The colours are logarithmic, over three powers of ten, for what matters is where there is next to nothing.
    """
    densities = {"target": of_target(target).numpy()}
    densities |= {f"least {name} KL": of_flow(copy.deepcopy(flow).float(), "samples") for name, flow in flows.items()}
    top = max(density.max() for density in densities.values())
    with figures.figure(path, columns=3, size=(0.85 * figures.WIDTH / 3, 1.75), **EDGES) as panels:
        for axes, (title, density) in zip(panels, densities.items(), strict=True):
            show(axes, np.log10(np.maximum(density / top, 1e-3)) + 3, title, 3)
        label_edges(panels)
        bar = figures.colour_bar(panels, "density / highest", ticks=range(4))
        bar.set_ticklabels([f"$10^{{{power}}}$" for power in range(-3, 1)])


@torch.no_grad()
def transformations(path: str | Path, cases: Sequence[tuple[str, Tensor, Tensor, Tensor]]) -> None:
    """Draws of a standard normal distribution after one layer, for several u, w and b; first, as they were before.

    Each side of the layer's hyperplane (dashed) has a colour, which its points keep; the thin lines were a square grid.
    """
    draws = torch.randn(1500, 2, generator=torch.Generator().manual_seed(0))
    columns = (len(cases) + 2) // 2
    with figures.figure(path, columns=columns, rows=2, size=(figures.WIDTH / columns, 1.95), **EDGES) as panels:
        _, _, w, b = cases[0]
        draw_layer(panels[0], draws, torch.zeros(2), w, b, f"before\n(colours by\n$w=${vector(w)}, $b=${number(b)})")
        for axes, (title, u, w, b) in zip(panels[1:], cases, strict=False):
            products = f"$b=${number(b)}, $w\\cdot u=${number(torch.dot(w, u))}"
            numbers = f"$u=${vector(u)}\n$w=${vector(w)}\n{products}"
            draw_layer(axes, draws, u, w, b, f"{title}\n{numbers}")
        for axes in panels[1 + len(cases) :]:
            axes.set_axis_off()
        label_edges(panels, ("$x_1$", "$x_2$"))


def draw_layer(axes: Axes, draws: Tensor, u: Tensor, w: Tensor, b: Tensor, title: str) -> None:
    """Points and a grid after a layer, coloured by the side of its hyperplane on which they were."""
    fine, reach = torch.linspace(-3, 3, 121), 7.0
    for at in torch.linspace(-3, 3, 13):
        for line in (torch.stack([fine, at.expand_as(fine)], 1), torch.stack([at.expand_as(fine), fine], 1)):
            axes.plot(*planar_transformation(line, u, w, b).T, color="0.6", linewidth=0.3, zorder=0)
    after, side = planar_transformation(draws, u, w, b), draws @ w + b > 0
    for of_side, colour in ((side, figures.COLOURS[0]), (~side, figures.COLOURS[4])):  # dark and light in grey too
        axes.plot(*after[of_side].T, ".", color=colour, markersize=1.0)
    axes.plot(*hyperplane(w, b).T, "--", color="black", linewidth=0.8)
    axes.set(title=title, xticks=(-4, 0, 4), yticks=(-4, 0, 4))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_aspect("equal")
    axes.grid(visible=False)


def hyperplane(w: Tensor, b: Tensor, reach: float = 20.0) -> Tensor:
    """Two points of the line w·x + b = 0, far apart, ``(2, 2)``; where w is nought there is no line."""
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


def depth(path: Path, settings: Sequence[dict[str, Any]], tuned: dict[str, Any]) -> None:
    """What is left to the limit over the depth: each seed a point, their mean a line; tuned flows as crosses.

    From samples there is a second limit, that of a finite data set, which grows with the number of parameters.
    """
    with figures.figure(path, columns=2, size=(figures.WIDTH / 2, 2.3)) as columns:
        for axes, (source, key, label) in zip(
            columns, [("samples", "gap", "NLL − entropy (nats)"), ("density", "kl", "KL(q‖p) (nats)")], strict=True
        ):
            names = dict.fromkeys(s["data"] for s in settings)
            for name, colour, dashes in zip(names, figures.COLOURS, figures.DASHES, strict=False):
                rows = [s for s in settings if (s["source"], s["data"]) == (source, name)]
                depths = [row["num_layers"] for row in rows]
                axes.plot(depths, [row[key]["mean"] for row in rows], linestyle=dashes, color=colour, label=name)
                for row in rows:
                    axes.plot(
                        [row["num_layers"]] * len(row[key]["values"]), row[key]["values"], ".", color=colour, ms=4
                    )
                for row in tuned["settings"]["tuned"]:
                    if (row["source"], row["data"]) == (source, name):
                        mark: dict[str, Any] = {"color": colour, "ms": 7, "mew": 1.5, "label": f"{name}, tuned"}
                        axes.plot(row["num_layers"], row[key]["mean"], "x", **mark)
            if source == "samples":
                limit, deepest = tuned["limit_of_the_data"], tuned["settings"]["tuned"][0]["num_layers"]
                axes.plot(depths, [limit * k / deepest for k in depths], ":", color="0.5", linewidth=0.8)
                axes.text(0.45 * deepest, 0.5 * limit, "P / (2N)", color="0.4", ha="right", va="bottom")
            axes.set(xscale="log", yscale="log", ylim=(2e-3, 1.5))
            axes.set(xlabel="layers $k$", ylabel=label, title=f"from {source}")
            axes.set_xticks(depths, [str(k) for k in depths])
            axes.minorticks_off()
        columns[1].legend()


def of_layer(u: Tensor, w: Tensor, b: Tensor, points: Tensor) -> Tensor:
    r"""The density that a layer makes of a standard normal one, at points ``(*, 2)``: ``(*)``.

    .. math:: q(y) = \mathcal{N}(x; 0, I) \, |1 + u \cdot \psi(x)|^{-1}, \quad x = f^{-1}(y)

    Where w·u < -1 the layer has no inverse; the density is then that of the layer with :func:`solution.invertible_u`.
    """
    u, y = invertible_u(u, w), points.reshape(-1, 2)
    x = inverse(y, u, w, b)
    return torch.exp(log_standard_normal(x) - get_logdet(x, u, w, b)).view(points.shape[:-1])


@torch.no_grad()
def layers(path: str | Path, cases: Sequence[tuple[str, Tensor, Tensor, Tensor]]) -> None:
    """A standard normal distribution before and after one layer: points and grid above, density below.

    Args:
        path: The picture.
        cases: Title, u, w and b of each layer. The first column is the plane before any, with the first's hyperplane.
    """
    draws = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    before = ("before", torch.zeros(2), *cases[0][2:])
    count = 1 + len(cases)
    with figures.figure(path, columns=count, rows=2, size=(8.4 / count, 1.55)) as panels:
        for column, (title, u, w, b) in enumerate([before, *cases]):
            above, below = panels[column], panels[count + column]
            numbers = f"$u=${vector(u)}, $b=${number(b)}\n$w=${vector(w)}, $w\\cdot u=${number(torch.dot(w, u))}"
            draw_layer(above, draws, u, w, b, title if not column else f"{title}\n{numbers}")
            show(below, of_layer(u, w, b, grid(151)).numpy(), "", top=0.16)  # a standard normal's highest is 1 / 2π
            for panel in (above, below):
                panel.tick_params(labelsize=7)
                panel.set(xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), xticks=(-4, -2, 0, 2, 4), yticks=(-4, -2, 0, 2, 4))


def bends(path: str | Path, products: Sequence[float]) -> None:
    r"""What a layer does along w, :math:`a + c \tanh a` with c = w·u, and which c the adjusted û has in its place."""
    a, c = torch.linspace(-4, 4, 401), torch.linspace(-5, 3, 801)
    with figures.figure(path, columns=2, size=(3.4, 2.6)) as (left, right):
        for product in products:
            label = f"$w\\cdot u=${number(torch.tensor(product))}"
            left.plot(a, a + product * torch.tanh(a), "--" if product < -1 else "-", label=label)
        left.set(xlabel="before, $a = w\\cdot x + b$", ylabel="after, $a + (w\\cdot u)\\,\\tanh a$", ylim=(-4, 4))
        left.legend(fontsize=8)
        adjusted = (torch.nn.functional.softplus(c) - 1)[c < -1]
        right.plot(c[c < -1], adjusted, color=figures.COLOURS[1], label="$m(w\\cdot u)$, adjusted")
        right.plot(c[c >= -1], c[c >= -1], color=figures.COLOURS[0], label="$w\\cdot u$, as it is")
        right.axhline(-1, color="0.5", linewidth=0.8, linestyle=":")
        right.set(xlabel="$w\\cdot u$ of the parameter", ylabel="$w\\cdot u$ of the map")
        right.legend(fontsize=8)


@torch.no_grad()
def data_by_depth(
    path: str | Path, source: str, flows: dict[tuple[str, int], Flow], nats: dict[tuple[str, int], float]
) -> None:
    """One picture of data by depth: a row per target, a column per k, and at its end what is left to learn against k.

    From samples the columns show the learnt density, and one more the draws of the deepest flow, made by its inverse;
    from densities they show the flow's draws. A row has one scale of colours.

    Args:
        path: The picture.
        source: What the flows learnt from: samples or density.
        flows: Name of the target and k to flow.
        nats: The same keys to the distance from the limit in nats: NLL minus entropy, or KL(q‖p). Other targets have
            none.
    """
    names, depths = list(dict.fromkeys(name for name, _ in flows)), list(dict.fromkeys(k for _, k in flows))
    from_samples = source == "samples"
    columns = 1 + len(depths) + from_samples + 1
    with figures.figure(path, columns=columns, rows=len(names), size=(8.4 / columns, 8.4 / columns + 0.25)) as panels:
        for row, name in enumerate(names):
            target, axes = TARGETS[name], iter(panels[row * columns : (row + 1) * columns])
            pictures = {f"{name}, {'data' if from_samples else 'target'}": of_target(target).numpy()}
            for k in depths:
                flow = flows[name, k]
                pictures[f"k = {k}"] = of_flow(flow, source) if from_samples else histogram(draws(flow, source))
            if from_samples:
                pictures[f"draws, k = {depths[-1]}"] = histogram(draws(flows[name, depths[-1]], source))
            top = 1.2 * float(next(iter(pictures.values())).max())
            for title, values in pictures.items():
                panel = next(axes)
                show(panel, values, title, top)
                panel.set(xticks=(-4, 0, 4), yticks=(-4, 0, 4))
            panel = next(axes)
            left = [nats[name, k] for k in depths if (name, k) in nats]
            panel.plot([k for k in depths if (name, k) in nats], left, "o-", markersize=4)
            panel.set(xscale="log", yscale="log", xlabel="layers $k$", box_aspect=1)
            panel.set_title("gap (nats)" if from_samples else "KL(q‖p) (nats)")
            panel.set_xticks(depths, [str(k) for k in depths])
            panel.set_yticks(ticks := [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5], [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
            if nats:  # one scale for all rows
                panel.set_ylim(min(nats.values()) / 1.3, max(nats.values()) * 1.3)
        for panel in panels:
            panel.title.set_fontsize(8)
            panel.tick_params(labelsize=7)
