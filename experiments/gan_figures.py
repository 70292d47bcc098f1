"""The pictures of the study of question 2.7."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torchvision.utils import make_grid

from lab import figures
from lab.figures import captioned
from question2 import image_plots
from question2.configurations import Run
from question2.images import Images

CURVES = ("curve", "trained_curve")  # of the distance: of the averaged generator, and of the trained one


def draw_study(folder: Path, summary: dict[str, Any]) -> None:
    """The figures of the study's numbers."""
    name, rows = summary["scores"]["fid"], summary["configurations"]
    caption = f"Metric and distance {name} over training: averaged and trained generators of each configuration."
    draw_curves(captioned(folder / "gan_curves.svg", caption), rows, name)
    caption = "The critic's mean at held-out real images and at generated ones over training, and their difference."
    draw_critics(captioned(folder / "gan_critics.svg", caption), rows)
    caption = f"Distance {name} over training in several widths, with R1."
    draw_widths(captioned(folder / "gan_widths.svg", caption), summary["widths"], name)
    caption = f"How the distance {name} rises with known damage to real images."
    draw_corruptions(captioned(folder / "gan_corruptions.svg", caption), summary["corruptions"], name)


def draw_images(folder: Path, runs: Sequence[Run], images: Images) -> None:
    """What the first seed of each configuration generates, over training and at the end, and real images."""
    some = torch.randperm(len(images.test), generator=torch.Generator().manual_seed(0))[:64]
    grids = {"real": make_grid(images.test.cpu()[some], nrow=8)}
    for one in (one for one in runs if one.hp.seed == runs[0].hp.seed):
        caption = f"{one.name}: images of the same noise over training, one row for each update."
        image_plots.save_sheet(captioned(folder / f"gan_sheet_{one.name}.jpg", caption), one.folder)
        grids[one.name] = image_plots.read_grid(one.folder / f"samples_{one.hp.max_iters:06}.png")
    for name, grid in grids.items():
        caption = "Real images, held out of training." if name == "real" else f"{name}: images after training."
        path = captioned(folder / f"gan_samples_{name}.jpg", caption)
        figures.photograph(path, grid[None], columns=1, padding=0)


def draw_curves(path: Path, rows: Sequence[dict[str, Any]], name: str) -> None:
    """A panel for each configuration, and where there are several, one with all distances, which share their axis."""
    rows = sorted(rows, key=lambda row: row["loss"])
    panels = len(rows) + (len(rows) > 1)
    columns = min(3, panels)
    size = (figures.WIDTH / max(2, columns), 1.85)
    updates = max(step for row in rows for run in row["runs"] for step, _ in run["metric"])
    with figures.figure(path, columns=columns, rows=-(-panels // columns), size=size) as places:
        for i, (axes, row) in enumerate(zip(places, rows, strict=False)):
            draw_configuration(axes, row, rows, name, first=i % columns == 0, last=i % columns == columns - 1)
        for axes in places[len(rows) : panels]:
            draw_distances(axes, rows, name)
        for axes in places[panels:]:
            axes.set_visible(False)
        for axes in places:
            axes.set_xlabel("")
            axes.set_xlim(0, updates)
            axes.xaxis.set_major_locator(MaxNLocator(2, steps=[5, 10]))
        places[0].figure.supxlabel("generator updates")


def draw_configuration(
    axes: Axes, row: dict[str, Any], rows: Sequence[dict[str, Any]], name: str, first: bool, last: bool
) -> None:
    """The metric and the distances of a configuration's runs, on axes that hold those of all ``rows``."""
    curves = [
        image_plots.Curves(run["metric"], *([line[:2] for line in run[key]] for key in CURVES)) for run in row["runs"]
    ]
    right = image_plots.draw_curves(axes, curves, row["loss"], name)
    share_distances(right, rows)
    alike = [run for other in rows if other["loss"] == row["loss"] for run in other["runs"]]
    metric = [value for run in alike for _, value in run["metric"]]
    if min(metric) > 0:
        figures.logarithmic(axes, metric)
        axes.set_ylim(0.85 * min(metric), 1.15 * max(metric))
    axes.set_title(row["name"])
    if not first:
        axes.set_ylabel("")
    if not last:
        right.set_ylabel("")


def share_distances(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Make the y axis one for the distances of all ``rows``, logarithmic."""
    distances = [line[1] for row in rows for run in row["runs"] for key in CURVES for line in run[key]]
    figures.logarithmic(axes, distances)
    axes.set_ylim(0.8 * min(distances), 1.1 * max(distances))


def draw_distances(axes: Axes, rows: Sequence[dict[str, Any]], name: str) -> None:
    """The distances of all averaged generators over training, of the first seed."""
    colours = ["black", *figures.COLOURS[2:4], figures.COLOURS[5], "0.5"]  # not the metric's, nor the distance's
    dashings = ["-", "--", ":", "-.", (0, (8, 2))]
    for row, colour, dashes in zip(rows, cycle(colours), cycle(dashings)):
        steps, distances, _ = zip(*row["runs"][0]["curve"], strict=True)
        axes.plot(steps, distances, linestyle=dashes, color=colour, label=row["name"].removeprefix("cifar10-"))
    share_distances(axes, rows)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.spines["left"].set_visible(False)
    axes.spines["right"].set_visible(True)
    axes.set(title="all averages", xlabel="generator updates", ylabel=name)
    axes.legend(ncols=2, loc="upper right", handlelength=1.4, columnspacing=0.6, borderaxespad=0)


def draw_critics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The critic's mean value at held-out real images and at generated ones over training, and their difference."""
    size = (figures.WIDTH / len(rows), 1.6)
    with figures.figure(path, columns=len(rows), rows=2, size=size, sharex="col") as places:
        upper, lower = places[: len(rows)], places[len(rows) :]
        for means, difference, row in zip(upper, lower, rows, strict=True):
            steps, real, fake = np.array(row["runs"][0]["critic"]).T
            means.plot(steps, real, color=figures.COLOURS[2], label="real")
            means.plot(steps, fake, "--", color=figures.COLOURS[3], label="generated")
            means.set_title(row["name"].removeprefix("cifar10-"))
            difference.axhline(0, color="grey", linewidth=0.6)
            difference.plot(steps, real - fake, color="black")
            for axes in (means, difference):
                axes.xaxis.set_major_locator(MaxNLocator(2, prune="upper"))
                axes.yaxis.set_major_locator(MaxNLocator(4))
        upper[0].set_ylabel("critic's mean")
        lower[0].set_ylabel("difference")
        drawing = upper[0].figure
        drawing.supxlabel("generator updates")
        drawing.legend(*upper[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, borderaxespad=0)


def draw_widths(path: Path, rows: Sequence[dict[str, Any]], name: str) -> None:
    """The averaged generators' distances over training by width, a panel a configuration; later seeds are pale."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    widths = sorted({row["width"] for row in rows})
    with figures.figure(path, columns=len(names), size=(figures.WIDTH / len(names), 2.0)) as columns:
        for axes, configuration in zip(columns, names, strict=True):
            for width, colour, dashes in zip(widths, cycle(figures.COLOURS), cycle(figures.DASHES)):
                runs = [row for row in rows if (row["name"], row["width"]) == (configuration, width)]
                for i, run in enumerate(runs):
                    style: Any = {"alpha": 0.3} if i else {"label": f"width {width}"}
                    axes.plot(*zip(*run["curve"], strict=True), ls=dashes, color=colour, **style)
            figures.logarithmic(axes, [distance for row in rows for _, distance in row["curve"]])
            axes.set(title=configuration, xlabel="generator updates")
            axes.legend()
        columns[0].set_ylabel(name)


UNITS = {
    "noise": "deviation, of 255",
    "blur": "width in pixels",
    "missing classes": "missing, of 10",
    "memorised subset": "copies of each",
}


def draw_corruptions(path: Path, rows: Sequence[dict[str, Any]], name: str) -> None:
    """The distance over the strength of each kind of damage."""
    with figures.figure(path, columns=len(rows), size=(figures.WIDTH / len(rows), 1.6)) as columns:
        for axes, row in zip(columns, rows, strict=True):
            axes.plot(row["strengths"], row["distances"], marker="o", markersize=3)
            axes.set(title=row["kind"], xlabel=UNITS[row["kind"]])
            if row["kind"] == "memorised subset":
                axes.set_xscale("log")
                axes.set_xticks(row["strengths"], row["strengths"])
                axes.minorticks_off()
            axes.set_ylim(bottom=0)
        columns[0].set_ylabel(name)
