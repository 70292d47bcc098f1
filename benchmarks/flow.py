"""The speed of training planar flows against the textbook loop.

    python -m benchmarks.flow

times in turns, for each depth, an update of the textbook loop (a module per layer, map and log-determinant apart, one
flow, ``.item()`` each time) and of ours (a pair of flows side by side, compiled); and once, compilation included, the
twelve default runs, against what the textbook loop's updates add up to.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import train
from data.densities import TARGETS
from lab import interruption
from lab.files import write_json
from lab.options import InputError, parse
from question3 import stacked_flows

BATCH = 128


@dataclass
class Options:
    """What to measure."""

    num_iter: int = 20_000  # updates of each of the twelve runs
    rounds: int = 5  # turns of the two
    iterations: int = 200  # updates in each turn
    out: str = "runs/benchmark/flow.json"  # where the result goes

    def __post_init__(self) -> None:
        if not self.out.endswith(".json"):
            raise InputError(f"out must be a .json file, got {self.out}")
        if min(self.num_iter, self.rounds, self.iterations) < 1:
            raise InputError("num_iter, rounds and iterations must be at least 1")


class TextbookLayer(nn.Module):
    """A planar layer as a first course writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(1, 2) * 0.01)
        self.w = nn.Parameter(torch.randn(1, 2) * 0.01)
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.mm(self.u, self.w.t()) < -1:
            wu = torch.mm(self.u, self.w.t())
            self.u.data = self.u + (-1 + torch.log(1 + torch.exp(wu)) - wu) * self.w / torch.norm(self.w) ** 2
        return x + self.u * torch.tanh(torch.mm(x, self.w.t()) + self.b)

    def logdet(self, x: Tensor) -> Tensor:
        psi = (1 - torch.tanh(torch.mm(x, self.w.t()) + self.b) ** 2) * self.w
        return torch.log(1e-8 + torch.abs(1 + torch.mm(psi, self.u.t())))


def textbook(source: str, name: str, k: int, iterations: int) -> Callable[[], None]:
    layers = nn.ModuleList(TextbookLayer() for _ in range(k))
    optimizer = torch.optim.RMSprop(layers.parameters(), lr=5e-4, foreach=False)
    points, energy = TARGETS[name].data_set(), TARGETS[name].energy

    def run() -> None:
        for _ in range(iterations):
            x = torch.randn(BATCH, 2) if source == "density" else points[torch.randint(len(points), (BATCH,))]
            z, logdet = x, torch.zeros(BATCH, 1)
            for layer in layers:
                logdet = logdet + layer.logdet(z)  # type: ignore[operator]
                z = layer(z)
            log_normal = -0.5 * ((x if source == "density" else z) ** 2).sum(1, keepdim=True)
            loss = (
                log_normal + energy(z).unsqueeze(1) - logdet if source == "density" else -log_normal - logdet
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def ours(source: str, names: Sequence[str], k: int, iterations: int) -> Callable[[], None]:
    """What ``train.train_group`` does between two checkpoints."""
    targets = {name: TARGETS[name] for name in names}
    points = {name: target.data_set() for name, target in targets.items()}
    group = train.Group(source, k, targets, [1], iterations, 5e-4, BATCH, True, Path(), points=points)
    generators = [torch.Generator().manual_seed(seed) for _, seed in group.names]
    flows = [train.Flow(2, k) for _ in group.names]
    parameters = stacked_flows.stack(flows)
    square_averages = tuple(torch.zeros_like(parameter) for parameter in parameters)
    steps = [torch.zeros(()) for _ in parameters]
    update = stacked_flows.compile_flows(stacked_flows.update)
    energies = tuple(target.energy for target in targets.values()) if source == "density" else None
    total = torch.zeros(len(flows))

    def run() -> None:
        for x in train.draw(group, generators, iterations):
            update(parameters, square_averages, steps, total, x, energies, group.lr)

    return run


@contextlib.contextmanager
def fresh_compiler_cache() -> Iterator[None]:
    """A compiler cache that is empty, for this process's children."""
    previous = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            yield
        finally:
            os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
            if previous is not None:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = previous


def seconds_of_runs(num_iter: int, depths: Sequence[int]) -> float:
    """How long ``train.py`` takes for one seed from both sources, on an empty compiler's cache."""
    with fresh_compiler_cache(), tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train.run(train.Hyperparameters(num_iter=num_iter, num_layers=list(depths), out=str(Path(folder) / "runs")))
        return time.perf_counter() - started


def measure(num_iter: int, rounds: int, iterations: int, depths: Sequence[int] = (2, 8, 32)) -> dict[str, Any]:
    """Milliseconds per update of both, per depth; seconds of all default runs, and of the deepest's first update."""
    all_ours = seconds_of_runs(num_iter, depths)
    first_update = seconds_of_runs(1, [max(depths)])
    threads = torch.get_num_threads()
    updates: dict[str, Any] = {}
    for k in depths:
        textbook_runs = {s: textbook(s, "arcs", k, iterations) for s in train.SOURCES}
        our_runs = {
            "one": ours("samples", ["arcs"], k, iterations),
            "pair": ours("samples", list(TARGETS), k, iterations),
        }
        milliseconds: dict[str, list[float]] = {name: [] for name in (*textbook_runs, *our_runs)}
        for turn in range(rounds + 1):
            for name, run in {**textbook_runs, **our_runs}.items():
                torch.set_num_threads(1 if name in our_runs else threads)
                started = time.perf_counter()
                run()
                if turn:
                    milliseconds[name].append((time.perf_counter() - started) / iterations * 1e3)
        torch.set_num_threads(threads)
        median = {name: statistics.median(values) for name, values in milliseconds.items()}
        updates[str(k)] = {
            "milliseconds": milliseconds,
            "median": median,
            "times_faster": median["samples"] / median["one"],
            "times_faster_side_by_side": 2 * median["samples"] / median["pair"],
        }
    # Both sources and both targets: the textbook loop's cost does not depend on the target.
    all_textbook = sum(2 * num_iter * updates[str(k)]["median"][s] / 1e3 for k in depths for s in train.SOURCES)
    return {
        "num_iter": num_iter,
        "rounds": rounds,
        "updates": updates,
        "first_update_seconds": first_update,
        "all_runs": {
            "ours_seconds": all_ours,
            "textbook_seconds": all_textbook,
            "times_faster": all_textbook / all_ours,
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(
        Options,
        "Time the training of planar flows against the textbook loop.",
        argv,
        program="python -m benchmarks.flow",
    )
    with interruption.one_line_errors():
        result = measure(options.num_iter, options.rounds, options.iterations)
        print(f"{'ms an update':14} {'textbook':>9} {'ours':>9} {'faster':>8} {'in pairs':>9}")
        for k, row in result["updates"].items():
            median = row["median"]
            print(
                f"k = {k:10} {median['samples']:9.3f} {median['one']:9.3f} {row['times_faster']:7.1f}x"
                f" {row['times_faster_side_by_side']:8.1f}x"
            )
        total = result["all_runs"]
        print(f"twelve runs: {total['ours_seconds']:.0f} s, textbook {total['textbook_seconds']:.0f} s, ", end="")
        print(f"{total['times_faster']:.1f} times as fast, compilation included")
        print(f"the deepest flows' first updates: {result['first_update_seconds']:.0f} s, from an empty cache")
        write_json(options.out, result)


if __name__ == "__main__":
    main()
