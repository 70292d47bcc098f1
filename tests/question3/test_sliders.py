"""The sliders redraw the picture of their layer, and a page that runs nothing has it too."""

import base64
import io

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from question3 import plots, sliders


def panels(png: bytes) -> list[np.ndarray]:
    """Points, grid and density."""
    return np.array_split(np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=float)[80:], 3, axis=1)


@pytest.mark.parametrize("name", sliders.RANGES)
def test_every_slider_moves_points_grid_and_density(name):
    box = sliders.layer_sliders()
    before = panels(box.children[1].value)
    slider = next(slider for slider in box.children[0].children if slider.description == name)
    slider.value -= 1
    for old, new in zip(before, panels(box.children[1].value), strict=True):
        assert (old != new).mean() > 0.005
    slider.value += 1
    for old, new in zip(before, panels(box.children[1].value), strict=True):
        assert np.array_equal(old, new)


def test_a_layer_without_normal_or_inverse_is_drawn():
    zero = torch.zeros(2)
    flat = panels(sliders.picture(torch.ones(2), zero, torch.tensor(0.0)))
    folded = panels(sliders.picture(torch.tensor([-3.0, 0.0]), torch.tensor([3.0, 0.0]), torch.tensor(0.0)))
    assert all((a != b).mean() > 0.005 for a, b in zip(flat, folded, strict=True))
    assert torch.isnan(plots.hyperplane(zero, torch.tensor(1.0))).all()


def test_the_picture_is_in_the_output_beside_the_sliders(monkeypatch):
    seen = {}
    monkeypatch.setattr(sliders, "display", lambda bundle, **options: seen.update(bundle))
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_", raising=False)  # which ipywidgets 7 lacks
    box = sliders.layer_sliders()
    sliders.show_sliders(box)
    assert base64.b64decode(seen["image/png"]) == box.children[1].value
    assert seen["application/vnd.jupyter.widget-view+json"]["model_id"] == box.model_id
