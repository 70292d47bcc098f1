"""Pictures of the dirac game show the games that are played and the fields that theory has."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import dirac
import gan
from dirac import Game
from lab import figures
from question2 import dirac_plots, dirac_theory


@pytest.mark.parametrize("loss", gan.AVAILABLE_LOSSES)
@pytest.mark.parametrize("reg", gan.AVAILABLE_REGULARIZERS)
def test_a_game_by_its_equations_is_the_game_of_the_training_step(loss, reg):
    game = Game(loss, reg, 0.2, 0.9, target=0.3, generator_lr=0.15, critic_inner_iters=2)
    psi0, psi1, theta = torch.tensor([[0.5], [-0.2], [1.0]], dtype=torch.float64)
    expected = dirac.play(game, theta, torch.stack([psi0, psi1]), updates=40)
    played = dirac_theory.play(game, (0.5, -0.2, 1.0), updates=40)
    for name, values in vars(expected).items():
        np.testing.assert_allclose(getattr(played, name), values, atol=1e-9)


def test_a_game_that_leaves_all_bounds_ends_there_and_can_be_drawn():
    game = Game("W1", generator_lr=3, critic_lr=3)
    played = dirac_theory.play(game, (1, 0, 1), updates=500)
    assert len(played.theta) < 100 and np.isfinite(played.theta).all()
    dirac_plots.sketch(plt.figure().subplots(), game, (1, 0, 1))
    plt.close("all")


def test_sketch_shows_the_game_and_its_eigenvalue():
    axes = plt.figure().subplots()
    dirac_plots.sketch(axes, Game("W1", "R1", 0.1, target=0.5), (0.5, 0.0, 1.0), updates=50)
    played = dirac_theory.play(Game("W1", "R1", 0.1, target=0.5), (0.5, 0.0, 1.0), updates=50)
    drawn = axes.get_lines()[0].get_xydata()
    np.testing.assert_allclose(drawn, np.column_stack([played.psi[:, 0, 0], played.theta[:, 0]]))
    assert "-0.1 \\pm 0.99" in axes.get_title()  # -c ± sqrt(c² - 1)
    plt.close("all")


def test_two_sides_shows_the_jump_of_the_one_centred_penalty():
    plane, section = plt.figure().subplots(1, 2)
    dirac_plots.two_sides(plane, section, weight=0.2)
    jump = sorted(line.get_ydata()[0] for line in section.get_lines() if line.get_marker() == "o")
    assert jump == pytest.approx([-0.4, 0.4])
    plt.close("all")


def test_film_of_a_chosen_kind(tmp_path):
    played = dirac_theory.play(Game(), (0.5, 0.0, 1.0), updates=30)
    film = dirac_plots.animate(tmp_path, "title", Game(), played, frames=3, suffix=".gif")
    with Image.open(film) as picture:
        assert picture.format == "GIF" and picture.n_frames == 3
    small = figures.compact_film(film)
    assert len(small) < film.stat().st_size / 2
    with Image.open(film) as before, Image.open(io.BytesIO(small)) as after:
        assert after.n_frames == 3 and after.info["duration"] == before.info["duration"]
        for frame in range(3):
            before.seek(frame), after.seek(frame)
            pair = [np.asarray(film.convert("RGB")).astype(int) for film in (before, after)]
            assert np.abs(pair[0] - pair[1]).mean() < 2


def test_compact_picture_is_smaller_and_keeps_its_colours(tmp_path):
    with mpl.rc_context(figures.STYLE), figures.figure(tmp_path / "drawing.svg") as (axes,):
        for i, colour in enumerate(figures.COLOURS):
            axes.plot(np.sin(np.arange(200) / (i + 1)) + i, color=colour)
        axes.figure.savefig(tmp_path / "drawing.png", dpi=200)
    small = figures.compact(tmp_path / "drawing.png")
    assert len(small) < (tmp_path / "drawing.png").stat().st_size / 2
    before, after = (
        np.asarray(Image.open(f).convert("RGB")).astype(int) for f in (tmp_path / "drawing.png", io.BytesIO(small))
    )
    assert np.abs(before - after).mean() < 2 and np.abs(before - after).max() < 40
