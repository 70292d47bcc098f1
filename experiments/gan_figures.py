"""The pictures of the study of question 2.7."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments import gan_samples
from lab import figures
from lab.figures import captioned
from question2 import image_plots
from question2.configurations import Run
from question2.images import Images


def draw_study(folder: Path, summary: dict[str, Any]) -> None:
    """The figures of the study's numbers."""
    name, rows = summary["scores"]["fid"], summary["configurations"]
    caption = f"Metric and distance {name} over training: averaged and trained generators of each configuration."
    draw_curves(captioned(folder / "gan_curves.svg", caption), rows, name, summary["anchors"])
    caption = "The critic's mean at held-out real images and at generated ones over training, and their difference."
    draw_critics(captioned(folder / "gan_critics.svg", caption), rows)
    caption = f"Distance {name} over training in several widths, with R1."
    draw_widths(captioned(folder / "gan_widths.svg", caption), summary["widths"], name)
    caption = f"How the distance {name} rises with known damage to real images."
    path = captioned(folder / "gan_corruptions.svg", caption)
    gan_samples.draw_corruptions(path, summary["corruptions"], name)


def draw_images(folder: Path, runs: Sequence[Run], images: Images) -> None:
    """What the first seed of each configuration generates, over training and at the end, and real images."""
    for one in (one for one in runs if one.hp.seed == runs[0].hp.seed):
        caption = f"{one.name}: images of the same noise over training, one row for each update."
        image_plots.save_sheet(captioned(folder / f"gan_sheet_{one.name}.jpg", caption), one.folder)
        last = image_plots.read_grid(one.folder / f"samples_{one.hp.max_iters:06}.png")
        path = captioned(folder / f"gan_samples_{one.name}.jpg", f"{one.name}: generated images after training.")
        figures.photograph(path, last[None], columns=1, padding=0)
    gan_samples.draw_real(captioned(folder / "gan_samples_real.jpg", "Real images, held out of training."), images)


def draw_curves(path: Path, rows: Sequence[dict[str, Any]], name: str, anchors: Sequence[dict[str, Any]] = ()) -> None:
    """A panel for each configuration, and where there are sets to place them between, one with all distances."""
    panels = len(rows) + bool(anchors)
    columns = min(2, panels)
    size = (figures.WIDTH / 2, 1.85)
    with figures.figure(path, columns=columns, rows=-(-panels // columns), size=size) as places:
        for axes, row in zip(places, rows, strict=False):
            curves = [
                image_plots.Curves(
                    run["metric"], *([line[:2] for line in run[key]] for key in ("curve", "trained_curve"))
                )
                for run in row["runs"]
            ]
            image_plots.draw_curves(axes, curves, row["loss"], name)
            axes.set_title(row["name"])
        if anchors:
            draw_distances(places[len(rows)], rows, anchors, name)
        for axes in places[panels:]:
            axes.set_visible(False)


def draw_distances(axes: Axes, rows: Sequence[dict[str, Any]], anchors: Sequence[dict[str, Any]], name: str) -> None:
    """The distances of all averaged generators over training, between those of sets that everybody knows.

    In other colours than the metric's and the distance's, since here a colour is a configuration. A set far below all
    generators is named at the foot.
    """
    colours = ["black", *figures.COLOURS[2:4], figures.COLOURS[5], "0.5"]
    dashings = ["-", "--", ":", "-.", (0, (8, 2))]
    for row, colour, dashes in zip(rows, cycle(colours), cycle(dashings)):
        steps, fids, _ = zip(*row["runs"][0]["curve"], strict=True)
        axes.plot(steps, fids, linestyle=dashes, color=colour, label=row["name"].removeprefix("cifar10-"))
    lowest = 0.5 * min(fid for row in rows for _, fid, _ in row["runs"][0]["curve"])
    for anchor in anchors:
        if anchor["name"] != "training images":  # which lie where the held-out ones do
            place = max(anchor["FID"], lowest)
            axes.axhline(place, color="black", linewidth=0.6)
            axes.text(steps[-1], place, f"{anchor['name']}: {anchor['FID']:.2g}", ha="right", va="bottom")
    figures.logarithmic(axes, (lowest, max(anchor["FID"] for anchor in anchors)))
    axes.set_ylim(lowest, 2 * max(anchor["FID"] for anchor in anchors))
    axes.set(title="all of them", xlabel="generator updates", ylabel=name)
    axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.5)


def draw_critics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The critic's mean value at held-out real images and at generated ones over training, and their difference."""
    size = (figures.WIDTH / len(rows), 1.6)
    with figures.figure(path, columns=len(rows), rows=2, size=size) as places:
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
            means.tick_params(labelbottom=False)
        upper[0].set_ylabel("critic's mean")
        lower[0].set_ylabel("difference")
        drawing = upper[0].figure
        drawing.supxlabel("generator updates")
        handles = upper[0].get_legend_handles_labels()
        drawing.legend(*handles, loc="outside upper right", ncols=2, borderaxespad=0)


def draw_widths(path: Path, rows: Sequence[dict[str, Any]], name: str) -> None:
    """The averaged generators' distances over training in several widths, a panel for each configuration.

    Seeds after the first of a width are pale.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    widths = sorted({row["width"] for row in rows})
    with figures.figure(path, columns=len(names), size=(figures.WIDTH / len(names), 2.0)) as columns:
        for axes, configuration in zip(columns, names, strict=True):
            for width, colour, dashes in zip(widths, cycle(figures.COLOURS), cycle(figures.DASHES)):
                runs = [row for row in rows if (row["name"], row["width"]) == (configuration, width)]
                for i, run in enumerate(runs):
                    label = None if i else f"width {width}"
                    alpha = 0.3 if i else 1.0
                    axes.plot(*zip(*run["curve"], strict=True), ls=dashes, color=colour, alpha=alpha, label=label)
            figures.logarithmic(axes, [distance for row in rows for _, distance in row["curve"]])
            axes.set(title=configuration, xlabel="generator updates")
            axes.legend()
        columns[0].set_ylabel(name)
