"""Pictures: their size, letters and files, and photographs that look like their images."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lab import figures


def draw(path, **options):
    with figures.figure(path, **options) as panels:
        for axes in panels:
            axes.plot([1, 2], [3, 4], label="line")
            axes.set(title="title", xlabel="x", ylabel="y")
            axes.legend()
        sizes = {text.get_fontsize() for text in panels[0].figure.findobj(plt.Text) if text.get_text()}
    return sizes


def test_a_figure_is_as_wide_as_asked_and_all_of_its_letters_have_one_size(tmp_path):
    path = tmp_path / "a.svg"
    assert draw(path, columns=2, size=(figures.WIDTH / 2, 2.0)) == {figures.SIZE}
    width, height = (
        float(value) for value in re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', path.read_text()).groups()
    )
    assert (width, height) == pytest.approx((72 * figures.WIDTH, 144))
    draw(tmp_path / "a.png", size=(2.0, 1.5))
    assert Image.open(tmp_path / "a.png").size == (400, 300)


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        draw(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_whose_drawing_fails_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), figures.figure(tmp_path / "a.svg"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_photograph_is_near_its_images_in_their_order(tmp_path):
    ramp = torch.linspace(0, 255, 16).expand(16, 16)
    images = torch.stack([torch.stack([ramp, ramp.T, torch.full_like(ramp, 60.0 * i)]) for i in range(4)]).byte()
    path = tmp_path / "a.jpg"
    figures.photograph(path, images, columns=2, padding=2)
    grid = np.array(Image.open(path)).astype(int)
    assert grid.shape == (38, 38, 3)
    for i, image in enumerate(images):
        top, left = (2 + 18 * place for place in divmod(i, 2))
        found = grid[top : top + 16, left : left + 16]
        assert np.abs(found - image.permute(1, 2, 0).numpy()).mean() < 6
    assert path.stat().st_size < images.numel()


@pytest.mark.parametrize(("highest", "arrow"), [(3.0, "neither"), (3.1, "max")])
def test_a_colour_bar_has_the_range_of_the_colours_and_marks_higher_values(tmp_path, highest, arrow):
    with figures.figure(tmp_path / "a.png", columns=2) as panels:
        for axes, value in zip(panels, (highest, 1.0), strict=True):
            axes.imshow([[0.0, value]], vmin=0, vmax=3)
        bar = figures.colour_bar(panels, "density")
        assert (bar.vmin, bar.vmax, bar.extend, bar.ax.get_ylabel()) == (0, 3, arrow, "density")


@pytest.mark.parametrize("factor", [1.3, 50, 1e9])
def test_a_logarithmic_axis_has_some_labels_and_not_many(tmp_path, factor):
    with figures.figure(tmp_path / "axis.svg", size=(figures.HALF, 1.85)) as (axes,):
        axes.plot([0.02, 0.02 * factor])
        figures.logarithmic(axes, [0.02, 0.02 * factor])
        low, high = axes.get_ylim()
        shown = [place for place in axes.get_yticks() if low <= place <= high]
        assert axes.get_yscale() == "log" and 1 <= len(shown) <= 8
        assert not len(axes.get_yticks(minor=True))
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert [float(label) for label in labels] == pytest.approx(list(axes.get_yticks()))


def test_an_image_grid_is_dark_ink_enlarged(tmp_path):
    figures.image_grid(tmp_path / "a.png", torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]), columns=2, scale=3)
    ink = np.array(Image.open(tmp_path / "a.png").convert("L"))
    assert ink.shape == (3 * 4, 3 * 7) and (ink[3:9, 3:9] == np.kron([[0, 255], [255, 0]], np.ones((3, 3)))).all()


def test_a_figure_with_a_caption_is_in_formats_that_latex_takes(tmp_path):
    draw(figures.captioned(tmp_path / "drawing.svg", "A line."))
    draw(tmp_path / "plain.svg")
    images = torch.zeros(2, 3, 8, 8).byte()
    figures.photograph(figures.captioned(tmp_path / "photograph.jpg", "Two images."), images, columns=2)
    names = {"drawing.svg", "drawing.png", "drawing.pdf", "drawing.txt", "plain.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names | {f"photograph.{end}" for end in ("jpg", "png", "txt")}
    assert (tmp_path / "drawing.txt").read_text() == "A line.\n"
    assert (tmp_path / "drawing.pdf").read_bytes().startswith(b"%PDF")
    assert not np.array(Image.open(tmp_path / "photograph.png"))[3:8, 3:8].any()
