"""The speed of training planar flows against the textbook loop.

Timed in turns, for each depth: an update of the textbook loop (a module per layer, ``.item()`` each time) and of ours
(compiled; one flow, and a pair side by side). Timed once: the twelve default runs, compilation included.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import train
from benchmarks.turns import in_turns
from data.densities import TARGETS
from lab.device import one_thread
from question3 import stacked_flows

SOURCES = ("samples", "density")
BATCH, ITERATIONS = 128, 200  # points of an update, updates in each turn


class TextbookLayer(nn.Module):
    """A planar layer as a first course writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.w = (nn.Parameter(torch.randn(1, 2) * 0.01) for _ in range(2))
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.mm(self.u, self.w.t()) < -1:
            wu = torch.mm(self.u, self.w.t())
            self.u.data = self.u + (-1 + torch.log(1 + torch.exp(wu)) - wu) * self.w / torch.norm(self.w) ** 2
        return x + self.u * torch.tanh(torch.mm(x, self.w.t()) + self.b)

    def logdet(self, x: Tensor) -> Tensor:
        psi = (1 - torch.tanh(torch.mm(x, self.w.t()) + self.b) ** 2) * self.w
        return torch.log(1e-8 + torch.abs(1 + torch.mm(psi, self.u.t())))


def textbook(source: str, k: int) -> Callable[[], None]:
    """Some updates of one flow, of the arcs."""
    layers = nn.ModuleList(TextbookLayer() for _ in range(k))
    optimizer = torch.optim.RMSprop(layers.parameters(), lr=5e-4, foreach=False)
    points, energy = TARGETS["arcs"].data_set(), TARGETS["arcs"].energy

    def run() -> None:
        for _ in range(ITERATIONS):
            x = torch.randn(BATCH, 2) if source == "density" else points[torch.randint(len(points), (BATCH,))]
            z, logdet = x, torch.zeros(BATCH, 1)
            for layer in layers:
                logdet = logdet + layer.logdet(z)  # type: ignore[operator]
                z = layer(z)
            if source == "density":
                loss = (-0.5 * (x**2).sum(1, keepdim=True) + energy(z).unsqueeze(1) - logdet).mean()
            else:
                loss = (0.5 * (z**2).sum(1, keepdim=True) - logdet).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def ours(names: Sequence[str], k: int) -> Callable[[], None]:
    """What ``train.train_group`` does between two checkpoints, from samples, on one thread."""
    options = train.Hyperparameters(targets=list(names), num_layers=[k])
    targets = {name: TARGETS[name] for name in names}
    group = train.Group("samples", k, targets, options)
    generators = [torch.Generator().manual_seed(seed) for _, seed in group.names]
    updater = stacked_flows.RMSprop(stacked_flows.stack([train.Flow(2, k) for _ in group.names]), None, options.lr)
    updater.function = stacked_flows.compile_flows(updater.function)
    total = torch.zeros(len(group.names))

    def run() -> None:
        with one_thread():
            for i, x in enumerate(train.draw(group, generators, ITERATIONS)):
                updater.update(i, x, total)

    return run


def seconds_of_runs(num_iter: int, depths: Sequence[int]) -> float:
    """How long ``train.py`` takes for one seed from both sources, on an empty compiler's cache."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
        started = time.perf_counter()
        train.run(train.Hyperparameters(num_iter=num_iter, num_layers=list(depths), out=f"{folder}/runs"))
        return time.perf_counter() - started


def measure(rounds: int = 5, num_iter: int = 20_000, depths: Sequence[int] = (2, 8, 32)) -> dict[str, Any]:
    """Milliseconds of an update of both, per depth; seconds of all default runs, and of the deepest's first update."""
    all_ours = seconds_of_runs(num_iter, depths)
    first_update = seconds_of_runs(1, [max(depths)])
    updates: dict[str, Any] = {}
    for k in depths:
        contestants = {source: textbook(source, k) for source in SOURCES}
        contestants |= {"one": ours(["arcs"], k), "pair": ours(list(TARGETS), k)}
        median = in_turns(contestants, rounds, scale=1e3 / ITERATIONS)
        updates[str(k)] = {
            "median": median,
            "times_faster": median["samples"] / median["one"],
            "times_faster_side_by_side": 2 * median["samples"] / median["pair"],
        }
    # Both sources and both targets: the textbook loop's cost does not depend on the target.
    all_textbook = sum(2 * num_iter * updates[str(k)]["median"][s] / 1e3 for k in depths for s in SOURCES)
    totals = {"ours_seconds": all_ours, "textbook_seconds": all_textbook, "times_faster": all_textbook / all_ours}
    found = {"updates": updates, "first_update_seconds": first_update, "all_runs": totals}
    return {"num_iter": num_iter, "rounds": rounds, **found}
