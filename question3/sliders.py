"""Sliders for one planar layer: points, grid and density redraw as u, w and b move (question 3.2)."""

import base64
import io
from typing import Any

import ipywidgets as widgets
import matplotlib as mpl
import torch
from IPython.display import display
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from lab import figures
from question3.plots import grid, hyperplane, layer_density, points_and_lines, show
from solution import invertible_u, planar_transformation

REACH = 4.5  # the axes reach from -4.5 to 4.5
# Name and range of each slider, and where it begins.
RANGES = {"u₁": (-3, 3, 2.0), "u₂": (-3, 3, 0.0), "w₁": (-3, 3, 2.0), "w₂": (-3, 3, 0.0), "b": (-4, 4, 0.0)}


@torch.no_grad()
def picture(u: Tensor, w: Tensor, b: Tensor) -> bytes:
    """Points, a square grid and the density after a layer with parameters u, w ``(2,)`` and b, a scalar, as a PNG.

    Where w·u < -1 the layer is drawn with the adjusted û, as a flow uses it.
    """
    adjusted, (draws, lines) = invertible_u(u, w), points_and_lines()
    product, used = torch.dot(w, u), torch.dot(w, adjusted)
    heading = f"$w\\cdot u={product.round(decimals=2):g}$"
    if product < -1:
        heading += f", not invertible: drawn with $\\hat u$, $w\\cdot\\hat u={used.round(decimals=2):g}$"
    with mpl.rc_context(figures.STYLE):
        drawing = Figure(figsize=(11.0, 3.9), dpi=100)
        points, squares, density = drawing.subplots(1, 3)
        drawing.subplots_adjust(left=0.03, right=0.99, bottom=0.07, top=0.84, wspace=0.12)
        drawing.text(0.5, 0.95, heading, ha="center", va="center", fontsize=11)
        after, side = planar_transformation(draws, adjusted, w, b), draws @ w + b > 0
        for mask, colour in zip((side, ~side), figures.COLOURS, strict=False):
            points.plot(*after[mask].T, ".", color=colour, markersize=2)
        moved = planar_transformation(lines.view(-1, 2), adjusted, w, b).view(lines.shape)
        squares.add_collection(LineCollection(list(moved.numpy()), colors="0.4", linewidths=0.6))
        show(density, layer_density(u, w, b, grid(101)).numpy(), "", Normalize(0, 0.16))  # the normal's peak is 1 / 2π
        for axes in (points, squares):
            axes.plot(*hyperplane(w, b).T, "--", color="black", linewidth=1)
        for axes, title in ((points, "points"), (squares, "a square grid"), (density, "density")):
            axes.set(title=title, xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
            axes.grid(visible=False)
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})  # small enough, and soon
    return buffer.getvalue()


def layer_sliders() -> widgets.VBox:
    """Five sliders above the picture of their layer; ``children[1].value`` is the PNG."""
    moving = {
        name: widgets.FloatSlider(
            value=start, min=low, max=high, step=0.1, description=name, readout_format=".1f",
            layout=widgets.Layout(width="215px"), style={"description_width": "20px"},
        )
        for name, (low, high, start) in RANGES.items()
    }  # fmt: skip
    image = widgets.Image(format="png", width=1100)

    def redraw(*_: Any) -> None:
        u1, u2, w1, w2, b = (slider.value for slider in moving.values())
        image.value = picture(torch.tensor([u1, u2]), torch.tensor([w1, w2]), torch.tensor(b))

    for slider in moving.values():
        slider.observe(redraw, "value")
    redraw()
    return widgets.VBox([widgets.HBox(list(moving.values())), image])


def show_sliders(box: widgets.VBox) -> None:
    """Display sliders, and in the same output their picture as it is now, for pages that run nothing."""
    bundle = {
        "application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": box.model_id},
        "image/png": base64.b64encode(box.children[1].value).decode(),
        "text/plain": "sliders of one planar layer",
    }
    display(bundle, raw=True, metadata={"image/png": {"width": 1100}})
