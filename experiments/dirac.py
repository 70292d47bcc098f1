"""Question 2.6: all configurations of the dirac game, theory beside practice, and the plain game for a long time."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.options import Options
from question2 import dirac_plots, modified_field, runs
from question2.configurations import Management

SEED = 31415
LONG_GAME = {"full": 1_000_000, "quick": 20_000}  # updates


def run(options: Options) -> dict[str, Any]:
    """Play every configuration from the same starting points."""
    (seed,) = options.seeds([SEED])
    out = Path(options.out) / "dirac"
    changes = {"max_iters": 600} if options.quick else {}
    started = time.perf_counter()
    outcome = runs.run_all(runs.plan("dirac-*", [seed], Management(exp_path=str(out)), **changes))
    seconds = time.perf_counter() - started
    shutil.copy(out / f"dirac-{seed}.png", options.figures / "dirac_overview.png")
    rows = []
    for one in outcome.runs:
        shutil.copy(one.folder / "trajectory.png", options.figures / f"dirac_{one.name}.png")
        setting = {
            "loss": one.hp.loss_type,
            "penalty": one.hp.critic_reg_type,
            "weight": one.hp.critic_reg_cf,
            "ema": one.hp.generator_alpha_ema,
        }
        rows.append({"name": one.name, **setting, **(outcome.results[one.label] or {})})
    first = outcome.runs[0].hp
    long = contraction(options, seed)
    dirac_plots.contraction(options.figures / "dirac_contraction.svg", long)
    return {
        "dataset": "none",
        "seed": seed,
        "options": {"max_iters": first.max_iters, "games": first.games, "lr": first.generator_lr},
        "cycle_of_a_weak_penalty": 4 / math.pi,
        "rows": rows,
        "seconds": seconds,
        "contraction": long,
    }


def contraction(options: Options, seed: int) -> dict[str, Any]:
    """The games without a penalty for a long time: the distance r from the equilibrium, measured and in theory.

    Returns:
        ``updates``, at which each distance is the mean of 1/r² over the following ``window``, as a distance again; for
        each loss what was ``measured`` and what the modified field's ``flow`` does; and how fast 1/r² grew an update
        over the last half of JSD's game, ``measured_growth``, beside theory's ``growth``.
    """
    length = LONG_GAME[options.profile]
    management = Management(exp_path=str(Path(options.out) / "dirac_long"), log_every=length // 100, viz=False)
    outcome = runs.run_all(runs.plan("dirac-*-1", [seed], management, max_iters=length, games=1))
    window = 253  # about a turn of JSD's game, and four of W1's
    updates = np.unique(np.geomspace(100, length - window, 30).astype(int))
    losses: dict[str, Any] = {}
    for run in outcome.runs:
        trajectory = runs.load_trajectory(run.folder)
        assert trajectory is not None
        start = np.array([*trajectory.psi[0, :, 0], trajectory.theta[0, 0]], dtype=float)
        followed = modified_field.follow(run.hp.game, start, length)
        losses[run.hp.loss_type] = {
            "measured": _distances(np.abs(trajectory.plane[:, 0]), updates, window),
            "flow": _distances(np.hypot(followed[:, 0], followed[:, 2]), updates, window),
        }
    half = int(np.searchsorted(updates, updates[-1] / 2))
    inverse = np.array(losses["JSD"]["measured"]) ** -2.0
    return {
        "updates": updates.tolist(),
        "window": window,
        "losses": losses,
        "measured_growth": float((inverse[-1] - inverse[half]) / (updates[-1] - updates[half])),
        "growth": modified_field.contraction(outcome.runs[0].hp.generator_lr),
    }


def _distances(distance: np.ndarray, updates: np.ndarray, window: int) -> list[float]:
    """The mean of 1/r² over a window after each of some updates, as a distance."""
    return [float((distance[t : t + window].astype(float) ** -2.0).mean() ** -0.5) for t in updates]
