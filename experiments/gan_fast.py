"""Does the fast path of training learn what the plain one learns? Both over the first updates of question 2.7."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from experiments import gan as study
from experiments import gan_samples
from experiments.options import Options
from lab import figures
from lab.estimates import spread
from question2 import runs
from question2.configurations import Management

NAMES = ("cifar10-jsd-2", "cifar10-w1-3")  # one of each loss and of each bound on the critic
SCALES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": (
        {"max_iters": 2000},
        {"dataset": "cifar10", "log_every": 50, "eval_every": 2000, "final_samples": 20_000},
    ),
    "reduced": (
        {"generator_dimh": 16, "critic_dimh": 16, "max_iters": 2000},
        {
            "dataset": "cifar10",
            "scores": "classifier",
            "log_every": 50,
            "eval_every": 2000,
            "final_samples": 20_000,
        },
    ),
    "quick": (
        {"generator_dimz": 8, "batch_size": 8, "generator_dimh": 4, "critic_dimh": 4, "max_iters": 20},
        {"dataset": "digits", "scores": "classifier", "log_every": 5, "eval_every": 20, "final_samples": 100},
    ),
}


def run(options: Options) -> dict[str, Any]:
    """The first updates of the fast path beside those of the plain one: from the same seed, and from others.

    Games of two networks amplify rounding, so curves of the same seed part as well. What is asked is whether the fast
    path parts from the plain one by more than two seeds of the plain one part from each other.
    """
    scale, seeds = study.choose_scale(options), options.seeds(study.SEEDS)
    changes, managed = SCALES[scale]
    management = Management(data_path=options.data, device=options.device, **managed)

    def outcome(path: str, fast: Any, seeds: Sequence[int]) -> runs.Outcome:
        place = replace(management, fast=fast, exp_path=str(Path(options.out) / "gan_fast" / path))
        return runs.run_all([one for name in NAMES for one in runs.plan(name, seeds, place, **changes)])

    plain, fast = outcome("plain", "no", seeds), outcome("fast", "yes", seeds[:1])
    assert plain.images is not None
    fid_name, rows = gan_samples.network_of(plain.images).names[1], []
    for one in fast.runs:
        others = [plain.results[other.label] for other in plain.runs if other.name == one.name]
        row = compare_curves([result or {} for result in (fast.results[one.label], *others)], fid_name)
        rows.append({"name": one.name, "loss": one.hp.loss_type, **row})
    draw(options.figures / "gan_fast_curves.svg", rows)
    frame = study.frame(plain, scale)
    frame["full_options"]["max_iters"] = plain.runs[0].hp.max_iters  # the full comparison is of the first updates too
    return {**frame, "seeds": list(seeds), "runs": rows}


def compare_curves(results: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """How far apart curves of the metric are: the root mean square of their difference, over the lines of a run.

    Args:
        results: The fast run, the plain one of the same seed, plain ones of other seeds.
        name: The distance's.
    """
    steps = [line["step"] for line in results[0]["metrics"] if "metric" in line]
    curves = [np.array([line["metric"] for line in result["metrics"] if "metric" in line]) for result in results]
    fast, *plain = curves
    between = [float(np.sqrt(np.mean((a - b) ** 2))) for a, b in combinations(plain, 2)]
    same = float(np.sqrt(np.mean((fast - plain[0]) ** 2)))
    scores = [result["final"][name] for result in results]
    return {
        "steps": steps,
        "fast": fast.tolist(),
        "plain": [curve.tolist() for curve in plain],
        "fast_from_plain": same,
        "between_seeds": spread(between),
        "within_spread": same <= max(between),
        "fast_score": scores[0],
        "plain_scores": spread(scores[1:]),
    }


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The metric of the fast path over those of the plain one."""
    with figures.figure(path, columns=len(rows), size=(figures.WIDTH / len(rows), 2.1)) as columns:
        for axes, row in zip(columns, rows, strict=True):
            for i, curve in enumerate(row["plain"]):
                colour = figures.COLOURS[0] if i == 0 else "0.6"
                label = ("plain, same seed", "plain, other seeds", None)[min(i, 2)]
                axes.plot(row["steps"], curve, color=colour, linewidth=1.0, label=label, zorder=3 - i)
            axes.plot(row["steps"], row["fast"], "--", color=figures.COLOURS[1], label="fast", zorder=4)
            axes.set(title=row["name"], xlabel="generator updates", ylabel=f"metric ({row['loss']})")
            if row["loss"] == "W1":
                # It falls by two orders of magnitude.
                figures.logarithmic(axes, [value for curve in (row["fast"], *row["plain"]) for value in curve])
        columns[0].legend()
