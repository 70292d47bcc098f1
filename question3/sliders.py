"""Sliders for one planar layer: points, grid and density redraw as u, w and b move (question 3.2)."""

import base64
import io
from typing import Any

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
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


class LayerPicture:
    """A picture of one layer that is drawn once and then only updated, which takes a few hundredths of a second.

    Where w·u < -1 the layer is drawn with the adjusted û, as a flow uses it.
    """

    def __init__(self) -> None:
        self.draws, self.lines = points_and_lines()
        with mpl.rc_context(figures.STYLE):
            self.figure = Figure(figsize=(11.0, 3.9), dpi=100)
            FigureCanvasAgg(self.figure)
            points, squares, density = self.figure.subplots(1, 3)
            self.figure.subplots_adjust(left=0.03, right=0.99, bottom=0.07, top=0.84, wspace=0.12)
            self.sides = [points.plot([], [], ".", color=colour, markersize=2)[0] for colour in figures.COLOURS[:2]]
            self.bend = [axes.plot([], [], "--", color="black", linewidth=1)[0] for axes in (points, squares)]
            self.squares = LineCollection([], colors="0.4", linewidths=0.6)
            squares.add_collection(self.squares)
            show(density, np.zeros((101, 101)), "", Normalize(0, 0.16))  # a standard normal's peak is 1 / 2π
            self.density = density.images[0]
            for axes, title in ((points, "points"), (squares, "a square grid"), (density, "density")):
                axes.set(title=title, xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
                axes.grid(visible=False)
            self.heading = self.figure.text(0.5, 0.95, "", ha="center", va="center", fontsize=11)

    @torch.no_grad()
    def png(self, u: Tensor, w: Tensor, b: Tensor) -> bytes:
        """The picture of the layer with parameters u, w ``(2,)`` and b, a scalar, as the bytes of a PNG."""
        adjusted = invertible_u(u, w)
        after, side = planar_transformation(self.draws, adjusted, w, b), self.draws @ w + b > 0
        for artist, mask in zip(self.sides, (side, ~side), strict=True):
            artist.set_data(*after[mask].T)
        moved = planar_transformation(self.lines.view(-1, 2), adjusted, w, b)
        self.squares.set_segments(list(moved.view(self.lines.shape).numpy()))
        self.density.set_data(layer_density(u, w, b, grid(101)).numpy())
        for artist in self.bend:
            artist.set_data(*hyperplane(w, b).T)
        product, used = torch.dot(w, u), torch.dot(w, adjusted)
        text = f"$w\\cdot u={product.round(decimals=2):g}$"
        if product < -1:
            text += f", not invertible: drawn with $\\hat u$, $w\\cdot\\hat u={used.round(decimals=2):g}$"
        self.heading.set_text(text)
        buffer = io.BytesIO()
        with mpl.rc_context(figures.STYLE):
            self.figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})  # small enough, and soon
        return buffer.getvalue()


def layer_sliders() -> widgets.VBox:
    """Five sliders above the picture of their layer; ``children[1].value`` is the PNG."""
    picture = LayerPicture()
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
        image.value = picture.png(torch.tensor([u1, u2]), torch.tensor([w1, w2]), torch.tensor(b))

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
