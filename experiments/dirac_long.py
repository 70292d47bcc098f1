"""Question 2.6: the games without a penalty for a long time: JSD's contracts from near, W1's does not."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.dirac import SEED
from experiments.options import Options
from lab.figures import captioned
from question2 import dirac_plots, dirac_theory, games, modified_field
from question2.configurations import Management, plan

MINUTES = {"quick": 0.4, "full": 10}
UPDATES = {"full": 1_000_000, "assignment": 100_000, "quick": 20_000}
OUTSIDE = 2.5  # a distance from which JSD's game moves outwards


def run(options: Options) -> dict[str, Any]:
    """The games without a penalty for a long time: the distance r from the equilibrium, measured and in theory.

    Returns:
        ``updates``, at which each distance is the mean of 1/r² over the following ``window``, as a distance again; for
        each loss what was ``measured`` and what the modified field's ``flow`` does, for JSD from ``outside`` too; how
        fast 1/r² grew an update over the last half of JSD's game, ``measured_growth``, beside theory's ``growth``; and
        ``turning_radius``, within which JSD's game contracts from θ = ψ₁ = 0: ``measured``, and of the ``flow``.
    """
    (seed,) = options.seeds([SEED])
    length = UPDATES[options.profile]
    management = Management(exp_path=str(options.folder / "dirac_long"), log_every=length // 100, viz=False)
    runs = plan("dirac-*-1", [seed], management, max_iters=length, games=1)
    games.run_games(runs)
    window = 253  # about a turn of JSD's game, and four of W1's
    updates = np.unique(np.geomspace(100, length - window, 30).astype(int))
    losses: dict[str, Any] = {}
    for run in runs:
        trajectory = games.load_trajectory(run)
        assert trajectory is not None
        start = np.array([*trajectory.psi[0, :, 0], trajectory.theta[0, 0]], dtype=float)
        followed = modified_field.follow(run.hp.game, start, length)
        losses[run.hp.loss_type] = {
            "measured": _distances(np.abs(trajectory.plane[:, 0]), updates, window),
            "flow": _distances(np.hypot(followed[:, 0], followed[:, 2]), updates, window),
        }
    game = next(run.hp.game for run in runs if run.hp.loss_type == "JSD")
    ways: dict[str, Callable[[float, int], np.ndarray]] = {
        "measured": lambda radius, count: dirac_theory.play(game, (radius, 0, 0), count).plane[:, 0],
        "flow": lambda radius, count: modified_field.follow(game, np.array([radius, 0, 0]), count)[:, ::2] @ (1, 1j),
    }
    outside = {name: _distances(np.abs(way(OUTSIDE, length)), updates, window) for name, way in ways.items()}
    half = int(np.searchsorted(updates, updates[-1] / 2))
    inverse = np.array(losses["JSD"]["measured"]) ** -2.0
    result = {
        "dataset": "none",
        "updates": updates.tolist(),
        "window": window,
        "losses": losses,
        "outside": {"radius": OUTSIDE, **outside},
        "turning_radius": {name: turning_radius(way, min(30_000, length)) for name, way in ways.items()},
        "measured_growth": float((inverse[-1] - inverse[half]) / (updates[-1] - updates[half])),
        "growth": modified_field.contraction(runs[0].hp.generator_lr),
    }
    caption = "Distance from the equilibrium without a penalty: marks are games, lines are theory."
    dirac_plots.contraction(captioned(options.figures / "dirac_long_contraction.svg", caption), result)
    return result


def turning_radius(way: Callable[[float, int], np.ndarray], updates: int) -> float:
    """The distance from which a game neither contracts nor expands, by bisection.

    It must contract from 1 and expand from ``OUTSIDE``.

    Args:
        way: Maps a distance on the axis of ψ₀ and a number of updates to the game's way in the plane from there.
        updates: How long the games are.
    """
    low, high, part = 1.0, OUTSIDE, updates // 10
    for _ in range(10):
        middle = (low + high) / 2
        inverse = np.abs(way(middle, updates)).astype(float) ** -2.0
        low, high = (middle, high) if inverse[-part:].mean() > inverse[:part].mean() else (low, middle)
    return (low + high) / 2


def _distances(distance: np.ndarray, updates: np.ndarray, window: int) -> list[float]:
    """The mean of 1/r² over a window after each of some updates, as a distance."""
    return [float((distance[t : t + window].astype(float) ** -2.0).mean() ** -0.5) for t in updates]
