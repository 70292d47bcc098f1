"""The study of question 2.7: five configurations, metrics and scores over training, and what the scores are worth.

With CUDA it is the full study. Without, a reduced one, of narrow networks and few updates, that says so wherever its
numbers are shown. Runs of other widths are taken in where they have finished, in ``OUT/gan_width_16`` and so on:

    python run_exp.py --config "cifar10-*-3" --out OUT/gan_width_16 --generator_dimh 16 --critic_dimh 16 ...
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data
from experiments import gan_figures, gan_samples
from experiments.gan_summary import configurations, curve, differences
from experiments.options import Options
from lab.device import choose_device
from lab.figures import captioned
from lab.files import read_json
from lab.options import determining
from question2 import classifier
from question2 import images as image_runs
from question2.configurations import CONFIGURATIONS, Management, Run, plan

MINUTES = {"full": 600}
USES = ("gan_seeds", "cuda")
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
    """Run the configurations, or resume them; summarise and draw the results."""
    on_cuda = choose_device(options.device).type == "cuda"
    scale = "quick" if options.quick else "full" if on_cuda else "reduced"
    runs, images, results = image_runs.run_all(planned(options, scale))
    suffix = suffix_of(images)
    rows = configurations(runs, results, suffix)
    best = min(rows, key=lambda row: row["final"][f"FID{suffix}"]["mean"])["name"]
    generator = image_runs.load_generator(next(one for one in runs if one.name == best).folder / "generator.pt")
    caption = f"{best}: generated images (left of each block) and the training images nearest in feature space."
    neighbours = captioned(options.figures / "gan_neighbours.jpg", caption)
    eval_step = images.evaluation(generator.dimz)
    labels = data.cifar10(options.data).test_labels if images.dataset == "cifar10" else None
    summary = {
        **frame(runs, images, scale),
        "seeds": list(dict.fromkeys(one.hp.seed for one in runs)),
        "configurations": rows,
        "differences": differences(rows),
        "widths": widths(options.folder, suffix),
        "best": best,
        "classifier": json.loads(classifier.WEIGHTS.with_suffix(".json").read_text()),
        "copying": gan_samples.copying(neighbours, generator.to(images.train.device), images),
        "corruptions": gan_samples.corruptions(images, labels, eval_step, images.management.eval_samples),
        "anchors": gan_samples.anchors(images, eval_step, count=100 if options.quick else 10_000),
    }
    gan_figures.draw_study(options.figures, summary)
    gan_figures.draw_images(options.figures, runs, images)
    return summary


def planned(options: Options, scale: str) -> list[Run]:
    """The study's runs."""
    changes, managed = SCALES[scale]
    where: dict[str, Any] = {"data_path": options.data, "device": options.device}
    seeds = options.seeds(SEEDS[: 2 if options.quick else options.gan_seeds])
    return plan("cifar10-*", seeds, Management(exp_path=str(options.folder / "gan"), **where, **managed), **changes)


def frame(runs: Sequence[Run], images: image_runs.Images, scale: str) -> dict[str, Any]:
    """What the numbers of a study depend on; its first run stands for all."""
    first, suffix = runs[0], suffix_of(images)
    return {
        "dataset": images.dataset,
        "scale": scale,
        "scores": {name.lower(): f"{name}{suffix}" for name in ("IS", "FID", "KID")},
        "options": {**determining(first.hp), **determining(first.management)},
        "full_options": determining(CONFIGURATIONS[first.name]),
    }


def suffix_of(images: image_runs.Images) -> str:
    """What follows the scores' names: ``-C`` for those by the classifier."""
    assert images.network is not None
    return images.network.suffix


def widths(folder: Path, suffix: str) -> list[dict[str, Any]]:
    """The distances over training of the finished runs with R1, of the study's width and of others."""
    found = []
    for path in [*folder.glob("gan/cifar10-*-3-*"), *folder.glob("gan_width_*/cifar10-*-3-*")]:
        config, result = read_json(path / "config.json"), read_json(path / "result.json")
        if config and result:
            shared = {"name": config["config"], "width": config["generator_dimh"], "seed": config["seed"]}
            found.append({**shared, "curve": curve(result["metrics"], f"FID{suffix}"), "final": result["final"]})
    return sorted(found, key=lambda row: (row["name"], row["width"], row["seed"]))
