"""The pictures of question 1 show what they are given."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from lab import figures
from question1 import autoencoder, plots


@pytest.fixture
def drawn(monkeypatch):
    """The axes of every figure that is drawn."""
    kept, figure = [], figures.figure

    @contextmanager
    def keeping(*arguments, **keywords):
        with figure(*arguments, **keywords) as axes:
            kept.extend(axes)
            yield axes

    monkeypatch.setattr(figures, "figure", keeping)
    return kept


@pytest.mark.parametrize("target", [-300.0, -20.0])
def test_the_axis_of_a_training_shows_its_target(target, drawn, tmp_path):
    history = [{"train_elbo": value - 1, "valid_elbo": value} for value in (-150.0, -101.0)]
    plots.training(tmp_path / "curve.png", {"run": {"runs": [{"history": history}]}}, target)
    (axes,) = drawn
    (line,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert set(line.get_ydata()) == {target}
    assert f"{abs(target):g}" in line.get_label()
    low, high = axes.get_ylim()
    assert low < target < high
    assert low < -101 < high


def test_varied_images_are_one_of_each_kind():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.bernoulli(torch.full((4, 100), 0.5), generator=generator)
    images = kinds.repeat_interleave(700, 0)  # ordered by kind, as a published file may be
    noisy = (images.bool() ^ (torch.rand(images.shape, generator=generator) < 0.02)).to(torch.uint8)
    assert sorted((plots.varied(noisy, 4) // 700).tolist()) == [0, 1, 2, 3]


def test_rows_of_images_keep_order_and_side(drawn, tmp_path):
    above, below = torch.rand(2, 3, 16)
    plots.image_rows(tmp_path / "rows.png", {"above": above, "below": below})
    (axes,) = drawn
    heights = {label.get_text(): y for label, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert heights == {"above": 1.5, "below": 0.5}
    shown = axes.images[0].get_array()
    assert shown.shape == (8, 12)
    for row, images in enumerate((above, below)):
        for i, image in enumerate(images):
            np.testing.assert_array_equal(shown[4 * row : 4 * row + 4, 4 * i : 4 * i + 4], image.view(4, 4))


def test_weights_are_shown_with_bound_estimate_and_largest(drawn, tmp_path):
    y = torch.randn(50, generator=torch.Generator().manual_seed(0)).double() * 3 - 900
    plots.importance_weights(tmp_path / "weights.png", y)
    left, right = drawn
    at = [line.get_xdata()[0] for line in left.lines]
    np.testing.assert_allclose(at, [y.mean(), logsumexp(y) - np.log(50), y.max()])
    np.testing.assert_allclose(right.lines[0].get_ydata(), np.cumsum(np.sort(softmax(y))[::-1]))


def test_a_walk_covers_the_codes_and_moves_two_dimensions_only(drawn, tmp_path):
    torch.manual_seed(0)
    model = autoencoder.VAE(latent_size=4, image_size=9, width=8)
    codes, z = 7 * torch.randn(40, 4), torch.randn(4)
    plots.walk(tmp_path / "walk.png", model, z, (3, 1), codes, steps=5)
    scatter, tiles = drawn
    left, right, bottom, top = tiles.images[0].get_extent()
    assert (*scatter.get_xlim(), *scatter.get_ylim()) == (left, right, bottom, top)
    for dimension, low, high in ((3, left, right), (1, bottom, top)):
        half = (high - low) / 5 / 2  # the first and the last image have their middles at the ends of the range
        np.testing.assert_allclose((low + half, high - half), plots.code_range(codes, dimension), rtol=1e-5)
    top_right = z.clone()
    top_right[3], top_right[1] = codes[:, 3].max(), codes[:, 1].max()
    with torch.no_grad():
        expected = torch.sigmoid(model.decode(top_right.unsqueeze(0))).view(3, 3)
    np.testing.assert_allclose(tiles.images[0].get_array()[:3, -3:], expected, rtol=1e-5)
