"""The study of question 2.7: five configurations, metrics and scores over training, and what the scores are worth.

With CUDA it is the full study. Without, a reduced one, of narrow networks and few updates, that says so wherever its
numbers are shown.
"""

import json
import math
import shutil
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu, spearmanr
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from torchvision.utils import save_image

import data
import run_exp
from lab import checkpoint, figures
from lab.estimates import spread
from model import Generator
from question2 import classifier, image_gan, score

SEEDS = (31415, 1, 2)
# What the command line adds to the configurations: nothing for the full study.
NARROW = "--scores classifier --generator_dimh {0} --critic_dimh {0} --max_iters {1} --log_every {2} --eval_every {3}"
SCALES = {
    "full": "--dataset cifar10",
    "reduced": f"--dataset cifar10 {NARROW.format(16, 3000, 50, 300)} --eval_samples 5000 --final_samples 20000",
    "quick": f"--dataset digits --dimz 8 --batch_size 8 {NARROW.format(4, 30, 5, 10)}"
    " --eval_samples 100 --final_samples 200",
}
MANAGED = ("log_every", "eval_every", "eval_samples", "final_samples", "fid_reference", "scores")


def study(out: Path, data_root: str, quick: bool, device: str = "auto", seeds: int = 1) -> dict[str, Any]:
    """Run the configurations, or go on with them, and draw what came of it.

    Args:
        out: Folder of the runs, in ``gan``, and of the ``figures``.
        data_root: Folder where data sets lie or are put.
        quick: Tiny networks and the stand-in data.
        device: As for ``run_exp.py``.
        seeds: How many of ``SEEDS``.
    """
    scale = choose_scale(quick, device)
    argv = ["--config", "cifar10-*", "--out", str(out / "gan"), "--data", data_root, "--device", device]
    runs = run_exp.plan([*argv, *SCALES[scale].split(), "--seed", *map(str, SEEDS[:seeds])])
    results = run_exp.run_all(runs)
    images = run_exp.load_images(runs[0].management)
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    rows = []
    for first in runs[::seeds]:
        of_name = [run for run in runs if run.name == first.name]
        row = summarise(of_name, [results[run.folder.name] for run in of_name], images.scorer.names)
        rows.append(row)
        draw_curves(figures / f"gan_curve_{first.name}.svg", row, images.scorer.names[1])
        shutil.copy(first.folder / f"samples_{first.hp.max_iters:06}.png", figures / f"gan_samples_{first.name}.png")
    best = min(rows, key=lambda row: row["final"][images.scorer.names[1]]["mean"])
    run = next(run for run in runs if run.name == best["name"])
    generator = image_gan.load_generator(run.folder / "generator.pt", images.train.device)
    held = data.cifar10(data_root) if images.dataset == "cifar10" else None
    copied = draw_neighbours(figures / "gan_neighbours.png", generator, run.hp, images, held and held.test)
    draw_interpolation(figures / "gan_interpolation.png", generator, run.hp)
    corrupted = corruption_scores(images, held, count=100 if quick else 5000)
    draw_corruptions(figures / "gan_corruptions.svg", corrupted, images.scorer.names[1])
    return {
        **frame(runs[0], images, scale),
        "seeds": list(SEEDS[:seeds]),
        "configurations": rows,
        "best": best["name"],
        "copying": copied,
        "classifier": json.loads(classifier.WEIGHTS.with_suffix(".json").read_text()),
        "corruptions": corrupted,
    }


def choose_scale(quick: bool, device: str) -> str:
    """The size of the study that this machine can do."""
    return "quick" if quick else "full" if torch.cuda.is_available() and device != "cpu" else "reduced"


def frame(first: run_exp.Run, images: run_exp.Images, scale: str) -> dict[str, Any]:
    """What the numbers of a study depend on; its first run stands for all."""
    return {
        "dataset": images.dataset,
        "scale": scale,
        "scores": dict(zip(("is", "fid"), images.scorer.names, strict=True)),
        "options": {**vars(first.hp), **{k: getattr(first.management, k) for k in MANAGED}},
        "full_options": {**vars(run_exp.CONFIGURATIONS[first.name])},
    }


def summarise(runs: Sequence[run_exp.Run], results: Sequence[dict[str, Any]], names: tuple[str, str]) -> dict[str, Any]:
    """What the seeds of one configuration came to: each run by itself, and means with their spread."""
    hp, rows = runs[0].hp, [summarise_run(result, names) for result in results]
    ranks = [row["rank_correlation"] for row in rows if row["rank_correlation"] is not None]
    return {
        "name": runs[0].name,
        "loss": hp.loss_type,
        "spectral_norm": hp.spectral_norm,
        "penalty": hp.reg_type,
        "runs": [{"seed": run.hp.seed, **row} for run, row in zip(runs, rows, strict=True)],
        **{
            key: {name: spread([row[key][name] for row in rows]) for name in names}
            for key in ("final", "final_without_average")
        },
        "last_metric": spread([row["metric"][-1][1] for row in rows]),
        "rank_correlation": spread(ranks) if ranks else None,
        "milliseconds": statistics.median(row["milliseconds"] for row in rows),
    }


def summarise_run(result: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """A run's curves, its last scores, and the rank correlation of metric and distance over training."""
    metrics = [(line["step"], line["metric"]) for line in result["metrics"] if "metric" in line]
    scores = [(line["step"], line[names[1]], line[names[0]]) for line in result["metrics"] if names[1] in line]
    curve = [score for score in scores if score[0] < metrics[-1][0]]  # the last one has another number of samples
    # The metric at an evaluation is its mean over the updates since the one before.
    steps = [0, *(step for step, *_ in curve)]
    means = [np.mean([v for step, v in metrics if before < step <= after]) for before, after in pairwise(steps)]
    rank = spearmanr(means, [fid for _, fid, _ in curve]) if len(curve) > 2 else (math.nan, math.nan)
    timed = [line for line in result["metrics"] if "seconds" in line]
    return {
        "metric": metrics,
        "curve": curve,
        "final": result["final"],
        "final_without_average": result["final_without_average"],
        "rank_correlation": None if math.isnan(rank[0]) else float(rank[0]),
        "p_value": None if math.isnan(rank[1]) else float(rank[1]),
        "milliseconds": 1e3 * timed[-1]["seconds"] / timed[-1]["step"],
    }


def draw_curves(path: Path, row: dict[str, Any], name: str) -> None:
    """The metric and the distance over training, each with an axis of its own; seeds after the first are pale."""
    with figures.figure(path, size=(3.1, 2.2)) as (axes,):
        right = axes.twinx()
        for i, run in enumerate(row["runs"]):
            alpha = 0.3 if i else 1.0
            axes.plot(*zip(*run["metric"], strict=True), color=figures.COLOURS[0], linewidth=0.8, alpha=alpha)
            steps, fids, _ = zip(*run["curve"], strict=True)
            right.plot(steps, fids, color=figures.COLOURS[1], marker="o", markersize=2.5, alpha=alpha)
        axes.set_xlabel("generator updates")
        axes.set_ylabel(f"metric ({row['loss']})", color=figures.COLOURS[0])
        axes.set_title(row["name"])
        right.set_ylabel(name, color=figures.COLOURS[1])
        right.spines["right"].set_visible(True)
        right.set_ylim(bottom=0)
        right.grid(False)


@torch.no_grad()
def nearest(scorer: score.Network, queries: Tensor, train: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """The training images next to each query in feature space.

    Args:
        scorer: Whose features.
        queries: uint8, ``(Q, 3, H, W)``.
        train: uint8, ``(N, 3, H, W)``.
        neighbours: How many of them, k.

    Returns:
        Euclidean distances, ascending, and indices into ``train``, both ``(Q, k)``.
    """
    features = torch.cat([scorer.module(batch)[0] for batch in queries.split(500)])
    best = torch.full((len(queries), neighbours), torch.inf, device=features.device)
    index = torch.zeros_like(best, dtype=torch.int64)
    for start, batch in zip(range(0, len(train), 500), train.split(500), strict=True):
        distance = torch.cdist(features, scorer.module(batch)[0])
        both = torch.cat([best, distance], dim=1)
        here = torch.arange(start, start + len(batch), device=features.device).expand(len(queries), -1)
        best, order = both.topk(neighbours, largest=False)
        index = torch.cat([index, here], dim=1).gather(1, order)
    return best, index


def data_copying(generated: Tensor, held_out: Tensor) -> dict[str, float]:
    r"""Whether generated images are nearer to training images than fresh real images are (Meehan et al. 2020).

    .. math:: P(d_\text{generated} < d_\text{held out}) + \tfrac12 P(d_\text{generated} = d_\text{held out})

    One half for the data's own distribution, near one for a generator that copies, near zero for one whose images are
    far from any real one. The p-value is the Mann-Whitney test's, one-sided, against "nearer".

    Args:
        generated: Distances to the nearest training image, ``(N,)``.
        held_out: The same of real images that were not trained on, ``(M,)``.
    """
    a, b = generated.double().cpu().numpy(), held_out.double().cpu().numpy()
    farther, p_value = mannwhitneyu(a, b, alternative="less")
    return {
        "count": len(a),
        "generated": float(np.median(a)),
        "held_out": float(np.median(b)),
        "probability_nearer": float(1 - farther / (len(a) * len(b))),
        "p_value": float(p_value),
    }


def draw_neighbours(
    path: Path,
    generator: Generator,
    hp: Any,
    images: run_exp.Images,
    held_out: Tensor | None,
    count: int = 1000,
    rows: int = 8,
) -> dict[str, float] | None:
    """Generated images (left column) and the training images next to them in feature space: is it copying?

    Returns:
        What :func:`data_copying` says of ``count`` images, or None where there are no held-out images.
    """
    fake = torch.cat(list(score.generated(generator, hp.dimz, count if held_out is not None else rows, seed=1)))
    real = fake[:0] if held_out is None else held_out[:count].to(fake.device)
    distance, index = nearest(images.scorer, torch.cat([fake, real]), images.train, neighbours=6)
    picture = torch.cat([fake[:rows, None], images.train[index[:rows]]], dim=1).flatten(0, 1)
    _save(path, picture, columns=7)
    return None if held_out is None else data_copying(distance[: len(fake), 0], distance[len(fake) :, 0])


@torch.no_grad()
def draw_interpolation(path: Path, generator: Generator, hp: Any, rows: int = 5, columns: int = 10) -> None:
    """Walks between pairs of noise vectors, on the sphere on which such vectors lie."""
    noise = torch.randn(2, rows, hp.dimz, generator=torch.Generator().manual_seed(2))
    angle = torch.linspace(0, math.pi / 2, columns).view(1, -1, 1)
    z = (torch.cos(angle) * noise[0, :, None] + torch.sin(angle) * noise[1, :, None]).flatten(0, 1)
    _save(path, score.to_uint8(generator(z.to(next(generator.parameters()).device))), columns)


def _save(path: Path, images: Tensor, columns: int) -> None:
    with checkpoint.atomic_write(path) as temporary:
        save_image(images.cpu().float() / 255, temporary, nrow=columns)


def corruptions(
    images: Tensor, labels: Tensor | None, train: Tensor, count: int
) -> Iterator[tuple[str, float, Tensor]]:
    """Known damage to real images: its kind, its strength, and the images.

    Args:
        images: Held-out images, uint8.
        labels: Their classes, or None.
        train: Training images, some of which are "memorised".
        count: Images of each set.
    """
    random = torch.Generator().manual_seed(0)
    images_of = images[torch.randperm(len(images), generator=random)[:count]]
    noise = torch.randn(images_of.shape, generator=random).to(images.device)
    for sigma in (0, 2, 5, 10, 20):
        yield "noise", sigma, (images_of + sigma * noise).clamp(0, 255).to(torch.uint8)
    for sigma in (0.0, 0.4, 0.6, 0.8, 1.2):
        yield "blur", sigma, gaussian_blur(images_of, [7, 7], [sigma] * 2) if sigma else images_of
    if labels is not None:
        for missing in (0, 1, 2, 4, 8):
            kept = (labels >= missing).nonzero().flatten()
            yield "missing classes", missing, images[kept[torch.randint(len(kept), (count,), generator=random)]]
    for share in (1, 5, 20, 100):
        few = torch.randperm(len(train), generator=random)[: max(2, count // share)]
        yield "memorised subset", share, train[few[torch.arange(count) % len(few)]]


def corruption_scores(images: run_exp.Images, held: data.LabelledImages | None, count: int) -> list[dict[str, Any]]:
    """The distance of corrupted real images, kind by kind: of held-out ones, where the data set has some."""
    test, labels = (held.test.to(images.train.device), held.test_labels) if held else (images.train, None)
    rows: dict[str, dict[str, Any]] = {}
    for kind, strength, batch in corruptions(test, labels, images.train, count):
        distance = score.score(images.scorer, images.sums, batch.split(500), batch.device)[images.scorer.names[1]]
        row = rows.setdefault(kind, {"kind": kind, "strengths": [], "distances": []})
        row["strengths"].append(strength)
        row["distances"].append(distance)
    for row in rows.values():
        row["rises"] = row["distances"] == sorted(row["distances"])
    return list(rows.values())


def draw_corruptions(path: Path, rows: list[dict[str, Any]], name: str) -> None:
    """The distance over the strength of each kind of damage."""
    units = {
        "noise": "$\\sigma$ (of 255)",
        "blur": "$\\sigma$ (pixels)",
        "missing classes": "of 10",
        "memorised subset": "copies of each",
    }
    with figures.figure(path, columns=len(rows), size=(1.75, 1.8)) as columns:
        for axes, row in zip(columns, rows, strict=True):
            places = range(len(row["strengths"]))
            axes.plot(places, row["distances"], marker="o", markersize=3)
            axes.set_xticks(places, [f"{strength:g}" for strength in row["strengths"]])
            axes.set(title=row["kind"], xlabel=units[row["kind"]])
            axes.set_ylim(bottom=0)
        columns[0].set_ylabel(name)
