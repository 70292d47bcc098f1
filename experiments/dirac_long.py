"""Question 2.6: the games without a penalty for a long time: JSD's contracts from near, W1's does not."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from dirac import Game, play, starting_points
from experiments.dirac import SEED
from experiments.options import Options
from lab.figures import captioned
from question2 import dirac_plots, dirac_theory, games, modified_field
from question2.configurations import Management, plan

MINUTES = {"quick": 0.4, "full": 10}
UPDATES = {"full": 1_000_000, "assignment": 100_000, "quick": 20_000}
OUTSIDE = 2.5  # a distance from which JSD's game moves outwards
STEPS = (0.1, 0.2, 0.4)  # the step sizes h of the check
Way = Callable[[float, int], np.ndarray]  # from a distance on the axis of ψ₀, some updates long, in the complex plane


def run(options: Options) -> dict[str, Any]:
    """The games without a penalty for a long time: the distance r from the equilibrium, measured and in theory.

    Returns:
        ``updates``, at which each distance is the mean of 1/r² over the following ``window``, as a distance again; for
        each loss what was ``measured`` and what the modified field's ``flow`` does, for JSD from ``outside`` too; how
        fast 1/r² grew an update over the last half of JSD's game, ``measured_growth``, beside ``growth``, h²/640; and
        ``turning_radius``, within which JSD's game contracts from θ = ψ₁ = 0: ``measured``, of the ``flow``, and in the
        ``limit`` of small steps; and the ``check`` of :func:`check`.
    """
    (seed,) = options.seeds([SEED])
    length = UPDATES[options.profile]
    management = Management(exp_path=str(options.folder / "dirac_long"), log_every=length // 100, viz=False)
    runs = {run.hp.loss_type: run for run in plan("dirac-*-1", [seed], management, max_iters=length, games=1)}
    games.run_games(list(runs.values()))
    window = 253  # about a turn of JSD's game, and four of W1's
    updates = np.unique(np.geomspace(100, length - window, 30).astype(int))

    def distances(radius: np.ndarray) -> list[float]:
        return [float((radius[t : t + window].astype(float) ** -2.0).mean() ** -0.5) for t in updates]

    losses: dict[str, Any] = {}
    for loss, run in runs.items():
        trajectory = games.load_trajectory(run)
        assert trajectory is not None
        start = np.array([*trajectory.psi[0, :, 0], trajectory.theta[0, 0]], dtype=float)
        followed = modified_field.follow(run.hp.game, start, length)
        losses[loss] = {
            "measured": distances(np.abs(trajectory.plane[:, 0])),
            "flow": distances(np.hypot(followed[:, 0], followed[:, 2])),
        }
    game = runs["JSD"].hp.game
    ways: dict[str, Way] = {
        "measured": from_axis(game),
        "flow": lambda radius, count: modified_field.follow(game, np.array([radius, 0, 0]), count)[:, ::2] @ (1, 1j),
    }
    outside = {name: distances(np.abs(way(OUTSIDE, length))) for name, way in ways.items()}
    turning = {name: turning_radius(way, min(30_000, length)) for name, way in ways.items()}
    half = int(np.searchsorted(updates, updates[-1] / 2))
    inverse = np.array(losses["JSD"]["measured"]) ** -2.0
    result = {
        "updates": updates.tolist(),
        "window": window,
        "losses": losses,
        "outside": {"radius": OUTSIDE, **outside},
        "turning_radius": {**turning, "limit": float(brentq(modified_field.drift, 1.0, OUTSIDE))},
        "measured_growth": float((inverse[-1] - inverse[half]) / (updates[-1] - updates[half])),
        "growth": game.generator_lr**2 / 640,
        "check": check(seed, turns=12 if options.quick else 24),
    }
    caption = "Distance from the equilibrium without a penalty: marks are games, lines are theory."
    dirac_plots.contraction(captioned(options.figures / "dirac_long_contraction.svg", caption), result)
    return result


def turning_radius(way: Way, updates: int) -> float:
    """The distance from which a game neither contracts nor expands, by bisection: it contracts from 1."""
    low, high, part = 1.0, OUTSIDE, updates // 10
    for _ in range(10):
        middle = (low + high) / 2
        inverse = np.abs(way(middle, updates)).astype(float) ** -2.0
        low, high = (middle, high) if inverse[-part:].mean() > inverse[:part].mean() else (low, middle)
    return (low + high) / 2


def check(seed: int, turns: int) -> dict[str, Any]:
    """Compare the contraction and the turning radius of JSD's game with theory for three step sizes.

    Returns:
        For each of the ``steps``: the growth of 1/Q per update in units of h²/640, ``exact`` and ``measured`` (the mean
        of four starts and their ``spread``) between means over four whole turns, and the turning ``radius``. By the
        parabola through the three steps: ``first_order``, the c₁ of 1 + c₁h + …, and the ``radius`` for h = 0.
    """
    rows = []
    for step in STEPS:
        game, turn = Game("JSD", generator_lr=step, critic_lr=step), 8 * np.pi / step
        theta, psi = starting_points(seed, games=4, std=0.01)
        plane, window = play(game, theta.double(), psi.double(), round(turns * turn)).plane, round(4 * turn)
        inverse = 1 / (np.abs(plane) ** 2 - step / 4 * plane.real * plane.imag)
        change = inverse[-window:].mean(0) - inverse[window : 2 * window].mean(0)
        growth = change / (len(inverse) - 2 * window) * 640 / step**2
        rows.append(
            {
                "step": step,
                "measured": float(growth.mean()),
                "spread": float(np.ptp(growth)),
                "exact": modified_field.contraction(step) * 640 / step**2,
                "radius": turning_radius(from_axis(game), round(125 * turns / step)),
            }
        )
    slopes, radii = [(row["measured"] - 1) / row["step"] for row in rows], [row["radius"] for row in rows]
    first_order, radius = (float(np.polyfit(STEPS, values, 2)[-1]) for values in (slopes, radii))
    return {"turns": turns, "steps": rows, "first_order": first_order, "radius": radius}


def from_axis(game: Game) -> Way:
    """How a game moves from a place on the axis of ψ₀."""
    return lambda radius, count: dirac_theory.play(game, (radius, 0, 0), count).plane[:, 0]
