"""The figures' common look, and pictures of images. Writers keep nothing half-written."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from cycler import cycler
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid, save_image

from lab.checkpoint import atomic_write

# Okabe and Ito's colours, told apart by every kind of eye.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
STYLE: Any = {
    "font.family": "serif",
    "font.size": 9,
    "mathtext.fontset": "dejavuserif",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "svg.fonttype": "path",
    "svg.hashsalt": "figures",  # the same picture is the same file
}


@contextmanager
def figure(
    path: str | Path, columns: int = 1, size: tuple[float, float] = (3.2, 2.3), rows: int = 1
) -> Iterator[Sequence[Axes]]:
    """Axes side by side, row by row, saved to ``path`` when the block ends; ``size`` is that of one, in inches."""
    with mpl.rc_context(STYLE):
        drawing, axes = plt.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False
        )
        try:
            yield list(axes.flat)
            with atomic_write(path) as temporary:
                drawing.savefig(temporary, dpi=200, metadata={"Date": None} if temporary.suffix == ".svg" else None)
        finally:
            plt.close(drawing)


def image_grid(path: str | Path, images: Tensor, columns: int, scale: int = 3) -> None:
    """Save square images ``(N, D)`` with values in [0, 1] as a grid, dark ink on white, enlarged without smoothing.

    Raises:
        ValueError: D is no square.
    """
    side = math.isqrt(images.shape[1])
    if side**2 != images.shape[1]:
        raise ValueError(f"{images.shape[1]} pixels make no square image")
    grid = make_grid(images.detach().cpu().float().view(-1, 1, side, side), nrow=columns, padding=1)
    enlarged = torch.repeat_interleave(torch.repeat_interleave(1 - grid, scale, dim=1), scale, dim=2)
    with atomic_write(path) as temporary:
        save_image(enlarged, temporary)


def compact(path: str | Path, colours: int = 128) -> bytes:
    """A drawing as a PNG of so few colours that it takes a third of the room or less."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(
            buffer, "PNG", optimize=True
        )
    return buffer.getvalue()
