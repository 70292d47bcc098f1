"""Pictures of planar flows: target beside model, on the same square and the same scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from data.densities import Target
from lab import figures
from solution import Flow, get_logdet, inverse, loss1, planar_transformation

SIDE = 5.0  # the axes reach from -5 to 5


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
    axes.set(title=title, aspect="equal")
    axes.grid(False)


def normalised(values: Tensor) -> Tensor:
    """Divide by the sum times the area of a cell: a density that is normalised on the square."""
    cell = (2 * SIDE / (len(values) - 1)) ** 2
    return values / (values.sum() * cell)


def histogram(points: Tensor, cells: int = 101) -> np.ndarray:
    """The density of points on the square."""
    edges = np.linspace(-SIDE, SIDE, cells)
    counts, _, _ = np.histogram2d(points[:, 1].numpy(), points[:, 0].numpy(), bins=(edges, edges))
    return counts / (len(points) * (edges[1] - edges[0]) ** 2)


@torch.no_grad()
def learned_density(path: str | Path, flow: Flow, target: Target, data: Tensor) -> None:
    """A flow learnt from samples: the data, the density it gives, and what its inverse generates from noise."""
    density = torch.exp(-loss1(*flow(grid().flatten(0, 1)))).view(grid().shape[:2])
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    top = None
    first = histogram(data)
    if target.sampler is not None:  # else the data's density is not known
        inside = (grid()[..., 0].abs() <= (target.half_width or SIDE)).float()
        first = normalised(torch.exp(-target.energy(grid())) * inside).numpy()
        top = float(first.max())
    with figures.figure(path, columns=3, size=(2.2, 2.3)) as axes:
        show(axes[0], first, "data", top)
        show(axes[1], density.numpy(), f"learnt density, k = {len(flow.layers)}", top)
        show(axes[2], histogram(flow.inverse(noise)), "generated", top)


@torch.no_grad()
def samples(path: str | Path, flow: Flow, target: Target) -> None:
    """A flow learnt from a density: the target, and samples of the flow."""
    density = normalised(torch.exp(-target.energy(grid()))).numpy()
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    with figures.figure(path, columns=2, size=(2.2, 2.3)) as axes:
        show(axes[0], density, "target", float(density.max()))
        show(axes[1], histogram(flow(noise)[0]), f"samples, k = {len(flow.layers)}", float(density.max()))


@torch.no_grad()
def transformations(path: str | Path, cases: Sequence[tuple[str, Tensor, Tensor, Tensor]]) -> None:
    """What one layer does to a grid of points and to a normal density, for several u, w and b."""
    lines = torch.linspace(-3, 3, 25)
    with figures.figure(path, columns=len(cases), size=(2.1, 2.2)) as columns:
        for axes, (title, u, w, b) in zip(columns, cases, strict=True):
            source = inverse(grid().flatten(0, 1), u, w, b)
            log_normal = -0.5 * source.square().sum(-1)
            density = torch.exp(log_normal - get_logdet(source, u, w, b).squeeze(-1)).view(grid().shape[:2])
            show(axes, density.numpy(), title)
            for at in lines:
                for line in (
                    torch.stack([lines, at.expand_as(lines)], 1),
                    torch.stack([at.expand_as(lines), lines], 1),
                ):
                    moved = planar_transformation(line, u, w, b)
                    axes.plot(moved[:, 0], moved[:, 1], color="white", linewidth=0.3)
            axes.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE))


def depth(path: Path, settings: Sequence[dict[str, Any]], tuned: dict[str, Any]) -> None:
    """What is left to the limit over the depth: each seed a point, their mean a line; tuned flows as crosses.

    From samples there is a second limit, that of a finite data set.
    """
    with figures.figure(path, columns=2) as columns:
        for axes, (source, key, label) in zip(
            columns, [("samples", "gap", "NLL - entropy (nats)"), ("density", "kl", "KL(q‖p) (nats)")], strict=True
        ):
            for name, colour in zip(dict.fromkeys(s["data"] for s in settings), figures.COLOURS, strict=False):
                rows = [s for s in settings if (s["source"], s["data"]) == (source, name)]
                depths = [row["num_layers"] for row in rows]
                axes.plot(depths, [row[key]["mean"] for row in rows], color=colour, label=name)
                for row in rows:
                    axes.plot(
                        [row["num_layers"]] * len(row[key]["values"]), row[key]["values"], ".", color=colour, ms=4
                    )
                for row in tuned["settings"]["tuned"]:
                    if (row["source"], row["data"]) == (source, name):
                        mark: dict[str, Any] = {"color": colour, "ms": 7, "mew": 1.5, "label": f"{name}, tuned"}
                        axes.plot(row["num_layers"], row[key]["mean"], "x", **mark)
            if source == "samples":
                of_data = f"limit of {tuned['points']} points"
                axes.axhline(tuned["limit_of_the_data"], color="0.5", linewidth=0.8, linestyle=":", label=of_data)
            axes.set(xscale="log", yscale="log", ylim=(5e-3, 1.5))
            axes.set(xlabel="layers $k$", ylabel=label, title=f"from {source}")
            axes.set_xticks(depths, [str(k) for k in depths])
            axes.minorticks_off()
            axes.legend()
