"""Pictures of image runs: metric and distance over training, and images of the same noise over training."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

from lab import figures

Curve = Sequence[tuple[int, float]]  # generator update, value


class Curves(NamedTuple):
    """The metric of a run, and the distance of the averaged generator's images and of the trained one's."""

    metric: Curve
    averaged: Curve
    trained: Curve


def curves_of(lines: Iterable[dict[str, Any]], distance: str) -> Curves:
    """The curves in the lines of a run's ``metrics.jsonl``, with the distance of a key such as ``FID``.

    A distance's bias depends on the number of samples. The last evaluation uses another number and is left out.
    """
    lines = list(lines)
    samples = next((line["samples"] for line in lines if "samples" in line), None)
    lines = [line for line in lines if line.get("samples", samples) == samples]
    keys = "metric", distance, f"{distance}_trained"
    return Curves(*([(line["step"], line[key]) for line in lines if key in line] for key in keys))


def draw_curves(axes: Axes, runs: Sequence[Curves], loss: str, distance: str) -> Axes:
    """Draw the metric; on axes that are returned, the distances of the averaged generator (dots) and the trained one.

    Runs after the first are pale. The metric can fall by orders of magnitude, and small rises at the end matter, so its
    axis is logarithmic if all values are positive.
    """
    right = axes.twinx()
    for i, run in enumerate(runs):
        alpha = 0.45 if i else 1.0
        for place, curve, line, colour, width in (
            (axes, run.metric, "-", figures.COLOURS[0], 0.8),
            (right, run.averaged, ".-", figures.COLOURS[1], 1.2),
            (right, run.trained, ":", figures.COLOURS[1], 1.2),
        ):
            if curve:
                place.plot(*zip(*curve, strict=True), line, color=colour, linewidth=width, alpha=alpha, markersize=4)
    values = [value for run in runs for _, value in run.metric]
    if values and min(values) > 0:
        figures.logarithmic(axes, values)
    if loss == "JSD":
        shown = axes.get_ylim()
        axes.axhline(math.log(2), color="grey", linestyle=":", linewidth=0.8)  # its upper bound
        axes.set_ylim(shown)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("generator updates")
    axes.set_ylabel(f"metric ({loss})", color=figures.COLOURS[0])
    right.set_ylabel(distance, color=figures.COLOURS[1])
    right.spines["right"].set_visible(True)
    right.set_ylim(bottom=0)
    right.grid(False)
    return right


def progress(folder: Path, title: str, curves: Curves, loss: str, distance: str, updates: int) -> Figure:
    """A run in progress: the latest of the grids of images in its folder, and the curves so far.

    ``loss`` and ``distance`` name metric and distance; ``updates`` are those of the whole run.
    """
    grids = sorted(folder.glob("samples_*.png"))
    with mpl.rc_context(figures.STYLE):
        picture = Figure(figsize=(8.5, 3.3), layout="constrained")
        left, right = picture.subplots(1, 2, width_ratios=[1, 1.5])
        left.set_axis_off()
        if grids:
            left.imshow(read_grid(grids[-1]).permute(1, 2, 0).numpy(), interpolation="nearest")
            left.set_title(f"after {step_of(grids[-1]):,} updates")
        draw_curves(right, [curves], loss, distance)
        right.set(title=title, xlim=(0, updates))
    return picture


def draw_sheet(axes: Axes, folder: Path, columns: int = 20) -> None:
    """Draw images of the same noise during training, a row per update, from the grids in a run's folder."""
    grids = {step_of(grid): grid for grid in folder.glob("samples_*.png")}
    rows = sheet_steps(sorted(grids))
    shown = torch.cat([tiles(read_grid(grids[step]))[:columns] for step in rows])
    picture = make_grid(shown, nrow=columns, padding=0).permute(1, 2, 0).numpy()
    axes.imshow(picture, interpolation="bicubic")  # sharp pixel edges would make a JPEG large
    axes.set_yticks([32 * (i + 0.5) for i in range(len(rows))], [f"{step:,}" for step in rows])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def save_sheet(path: str | Path, folder: Path, columns: int = 20) -> None:
    """Save the picture of :func:`draw_sheet`."""
    rows = len(sheet_steps(sorted(map(step_of, folder.glob("samples_*.png")))))
    with figures.figure(path, size=(figures.WIDTH, 0.95 * figures.WIDTH * rows / columns)) as (axes,):
        draw_sheet(axes, folder, columns)


def step_of(grid: Path) -> int:
    """The update in the name of a grid of images, ``samples_UPDATE.png``."""
    return int(grid.stem.split("_")[1])


def sheet_steps(steps: Sequence[int]) -> list[int]:
    """Choose the updates nearest below 1, 2 and 5 times the powers of ten, and the last.

    Example:
        >>> sheet_steps(range(500, 10_001, 500))
        [500, 1000, 2000, 5000, 10000]
    """
    wanted = [factor * 10**power for power in range(1, 7) for factor in (1, 2, 5)]
    chosen = {max((step for step in steps if step <= limit), default=steps[0]) for limit in wanted}
    return sorted(chosen | {steps[-1]})


def read_grid(path: Path) -> Tensor:
    """A grid of images, uint8, ``(3, H, W)``."""
    return pil_to_tensor(Image.open(path).convert("RGB"))


def tiles(grid: Tensor, side: int = 32, padding: int = 2) -> Tensor:
    """The images ``(N, 3, side, side)`` of a grid that ``save_image`` made."""
    inside, period = grid[:, padding:, padding:], side + padding
    return inside.unfold(1, side, period).unfold(2, side, period).flatten(1, 2).transpose(0, 1)
