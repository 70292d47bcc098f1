"""The figures' common style, and grids of images. Files are written atomically."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid, save_image

from lab.files import atomic_write

logging.getLogger("fontTools").setLevel(logging.ERROR)  # Computer Modern's files have odd dates, it says in each PDF

# In inches: the text width of the report, and half of it. Figures are drawn at the width at which they are shown, so
# letters are as large on paper as in STYLE.
WIDTH, HALF = 6.37, 3.12
# Okabe and Ito's colours, which colour-blind readers can tell apart. In grey only the last two are lighter than the
# others, so lines that share axes differ in their dashes or marks too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
DASHES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
SIZE = 8.5  # of all letters, in points
STYLE: Any = {
    # The report's typeface, Computer Modern; it lacks some signs, which the second font has.
    "font.family": ["cmr10", "DejaVu Serif"],
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "figure.titlesize": SIZE,
    "figure.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "mathtext.fontset": "cm",
    "axes.formatter.use_mathtext": True,  # for the minus signs
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # letters stay letters
    "svg.hashsalt": "figures",  # the same picture is the same file
    "savefig.dpi": 200,
}
JPEG = {"quality": 90, "subsampling": 0}  # colour subsampling would blur thin letters and small images
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
    ".jpg": {"pil_kwargs": JPEG},
    ".png": {"pil_kwargs": {"optimize": True}},
}


@contextmanager
def figure(
    path: str | Path, columns: int = 1, size: tuple[float, float] = (HALF, 2.2), rows: int = 1, **options: Any
) -> Iterator[Sequence[Axes]]:
    """Axes side by side, row by row, saved to ``path`` when the block ends.

    ``size`` is of one of them, in inches; columns of ``WIDTH / columns`` fill the page. ``options`` are those of
    ``matplotlib.pyplot.subplots``.
    """
    with mpl.rc_context(STYLE):
        shape = (size[0] * columns, size[1] * rows)
        drawing = Figure(figsize=shape, layout="constrained")
        yield list(drawing.subplots(rows, columns, squeeze=False, **options).flat)
        save(drawing, path)


def captioned(path: Path, caption: str) -> Path:
    """Write a figure's caption as ``NAME.txt`` beside its place, and return the place.

    A figure with a caption is one to show: it is saved as PNG too, and a drawing as PDF, which LaTeX takes.
    """
    _write(path.with_suffix(".txt"), lambda file: file.write_text(f"{caption}\n", encoding="utf-8"))
    return path


def _write(path: str | Path, write: Callable[[Path], Any], *formats: str) -> None:
    """Write a file, and where it has a caption the same in other formats, in a folder that is made if missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in dict.fromkeys([path.suffix, *(formats if path.with_suffix(".txt").exists() else ())]):
        with atomic_write(path.with_suffix(suffix)) as temporary:
            write(temporary)


def save(drawing: Figure, path: str | Path) -> None:
    """Write a drawing in the format of the path's suffix."""
    _write(path, lambda file: drawing.savefig(file, **SAVE_OPTIONS.get(file.suffix, {})), ".png", ".pdf")


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Make the y axis logarithmic for positive values, with more labels per decade the fewer decades there are."""
    axes.set_yscale("log")
    decades = math.log10(max(values) / min(values))
    digits = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=digits, numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def colour_bar(axes: Sequence[Axes], label: str, **options: Any) -> Colorbar:
    """The colour scale that the images in some axes share, beside them.

    An arrow at its top says that some values are higher.
    """
    images = [image for panel in axes for image in panel.images]
    clipped = any(np.asarray(image.get_array()).max() > image.norm.vmax for image in images)
    options = {"extend": "max" if clipped else "neither", "aspect": 30, "pad": 0.02, **options}
    options.setdefault("ticks", MaxNLocator(5))  # a number that the bar's final size does not change
    bar = axes[0].figure.colorbar(images[-1], ax=axes, label=label, **options)
    bar.outline.set_visible(False)  # type: ignore[operator]  # the stubs have a Spine for a Patch
    return bar


def image_grid(path: str | Path, images: Tensor, columns: int, scale: int = 3) -> None:
    """Save square images ``(N, D)`` with values in [0, 1] as a grid, dark ink on white, enlarged without smoothing."""
    side = math.isqrt(images.shape[1])
    grid = make_grid(images.detach().cpu().float().view(-1, 1, side, side), nrow=columns, padding=1)
    _write(path, lambda file: save_image(interpolate(1 - grid[None], scale_factor=scale), file), ".png")


def photograph(path: str | Path, images: Tensor, columns: int, padding: int = 2) -> None:
    """Save colour images ``(N, 3, H, W)`` of bytes as a JPEG grid, a third of a PNG's size."""
    grid = make_grid(images.cpu(), nrow=columns, padding=padding, pad_value=255)
    _write(path, lambda file: to_pil_image(grid).save(file, **JPEG), ".png")
