"""What the study asks of generated images: are they copies, and what does their distance mean?"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from torchvision.utils import make_grid

import data
from gan import EvalStep, to_uint8
from lab import figures
from model import Generator
from question2 import score
from question2.images import Images


@torch.no_grad()
def generated(generator: Generator, count: int, seed: int, batch_size: int = 500) -> Tensor:
    """What a generator draws from the same noise each time: uint8, ``(count, 3, 32, 32)``."""
    device = next(generator.parameters()).device
    noise = torch.randn(count, generator.dimz, generator=torch.Generator().manual_seed(seed))
    return torch.cat([to_uint8(generator(z.to(device))) for z in noise.split(batch_size)])


@torch.no_grad()
def nearest(network: score.Network, queries: Tensor, train: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """The training images next to each query in feature space.

    Args:
        network: Whose features.
        queries: uint8, ``(Q, 3, H, W)``.
        train: uint8, ``(N, 3, H, W)``.
        neighbours: How many of them, k.

    Returns:
        Euclidean distances, ascending, and indices into ``train``, both ``(Q, k)``.
    """
    features, known = (
        torch.cat([network.module(batch)[0] for batch in images.split(500)]) for images in (queries, train)
    )
    found = [torch.cdist(some, known).topk(neighbours, largest=False) for some in features.split(100)]
    return torch.cat([near.values for near in found]), torch.cat([near.indices for near in found])


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
    path: Path, generator: Generator, images: Images, held_out: Tensor | None, count: int = 1000, rows: int = 8
) -> dict[str, float] | None:
    """Generated images and, right of each, the training images next to it in feature space: is it copying?

    Returns:
        What :func:`data_copying` says of ``count`` images, or None where there are no held-out images.
    """
    fake = generated(generator, count if held_out is not None else rows, seed=1)
    real = fake[:0] if held_out is None else held_out[:count].to(fake.device)
    assert images.network is not None
    distance, index = nearest(images.network, torch.cat([fake, real]), images.train, neighbours=6)
    left, right = torch.cat([fake[:rows, None], images.train[index[:rows]]], dim=1).chunk(2)
    picture = torch.cat([left, torch.full_like(left[:, :1], 255), right], dim=1)  # two blocks, a blank column between
    figures.photograph(path, picture.flatten(0, 1), columns=picture.shape[1])
    return None if held_out is None else data_copying(distance[: len(fake), 0], distance[len(fake) :, 0])


def draw_real(path: Path, images: Images) -> None:
    """Held-out images in a grid like those of the runs, to set beside them."""
    some = torch.randperm(len(images.test), generator=torch.Generator().manual_seed(0))[:64]
    figures.photograph(path, make_grid(images.test.cpu()[some], nrow=8)[None], columns=1, padding=0)


@torch.no_grad()
def draw_interpolation(path: Path, generator: Generator, rows: int = 5, columns: int = 10) -> None:
    """Walks between pairs of noise vectors, on the sphere on which such vectors lie."""
    noise = torch.randn(2, rows, generator.dimz, generator=torch.Generator().manual_seed(2))
    angle = torch.linspace(0, math.pi / 2, columns).view(1, -1, 1)
    z = (torch.cos(angle) * noise[0, :, None] + torch.sin(angle) * noise[1, :, None]).flatten(0, 1)
    figures.photograph(path, to_uint8(generator(z.to(next(generator.parameters()).device))), columns)


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
    for sigma in (0.0, 2.0, 5.0, 10.0, 20.0):
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


def corruption_scores(
    images: Images, labelled: data.LabelledImages | None, eval_step: EvalStep, count: int
) -> list[dict[str, Any]]:
    """The distance of corrupted real images, kind by kind: of held-out ones, where the data set has classes."""
    test, labels = (labelled.test.to(images.train.device), labelled.test_labels) if labelled else (images.train, None)
    rows: dict[str, dict[str, Any]] = {}
    for kind, strength, batch in corruptions(test, labels, images.train, count):
        found = score.distance(eval_step, batch)
        row = rows.setdefault(kind, {"kind": kind, "strengths": [], "distances": [], "inception_scores": []})
        row["strengths"].append(strength)
        row["distances"].append(found["FID"])
        row["inception_scores"].append(found["IS"])
    for row in rows.values():
        row["rises"] = row["distances"] == sorted(row["distances"])
    return list(rows.values())


def anchors(images: Images, eval_step: EvalStep, count: int) -> list[dict[str, Any]]:
    """Scores of sets that a reader can place others between: real images, held out and trained on, and noise."""
    random = torch.Generator().manual_seed(0)
    uniform = torch.randint(0, 256, (count, *images.train.shape[1:]), generator=random, dtype=torch.uint8)
    some = torch.randperm(len(images.train), generator=random)[:count]
    sets = {
        "held-out images": images.test[:count],
        "training images": images.train[some],
        "uniform noise": uniform.to(images.train.device),
    }
    rows = []
    for name, batch in sets.items():
        found = score.distance(eval_step, batch.contiguous())
        rows.append({"name": name, "count": len(batch), **{key: found[key] for key in ("IS", "FID", "KID")}})
    return rows


def draw_corruptions(path: Path, rows: Sequence[dict[str, Any]], name: str) -> None:
    """The distance over the strength of each kind of damage."""
    units = {
        "noise": "$\\sigma$ (of 255)",
        "blur": "$\\sigma$ (pixels)",
        "missing classes": "missing, of 10",
        "memorised subset": "copies of each",
    }
    with figures.figure(path, columns=len(rows), size=(figures.WIDTH / len(rows), 1.6)) as columns:
        for axes, row in zip(columns, rows, strict=True):
            axes.plot(row["strengths"], row["distances"], marker="o", markersize=3)
            axes.set(title=row["kind"], xlabel=units[row["kind"]])
            if row["kind"] == "memorised subset":
                axes.set_xscale("log")
            axes.set_ylim(bottom=0)
        columns[0].set_ylabel(name)
