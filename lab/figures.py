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
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image, ImageSequence
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid, save_image

from lab.files import atomic_write

# In inches: the text of the report's page, and a half of it. A picture is drawn at the width at which it is shown, so
# that its type is as large on paper as it is here.
WIDTH, HALF = 6.37, 3.12
# Okabe and Ito's colours, told apart by every kind of eye. In grey only the last two are lighter than the others, so
# lines that share axes differ in their dashes or marks too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
DASHES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
SIZE = 8  # of all type, in points
STYLE: Any = {
    "font.family": "serif",
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "figure.titlesize": SIZE,
    "figure.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
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
    "savefig.dpi": 200,
}
JPEG = {"quality": 90, "subsampling": 0}  # without subsampling, for thin letters and small images keep their colours


@contextmanager
def figure(
    path: str | Path,
    columns: int = 1,
    size: tuple[float, float] = (HALF, 2.2),
    rows: int = 1,
    colours: int = 256,
    **options: Any,
) -> Iterator[Sequence[Axes]]:
    """Axes side by side, row by row, saved to ``path`` when the block ends.

    Args:
        path: The picture; its ending says of what kind it is.
        columns: How many axes side by side.
        size: Of one of them, in inches. Columns of ``WIDTH / columns`` fill the page.
        rows: How many rows of them.
        colours: How many of them a PNG has.
        options: For ``matplotlib.pyplot.subplots``.
    """
    with mpl.rc_context(STYLE):
        shape = (size[0] * columns, size[1] * rows)
        drawing, axes = plt.subplots(rows, columns, figsize=shape, layout="constrained", squeeze=False, **options)
        try:
            yield list(axes.flat)
            save(drawing, path, colours)
        finally:
            plt.close(drawing)


def save(drawing: Figure, path: str | Path, colours: int = 256) -> None:
    """Write a drawing: lines and letters as such in SVG; in PNG as pixels of few colours, which are half of the bytes.

    A colour map has 256 of them, lines and letters need fewer.
    """
    options: dict[str, dict[str, Any]] = {".svg": {"metadata": {"Date": None}}, ".jpg": {"pil_kwargs": JPEG}}
    with atomic_write(path) as temporary:
        drawing.savefig(temporary, **options.get(temporary.suffix, {}))
        if temporary.suffix == ".png":
            temporary.write_bytes(compact(temporary, colours))


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Make the y axis logarithmic for positive values, labelled with as many numbers as their range needs."""
    axes.set_yscale("log")
    decades = math.log10(max(values) / min(values))
    digits = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=digits, numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def colour_bar(axes: Sequence[Axes], label: str, **options: Any) -> Colorbar:
    """What the colours of the last axes' image mean, beside all of them."""
    bar = axes[0].figure.colorbar(axes[-1].images[-1], ax=axes, label=label, aspect=30, pad=0.02, **options)
    bar.outline.set_visible(False)  # type: ignore[operator]  # the stubs have a Spine for a Patch
    return bar


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
            buffer, "PNG", optimize=True, dpi=picture.info.get("dpi", (72, 72))
        )
    return buffer.getvalue()


def photograph(path: str | Path, images: Tensor, columns: int, padding: int = 2) -> None:
    """Save colour images ``(N, 3, H, W)`` of bytes as a grid, in JPEG: a third of PNG's size, and the same to the eye.

    Raises:
        ValueError: The path does not end in .jpg.
    """
    if Path(path).suffix != ".jpg":
        raise ValueError(f"a photograph is a .jpg file, not {Path(path).name}")
    grid = make_grid(images.cpu(), nrow=columns, padding=padding, pad_value=255)
    with atomic_write(path) as temporary:
        to_pil_image(grid).save(temporary, **JPEG)


def compact_film(path: str | Path, colours: int = 32) -> bytes:
    """A film of a drawing as a GIF of one palette for all frames, so that what stays the same takes no room."""
    buffer = io.BytesIO()
    with Image.open(path) as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        palette = frames[-1].quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=2)
        first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
        first.save(
            buffer, "GIF", save_all=True, append_images=others, duration=film.info["duration"], loop=0, optimize=True
        )
    return buffer.getvalue()
