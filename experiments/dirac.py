"""Question 2.6: all configurations of the dirac game, theory beside practice."""

import math
import time
from typing import Any

from experiments.options import Options
from gan import AVAILABLE_LOSSES
from lab.figures import captioned
from question2 import dirac_plots, games
from question2.configurations import Management, plan

MINUTES = {"quick": 0.3, "assignment": 1.6, "full": 1.6}
SEED = 31415

CAPTION = (
    "{name} ({game}), seed {seed}, {hp.max_iters} updates of step {hp.generator_lr}. From left: the game over the"
    " vector field, from its start (circle) to its end (dot), real point (cross), moving average (orange); the"
    " parameters over 300 updates; the generated point over all; the game in space."
)


def run(options: Options) -> dict[str, Any]:
    """Play every configuration from the same starting points."""
    (seed,) = options.seeds([SEED])
    changes = {"max_iters": 600, "games": 3} if options.quick else {}
    started = time.perf_counter()
    management = Management(exp_path=str(options.folder / "dirac"), viz=False)  # drawn below
    runs = plan("dirac-*", [seed], management, **changes)
    results = games.run_games(runs)
    rows, played = [], []
    for one in runs:
        trajectory = games.load_trajectory(one)
        assert trajectory is not None
        played.append((one.name, one.hp.game, trajectory))
        caption = CAPTION.format(game=dirac_plots.describe(one.hp.game), name=one.name, seed=seed, hp=one.hp)
        dirac_plots.final_plot(captioned(options.figures / f"dirac_{one.name}.svg", caption), *played[-1])
        penalty = {"penalty": one.hp.critic_reg_type, "weight": one.hp.critic_reg_cf}
        setting = {"name": one.name, "loss": one.hp.loss_type, **penalty, "ema": one.hp.generator_alpha_ema}
        rows.append({**setting, **results[one.label]})
    caption = (
        "Each game over its vector field, from its start (circle) to its end (dot), with the real point (cross) and the"
        " moving average (orange). 'dirac-jsd-1, 6' stands for configurations 1 and 6: the average changes no game."
    )
    dirac_plots.overview(captioned(options.figures / "dirac_overview.svg", caption), played)
    for loss in AVAILABLE_LOSSES:
        shown = [one for one in played if one[1].loss_type == loss]
        caption = f"{loss}: each configuration over its vector field, over its first updates and over all."
        dirac_plots.final_plots(captioned(options.figures / f"dirac_final_{loss}.svg", caption), shown)
    first = runs[0].hp
    return {
        "seed": seed,
        "options": {"max_iters": first.max_iters, "games": first.games, "lr": first.generator_lr},
        "cycle_of_a_weak_penalty": 4 / math.pi,
        "rows": rows,
        "seconds": time.perf_counter() - started,
    }
