"""Pictures of image runs, against the images and the numbers that they were made of."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from torchvision.utils import save_image

from question2 import image_plots

LINES = [
    {"step": 10, "metric": 4.0},
    {"step": 20, "metric": 2.0},
    {"step": 20, "samples": 50, "FID-C": 9.0, "FID-C_trained": 8.0},
    {"step": 30, "metric": 1.0},
    {"step": 30, "samples": 100, "FID-C": 7.0, "FID-C_trained": 6.0},
]


def write_grids(folder, steps) -> dict[int, torch.Tensor]:
    """Random images as a run leaves them, by update."""
    generator, images = torch.Generator().manual_seed(0), {}
    for step in steps:
        images[step] = torch.randint(0, 256, (64, 3, 32, 32), generator=generator).byte()
        save_image(images[step].float() / 255, folder / f"samples_{step:06}.png", nrow=8)
    return images


def test_tiles_are_those_that_the_grid_was_made_of(tmp_path):
    images = write_grids(tmp_path, [5])[5]
    grid = image_plots.read_grid(tmp_path / "samples_000005.png")
    assert torch.equal(image_plots.tiles(grid), images)


def test_curves_leave_out_a_distance_of_another_number_of_samples():
    curves = image_plots.curves_of(LINES, "FID-C")
    assert curves == image_plots.Curves([(10, 4.0), (20, 2.0), (30, 1.0)], [(20, 9.0)], [(20, 8.0)])


@pytest.mark.parametrize("loss", ["JSD", "W1"])
@pytest.mark.parametrize("lines", [LINES, LINES[:1], []])
def test_the_picture_of_a_run_shows_its_curves_as_far_as_it_has_come(tmp_path, loss, lines):
    curves = image_plots.curves_of(lines, "FID-C")
    write_grids(tmp_path, [10, 20] if lines else [])
    picture = image_plots.progress(tmp_path, "title", curves, loss, "FID-C", updates=30)
    images, metric, distance = picture.axes
    lines_of_metric = metric.get_lines()
    if loss == "JSD":
        *lines_of_metric, bound = lines_of_metric
        assert set(bound.get_ydata()) == {math.log(2)}
    drawn = [line.get_xydata().tolist() for line in (*lines_of_metric, *distance.get_lines())]
    assert drawn == [[list(point) for point in curve] for curve in curves if curve]
    assert len(images.images) == (1 if lines else 0)
    assert metric.get_yscale() == ("log" if lines else "linear")
    picture.savefig(tmp_path / "picture.png")


def test_a_metric_below_zero_has_a_linear_axis():
    axes = plt.figure().subplots()
    image_plots.draw_curves(axes, [image_plots.Curves([(1, 0.5), (2, -0.1)], [], [])], "W1", "FID")
    assert axes.get_yscale() == "linear"
    plt.close("all")


def test_sheet_has_a_row_for_each_chosen_update(tmp_path):
    images = write_grids(tmp_path, [10, 15, 20])
    axes = plt.figure().subplots()
    image_plots.draw_sheet(axes, tmp_path, columns=3)
    (shown,) = axes.images
    expected = torch.cat([torch.cat(list(images[step][:3]), dim=2) for step in (10, 20)], dim=1)
    assert torch.equal(torch.as_tensor(shown.get_array()).permute(2, 0, 1), expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10", "20"]
    image_plots.save_sheet(tmp_path / "sheet.png", tmp_path, columns=3)
    plt.close("all")
