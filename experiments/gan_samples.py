"""What the study asks of generated images: are they copies, and what does their distance mean?"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from gan import EvalStep, to_uint8
from lab import figures
from model import Generator
from question2 import score
from question2.images import Images


@torch.no_grad()
def copying(path: Path, generator: Generator, images: Images, count: int = 1000, rows: int = 8) -> dict[str, Any]:
    """Draw images and, right of each, the training images next to it in feature space: does a generator copy?"""
    assert images.network is not None
    real = images.test[:count]
    noise = torch.randn(len(real), generator.dimz, generator=torch.Generator().manual_seed(1)).to(real.device)
    fake = torch.cat([to_uint8(generator(z)) for z in noise.split(500)])
    distance, index = nearest(images.network, torch.cat([fake, real]), images.train, neighbours=6)
    near = images.train[torch.from_numpy(index[:rows]).to(real.device)]
    left, right = torch.cat([fake[:rows, None], near], dim=1).chunk(2)
    picture = torch.cat([left, torch.full_like(left[:, :1], 255), right], dim=1)  # two blocks, a blank column between
    figures.photograph(path, picture.flatten(0, 1), columns=picture.shape[1])
    nearer = data_copying(distance[: len(fake), 0], distance[len(fake) :, 0])
    return {"count": len(fake), "probability_nearer": nearer}


@torch.no_grad()
def nearest(network: score.Network, queries: Tensor, train: Tensor, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The k training images next to each query in feature space: Euclidean distances, ascending, and indices, (Q, k).

    Images are uint8, ``(Q, 3, H, W)`` and ``(N, 3, H, W)``.
    """
    features, known = (
        torch.cat([network.module(batch)[0] for batch in images.split(500)]).cpu().numpy()
        for images in (queries, train)
    )
    return NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(known).kneighbors(features)


def data_copying(generated: np.ndarray, held_out: np.ndarray) -> float:
    r"""Whether generated images are nearer to training images than fresh real images are (Meehan et al. 2020).

    .. math:: P(d_\text{generated} < d_\text{held out}) + \tfrac12 P(d_\text{generated} = d_\text{held out})

    One half for the data's own distribution, near one for a generator that copies, near zero for one whose images are
    far from any real one. Both are distances to the nearest training image.
    """
    farther = mannwhitneyu(generated, held_out).statistic
    return float(1 - farther / (len(generated) * len(held_out)))


def damaged(images: Images, labels: Tensor | None, count: int) -> dict[str, dict[float, Tensor]]:
    """Known damage to real images: its kind, its strength, and ``count`` images.

    ``labels`` are the classes of the held-out images, where they have some.
    """
    random, train, test = torch.Generator().manual_seed(0), images.train, images.test
    some = test[torch.randperm(len(test), generator=random)[:count]]
    noise = torch.randn(some.shape, generator=random).to(test.device)
    kinds: dict[str, dict[float, Tensor]] = {
        "noise": {s: (some + s * noise).clamp(0, 255).to(torch.uint8) for s in (0.0, 2.0, 5.0, 10.0, 20.0)},
        "blur": {s: gaussian_blur(some, [7, 7], [s] * 2) if s else some for s in (0.0, 0.4, 0.6, 0.8, 1.2)},
    }
    if labels is not None:
        kept = {missing: (labels >= missing).nonzero().flatten() for missing in (0, 1, 2, 4, 8)}
        drawn = {m: which[torch.randint(len(which), (count,), generator=random)] for m, which in kept.items()}
        kinds["missing classes"] = {missing: test[index] for missing, index in drawn.items()}
    few = {n: torch.randperm(len(train), generator=random)[: max(2, count // n)] for n in (1, 5, 20, 100)}
    kinds["memorised subset"] = {n: train[index[torch.arange(count) % len(index)]] for n, index in few.items()}
    return kinds


def corruptions(images: Images, labels: Tensor | None, eval_step: EvalStep, count: int) -> list[dict[str, Any]]:
    """The distances of :func:`damaged` images by kind."""
    rows = []
    for kind, sets in damaged(images, labels, count).items():
        distances = [score.distance(eval_step, batch)["FID"] for batch in sets.values()]
        rows.append({"kind": kind, "strengths": list(sets), "distances": distances})
    return rows


def anchors(images: Images, eval_step: EvalStep, count: int) -> list[dict[str, Any]]:
    """Scores of sets that a reader can place others between: real images, held out and trained on, and noise."""
    random = torch.Generator().manual_seed(0)
    uniform = torch.randint(0, 256, (count, *images.train.shape[1:]), generator=random, dtype=torch.uint8)
    sets = {
        "held-out images": images.test[:count],
        "training images": images.train[torch.randperm(len(images.train), generator=random)[:count]],
        "uniform noise": uniform.to(images.train.device),
    }
    rows = [{"name": name, "count": len(batch), **score.distance(eval_step, batch)} for name, batch in sets.items()]
    return [{key: row[key] for key in ("name", "count", "IS", "FID", "KID")} for row in rows]
