"""The study of question 2.7: five configurations, metrics and scores over training, and what the scores are worth.

With CUDA it is the full study. Without, a reduced one, of narrow networks and few updates, that says so wherever its
numbers are shown.
"""

import json
import math
import statistics
from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

import benchmarks.gan
import data
from experiments import gan_samples
from experiments.options import Options
from lab import figures
from lab.device import choose_device
from lab.estimates import spread
from lab.options import determining
from question2 import classifier, image_plots
from question2 import images as image_runs
from question2.configurations import CONFIGURATIONS, Hyperparameters, Management, Run, plan

SEEDS = (31415, 1, 2)
# What each scale changes: hyper-parameters, and what manages the runs. The full study changes no hyper-parameter.
SCALES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {"dataset": "cifar10"}),
    "reduced": (
        {"generator_dimh": 32, "critic_dimh": 32, "max_iters": 10_000},
        {
            "dataset": "cifar10",
            "scores": "classifier",
            "log_every": 50,
            "eval_every": 500,
            "eval_samples": 5000,
            "final_samples": 20_000,
        },
    ),
    "quick": (
        {"generator_dimz": 8, "batch_size": 8, "generator_dimh": 4, "critic_dimh": 4, "max_iters": 30},
        {
            "dataset": "digits",
            "scores": "classifier",
            "log_every": 5,
            "eval_every": 10,
            "eval_samples": 100,
            "final_samples": 200,
        },
    ),
}


def run(options: Options) -> dict[str, Any]:
    """Run the configurations, or go on with them, and draw what came of it."""
    scale = choose_scale(options)
    if scale == "full":
        print(f"the full study: training takes about {minutes_of_training(options):.0f} minutes here", flush=True)
    runs, images, results = image_runs.run_all(planned(options, scale))
    names = gan_samples.network_of(images).names
    by_name: dict[str, list[Run]] = {}
    for one in runs:
        by_name.setdefault(one.name, []).append(one)
    rows = []
    for name, of_name in by_name.items():
        row = summarise(of_name, [results[one.label] or {} for one in of_name], names)
        rows.append(row)
        image_plots.save_sheet(options.figures / f"gan_sheet_{name}.jpg", of_name[0].folder)
        last = image_plots.read_grid(of_name[0].folder / f"samples_{of_name[0].hp.max_iters:06}.png")
        figures.photograph(options.figures / f"gan_samples_{name}.jpg", last[None], columns=1, padding=0)
    gan_samples.draw_real(options.figures / "gan_samples_real.jpg", images)
    draw_critics(options.figures / "gan_critics.svg", rows)
    best = min(rows, key=lambda row: row["final"][names[1]]["mean"])
    first = by_name[best["name"]][0]
    generator = image_runs.load_generator(first.folder / "generator.pt", images.train.device)
    labelled = data.cifar10(options.data) if images.dataset == "cifar10" else None
    copied = gan_samples.draw_neighbours(
        options.figures / "gan_neighbours.jpg", generator, images, labelled and labelled.test
    )
    gan_samples.draw_interpolation(options.figures / "gan_interpolation.jpg", generator)
    eval_step = images.evaluation(generator.dimz)
    corrupted = gan_samples.corruption_scores(images, labelled, eval_step, images.management.eval_samples)
    anchors = gan_samples.anchors(images, eval_step, count=100 if options.quick else 10_000)
    gan_samples.draw_corruptions(options.figures / "gan_corruptions.svg", corrupted, names[1])
    draw_curves(options.figures / "gan_curves.svg", rows, names[1], anchors)
    return {
        **frame(runs, images, scale),
        "seeds": [one.hp.seed for one in by_name[best["name"]]],
        "configurations": rows,
        "best": best["name"],
        "copying": copied,
        "classifier": json.loads(classifier.WEIGHTS.with_suffix(".json").read_text()),
        "corruptions": corrupted,
        "anchors": anchors,
    }


def planned(options: Options, scale: str) -> list[Run]:
    """The study's runs."""
    changes, managed = SCALES[scale]
    management = Management(
        exp_path=str(Path(options.out) / "gan"), data_path=options.data, device=options.device, **managed
    )
    return plan("cifar10-*", options.seeds(SEEDS[: options.gan_seeds]), management, **changes)


def choose_scale(options: Options) -> str:
    """The size of the study that this machine can do."""
    if options.quick:
        return "quick"
    return "full" if choose_device(options.device).type == "cuda" else "reduced"


def minutes_of_training(options: Options) -> float:
    """How long the full study trains on this machine, from some updates of each kind of configuration."""
    measured = benchmarks.gan.measure(benchmarks.gan.Options(rounds=1, device=options.device))["kinds"].values()
    # One configuration with a free critic, two with spectral normalisation, two with R1.
    free, sn, r1 = (kind["median"]["fast"] for kind in measured)
    return options.gan_seeds * (free + 2 * sn + 2 * r1) * Hyperparameters.max_iters / 60e3


def frame(runs: Sequence[Run], images: image_runs.Images, scale: str) -> dict[str, Any]:
    """What the numbers of a study depend on; its first run stands for all."""
    first = runs[0]
    return {
        "dataset": images.dataset,
        "scale": scale,
        "scores": dict(zip(("is", "fid"), images.network.names if images.network else (), strict=False)),
        "options": {**determining(first.hp), **determining(first.management)},
        "full_options": determining(CONFIGURATIONS[first.name]),
    }


def summarise(of_name: Sequence[Run], results: Sequence[dict[str, Any]], names: tuple[str, str]) -> dict[str, Any]:
    """What the seeds of one configuration came to: each run by itself, and means with their spread."""
    hp, rows = of_name[0].hp, [summarise_run(result, names) for result in results]
    ranks = {
        key: [row[key] for row in rows if row[key] is not None]
        for key in ("rank_correlation", "rank_correlation_later")
    }
    return {
        "name": of_name[0].name,
        "loss": hp.loss_type,
        "spectral_norm": hp.critic_use_sn,
        "penalty": hp.critic_reg_type,
        "weight": hp.critic_reg_cf if hp.critic_reg_type else None,
        "runs": [{"seed": one.hp.seed, **row} for one, row in zip(of_name, rows, strict=True)],
        "final": {name: spread([row["final"][name] for row in rows]) for name in names},
        "final_without_average": {name: spread([row["final_without_average"][name] for row in rows]) for name in names},
        "last_metric": spread([row["metric"][-1][1] for row in rows]),
        **{key: spread(values) if values else None for key, values in ranks.items()},
        "milliseconds": statistics.median(row["milliseconds"] for row in rows),
    }


def summarise_run(result: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """A run's curves, its last scores, and the rank correlation of metric and distance, over all and after the start.

    The metric belongs to the generator that is trained, so the distance that it is compared with is that one's too,
    and not its average's.
    """
    is_name, fid_name = names
    metrics = [(line["step"], line["metric"]) for line in result["metrics"] if "metric" in line]
    scored = [line for line in result["metrics"] if fid_name in line]
    # The last one has another number of samples.
    scored = [line for line in scored if line["step"] < metrics[-1][0]]
    # The metric at an evaluation is its mean over the updates since the one before.
    steps = [0, *(line["step"] for line in scored)]
    means = [np.mean([v for step, v in metrics if before < step <= after]) for before, after in pairwise(steps)]
    of_trained = [line[f"{fid_name}_trained"] for line in scored]
    rank, p_value = _rank_correlation(means, of_trained)
    # Both fall at first, whatever the loss: how they go on after a quarter of the updates tells more.
    later = sum(4 * line["step"] <= metrics[-1][0] for line in scored)
    # The median, because a run may have waited on other work.
    timed = [(0, 0.0), *((line["step"], line["seconds"]) for line in result["metrics"] if "seconds" in line)]
    pace = statistics.median((end - start) / (after - before) for (before, start), (after, end) in pairwise(timed))
    return {
        "metric": metrics,
        "curve": [(line["step"], line[fid_name], line[is_name]) for line in scored],
        "trained_curve": [(line["step"], line[f"{fid_name}_trained"], line[f"{is_name}_trained"]) for line in scored],
        "critic": [(line["step"], line["cp"], line["cq"]) for line in scored],
        "final": result["final"],
        "final_without_average": {name: result["final"].get(f"{name}_trained") for name in names},
        "rank_correlation": rank,
        "p_value": p_value,
        "rank_correlation_later": _rank_correlation(means[later:], of_trained[later:])[0],
        "milliseconds": 1e3 * pace,
    }


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float | None, float | None]:
    """Spearman's rank correlation and its p-value; None where there are too few values or one is constant."""
    if len(first) <= 2:
        return None, None
    rank, p_value = spearmanr(first, second)
    return None if math.isnan(rank) else float(rank), None if math.isnan(p_value) else float(p_value)


def draw_curves(path: Path, rows: Sequence[dict[str, Any]], name: str, anchors: Sequence[dict[str, Any]] = ()) -> None:
    """A panel for each configuration, and where there are sets to place them between, one with all distances."""
    panels = len(rows) + bool(anchors)
    columns = min(2, panels)
    size = (figures.WIDTH / 2, 1.85)
    with figures.figure(path, columns=columns, rows=-(-panels // columns), size=size) as places:
        for axes, row in zip(places, rows, strict=False):
            curves = [
                image_plots.Curves(
                    run["metric"], *([line[:2] for line in run[key]] for key in ("curve", "trained_curve"))
                )
                for run in row["runs"]
            ]
            image_plots.draw_curves(axes, curves, row["loss"], name)
            axes.set_title(row["name"])
        if anchors:
            draw_distances(places[len(rows)], rows, anchors, name)
        for axes in places[panels:]:
            axes.set_visible(False)


def draw_distances(axes: Axes, rows: Sequence[dict[str, Any]], anchors: Sequence[dict[str, Any]], name: str) -> None:
    """The distances of all averaged generators over training, between those of sets that everybody knows.

    In other colours than the metric's and the distance's, since here a colour is a configuration. A set far below all
    generators is named at the foot.
    """
    colours = ["black", *figures.COLOURS[2:4], figures.COLOURS[5], "0.5"]
    dashings = ["-", "--", ":", "-.", (0, (8, 2))]
    for row, colour, dashes in zip(rows, cycle(colours), cycle(dashings)):
        steps, fids, _ = zip(*row["runs"][0]["curve"], strict=True)
        axes.plot(steps, fids, linestyle=dashes, color=colour, label=row["name"].removeprefix("cifar10-"))
    lowest = 0.5 * min(fid for row in rows for _, fid, _ in row["runs"][0]["curve"])
    for anchor in anchors:
        if anchor["name"] != "training images":  # which lie where the held-out ones do
            place = max(anchor["FID"], lowest)
            axes.axhline(place, color="black", linewidth=0.6)
            axes.text(steps[-1], place, f"{anchor['name']}: {anchor['FID']:.2g}", ha="right", va="bottom")
    figures.logarithmic(axes, (lowest, max(anchor["FID"] for anchor in anchors)))
    axes.set_ylim(lowest, 2 * max(anchor["FID"] for anchor in anchors))
    axes.set(title="all of them", xlabel="generator updates", ylabel=name)
    axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.5)


def draw_critics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The critic's mean value at held-out real images and at generated ones over training, and their difference."""
    size = (figures.WIDTH / len(rows), 1.6)
    with figures.figure(path, columns=len(rows), rows=2, size=size) as places:
        upper, lower = places[: len(rows)], places[len(rows) :]
        for means, difference, row in zip(upper, lower, rows, strict=True):
            steps, real, fake = np.array(row["runs"][0]["critic"]).T
            means.plot(steps, real, color=figures.COLOURS[2], label="real")
            means.plot(steps, fake, "--", color=figures.COLOURS[3], label="generated")
            means.set_title(row["name"].removeprefix("cifar10-"))
            difference.axhline(0, color="grey", linewidth=0.6)
            difference.plot(steps, real - fake, color="black")
            for axes in (means, difference):
                axes.xaxis.set_major_locator(MaxNLocator(2, prune="upper"))
                axes.yaxis.set_major_locator(MaxNLocator(4))
            means.tick_params(labelbottom=False)
        upper[0].set_ylabel("critic's mean")
        lower[0].set_ylabel("difference")
        drawing = upper[0].figure
        drawing.supxlabel("generator updates")
        handles = upper[0].get_legend_handles_labels()
        drawing.legend(*handles, loc="outside upper right", ncols=2, borderaxespad=0)
