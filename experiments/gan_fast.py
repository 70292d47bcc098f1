"""Does the fast path of training learn what the plain one learns? Both over the first updates of question 2.7."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import run_exp
from experiments import gan as gan_study
from experiments.gan import SEEDS
from lab import figures
from lab.estimates import spread

NAMES = ("cifar10-jsd-2", "cifar10-w1-3")  # one of each loss and of each bound on the critic
SCALES = {
    "full": "--dataset cifar10 --max_iters 2000 --log_every 50 --eval_every 2000 --final_samples 20000",
    "reduced": f"--dataset cifar10 {gan_study.NARROW.format(16, 2000, 50, 2000)} --final_samples 20000",
    "quick": f"--dataset digits --dimz 8 --batch_size 8 {gan_study.NARROW.format(4, 20, 5, 20)} --final_samples 100",
}


def compare(out: Path, data_root: str, quick: bool, device: str = "auto") -> dict[str, Any]:
    """The first updates of the fast path beside those of the plain one: from the same seed, and from others.

    Games of two networks amplify rounding, so curves of the same seed part as well. What is asked is whether the fast
    path parts from the plain one by more than two seeds of the plain one part from each other.

    Args:
        out: Folder of the runs, in ``gan_fast/plain`` and ``gan_fast/fast``, and of the ``figures``.
        data_root, quick, device: As for :func:`gan_study.study`.
    """
    scale = gan_study.choose_scale(quick, device)
    flags = ["--data", data_root, "--device", device, *SCALES[scale].split()]

    def planned(path: str, fast: str, seeds: Sequence[int]) -> list[run_exp.Run]:
        argv = ["--fast", fast, "--out", str(out / "gan_fast" / path), *flags, "--seed", *map(str, seeds)]
        return [run for name in NAMES for run in run_exp.plan(["--config", name, *argv])]

    plain, fast = planned("plain", "no", SEEDS), planned("fast", "yes", SEEDS[:1])
    results = {path: run_exp.run_all(runs) for path, runs in (("plain", plain), ("fast", fast))}
    images = run_exp.load_images(plain[0].management)
    rows = []
    for run in fast:
        others = [other for other in plain if other.name == run.name]
        found = [results["fast"][run.folder.name], *(results["plain"][other.folder.name] for other in others)]
        rows.append({"name": run.name, "loss": run.hp.loss_type} | compare_curves(found, images.scorer.names[1]))
    (out / "figures").mkdir(parents=True, exist_ok=True)
    draw(out / "figures" / "gan_fast_curves.svg", rows)
    held = gan_study.frame(plain[0], images, scale)
    held["full_options"]["max_iters"] = plain[0].hp.max_iters  # the full comparison is of the first updates too
    return {**held, "seeds": list(SEEDS), "runs": rows}


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
    with figures.figure(path, columns=len(rows)) as columns:
        for axes, row in zip(columns, rows, strict=True):
            for i, curve in enumerate(row["plain"]):
                colour = figures.COLOURS[0] if i == 0 else "0.6"
                label = ("plain, same seed", "plain, other seeds", None)[min(i, 2)]
                axes.plot(row["steps"], curve, color=colour, linewidth=1.0, label=label, zorder=3 - i)
            axes.plot(row["steps"], row["fast"], "--", color=figures.COLOURS[1], label="fast", zorder=4)
            axes.set(title=row["name"], xlabel="generator updates", ylabel=f"metric ({row['loss']})")
            if row["loss"] == "W1":
                axes.set_yscale("log")  # it falls by two orders of magnitude
        columns[0].legend(fontsize=7)
