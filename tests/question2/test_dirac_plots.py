"""Pictures of the dirac game show the games that are played and the fields that theory has."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import dirac
import gan
from dirac import Game, Trajectory
from lab import figures
from question2 import dirac_plots, dirac_theory

GAMES = {"a": Game("W1", "R1", 0.1, alpha_ema=0.9), "b": Game("JSD", target=0.5), "c": Game("W1", "GP", 0.1)}


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


def test_games_that_differ_in_their_average_alone_share_a_panel(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "save", lambda drawing, path: shown.append(drawing))
    plain, averaged = Game("W1", "R1", 0.1), Game("W1", "R1", 0.1, alpha_ema=0.9)
    games = [
        (f"w1-{i}", game, dirac_theory.play(game, (0.5, 0.0, 1.0), 30)) for i, game in enumerate((plain, averaged))
    ]
    dirac_plots.overview(tmp_path / "all.svg", games, columns=1)
    dirac_plots.final_plots(tmp_path / "final.svg", games, columns=2)
    together, apart = shown
    assert [axes.get_title().split("\n")[0] for axes in together.axes] == ["w1-0, 1"]
    assert len({axes.get_xlim() + axes.get_ylim() for axes in apart.axes[:2]}) == 1
    assert len({axes.get_ylim() for axes in apart.axes[2:]}) == 1


@pytest.mark.parametrize("finite", [1, 6])
def test_every_game_can_be_drawn_however_early_it_diverges(tmp_path, finite):
    """The points before the first that is not finite; a file of each kind, and a frame for each update."""
    for game in GAMES.values():
        played = dirac_theory.play(game, (0.5, 0.0, 1.0), updates=5)
        played.theta[finite:] = played.psi[finite:] = np.nan
        assert len(dirac_plots.first_of(game, played).theta) == finite
        dirac_plots.final_plot(tmp_path / "final.png", "name", game, played)
        dirac_plots.overview(tmp_path / "all.png", [("name", game, played)])
    with Image.open(tmp_path / "final.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    with Image.open(dirac_plots.animate(tmp_path, "title", game, played)) as film:
        assert film.format == "GIF" and getattr(film, "n_frames", 1) == finite


def test_a_game_is_drawn_until_it_leaves_the_cube():
    theta = np.array([[0.0], [-19.0], [21.0], [0.0]])
    played = Trajectory(theta, np.zeros((4, 2, 1)), theta)
    kept = dirac_plots.first_of(Game(), played)
    assert kept.theta.tolist() == kept.averaged.tolist() == [0, -19] and kept.psi.shape == (2, 2)
