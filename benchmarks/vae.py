"""The speed of the VAE against the textbook loop and against its matrix products alone.

    python -m benchmarks.vae --data FOLDER

times in turns (a) the textbook loop, (b) ours and (c) the floor, the matrix products of the same work, for an
epoch of training and for the importance-sampling estimate of the test set, and epochs of ours with planar posteriors
beside one with the normal. A machine shared with others is noisy: the turns spread the noise over all, the table has
medians.
"""

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import data
import vae
from lab import interruption
from lab.device import compile_where_possible
from lab.files import write_json
from lab.options import InputError, parse
from question1 import autoencoder

BATCH, LATENT, SAMPLES = 64, 100, 200
PLANAR = (4, 16)  # numbers of layers
LAYERS = [(784, 300), (300, 300), (300, 2 * LATENT), (LATENT, 300), (300, 300), (300, 784)]


@dataclass
class Options:
    """What to measure."""

    dataset: str = "auto"  # auto, binarized_mnist or digits
    data: str = field(default_factory=data.default_root)  # folder where data sets lie or are put
    rounds: int = 5  # turns of the three
    share: float = 0.2  # of an epoch and of the test set in each turn; times are scaled to the whole
    seed: int = 0  # of weights, order and noise
    out: str = "runs/benchmark/vae.json"  # where the result goes

    def __post_init__(self) -> None:
        if not self.out.endswith(".json"):
            raise InputError(f"out must be a .json file, got {self.out}")
        if self.rounds < 1 or not 0 < self.share <= 1:
            raise InputError("rounds must be at least 1 and share in (0, 1]")


class Textbook(nn.Module):
    """The VAE as a first course writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 300), nn.ELU(), nn.Linear(300, 300), nn.ELU(), nn.Linear(300, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 300), nn.ELU(), nn.Linear(300, 300), nn.ELU(), nn.Linear(300, 784)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        parameters = self.encoder(x)
        mean, logvar = parameters[:, :LATENT], parameters[:, LATENT:]
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        return torch.sigmoid(self.decoder(z) - 5), mean, logvar, z


def textbook_epoch(images: Tensor) -> Callable[[], object]:
    model = Textbook()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, foreach=False)
    loader = DataLoader(TensorDataset(images.float()), batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        for (x,) in loader:
            probability, mean, logvar, _ = model(x)
            reconstruction = (x * torch.log(probability + 1e-8) + (1 - x) * torch.log(1 - probability + 1e-8)).sum(1)
            kl = 0.5 * (mean**2 + torch.exp(logvar) - 1 - logvar).sum(1)
            loss = -(reconstruction - kl).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def our_epoch(images: Tensor, num_layers: int = 0) -> Callable[[], object]:
    """What ``vae.train`` does in an epoch of a run of default length; with planar layers, of such a posterior."""
    model = autoencoder.VAE(LATENT, num_layers=num_layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    objective = compile_where_possible(autoencoder.elbo)
    options, generator = vae.Hyperparameters(batch_size=BATCH), torch.Generator().manual_seed(0)
    return lambda: vae.train_epoch(model, objective, optimizer, scheduler, images, options, generator)


def floor_epoch(images: Tensor) -> Callable[[], object]:
    """The matrix products of an epoch: forward, weight gradients, and input gradients but the first."""
    weights = [torch.randn(o, i) for i, o in LAYERS]
    inputs = [torch.randn(BATCH, i) for i, _ in LAYERS]
    gradients = [torch.randn(BATCH, o) for _, o in LAYERS]

    def epoch() -> None:
        for _ in range(math.ceil(len(images) / BATCH)):
            for x, w in zip(inputs, weights, strict=True):
                torch.mm(x, w.t())
            for k, (x, w, g) in reversed(list(enumerate(zip(inputs, weights, gradients, strict=True)))):
                torch.mm(g.t(), x)
                if k:
                    torch.mm(g, w)

    return epoch


def textbook_estimate(images: Tensor) -> Callable[[], object]:
    """Importance sampling by repeating each image of a batch K times."""
    model = Textbook()

    @torch.no_grad()
    def estimate() -> None:
        for batch in images.float().split(BATCH):
            x = batch.repeat_interleave(SAMPLES, dim=0)
            probability, mean, logvar, z = model(x)
            log_px = (x * torch.log(probability + 1e-8) + (1 - x) * torch.log(1 - probability + 1e-8)).sum(1)
            log_prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)
            log_q = -0.5 * (logvar + (z - mean) ** 2 / torch.exp(logvar) + math.log(2 * math.pi)).sum(1)
            log_weights = (log_px + log_prior - log_q).view(-1, SAMPLES)
            torch.logsumexp(log_weights, dim=1) - math.log(SAMPLES)

    return estimate


def our_estimate(images: Tensor) -> Callable[[], object]:
    model = autoencoder.VAE(LATENT)
    return lambda: autoencoder.log_likelihood(model, images, SAMPLES)


def floor_estimate(images: Tensor, rows: int = 2000) -> Callable[[], object]:
    """The decoder's matrix products for every image and draw."""
    weights = [torch.randn(o, i) for i, o in LAYERS[3:]]
    inputs = [torch.randn(rows, i) for i, _ in LAYERS[3:]]

    def estimate() -> None:
        for _ in range(math.ceil(len(images) * SAMPLES / rows)):
            for x, w in zip(inputs, weights, strict=True):
                torch.mm(x, w.t())

    return estimate


def peak_memory(images: Tensor) -> float:
    """Gigabytes of memory that a process of its own needs at most for our estimate, torch included."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_estimate_and_weigh, images).result()


def _estimate_and_weigh(images: Tensor) -> float:
    our_estimate(images)()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**30
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def in_turns(contestants: dict[str, Callable[[], object]], rounds: int, scale: float) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            if turn:
                seconds[name].append((time.perf_counter() - started) * scale)
    return seconds


def measure(dataset: str, root: str, rounds: int, share: float, seed: int = 0) -> dict[str, Any]:
    """Time the three in turns; seconds per whole epoch and per estimate of the whole test set."""
    torch.manual_seed(seed)
    name, splits = data.load(dataset, root)
    train, test = (split[: max(BATCH, int(share * len(split)))] for split in (splits.train, splits.test))
    work = {
        "epoch": (train, len(splits.train), {"textbook": textbook_epoch, "ours": our_epoch, "floor": floor_epoch}),
        "estimate": (
            test,
            len(splits.test),
            {"textbook": textbook_estimate, "ours": our_estimate, "floor": floor_estimate},
        ),
    }
    result: dict[str, Any] = {"dataset": name, "rounds": rounds, "share": share, "threads": torch.get_num_threads()}
    for task, (images, total, makers) in work.items():
        contestants = {contestant: maker(images) for contestant, maker in makers.items()}
        seconds = in_turns(contestants, rounds, total / len(images))
        median = {contestant: statistics.median(values) for contestant, values in seconds.items()}
        result[task] = {
            "seconds": seconds,
            "median": median,
            "times_faster_than_textbook": median["textbook"] / median["ours"],
            "times_the_floor": median["ours"] / median["floor"],
        }
    result["estimate"]["peak_gigabytes"] = peak_memory(splits.test)
    depths = {str(k): our_epoch(train, k) for k in (0, *PLANAR)}
    seconds = in_turns(depths, rounds, len(splits.train) / len(train))
    median = {k: statistics.median(values) for k, values in seconds.items()}
    times = {k: median[k] / median["0"] for k in median if k != "0"}
    result["planar"] = {"seconds": seconds, "median": median, "times_the_normal": times}
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(
        Options, "Time the VAE against the textbook loop and the floor.", argv, program="python -m benchmarks.vae"
    )
    with interruption.one_line_errors():
        result = measure(options.dataset, options.data, options.rounds, options.share, options.seed)
        print(f"{'seconds, medians':20} {'textbook':>9} {'ours':>9} {'floor':>9} {'faster':>9} {'of floor':>9}")
        for task in ("epoch", "estimate"):
            row, median = result[task], result[task]["median"]
            print(
                f"{task:20} {median['textbook']:9.2f} {median['ours']:9.2f} {median['floor']:9.2f}"
                f" {row['times_faster_than_textbook']:8.2f}x {row['times_the_floor']:8.2f}x"
            )
        for k, times in result["planar"]["times_the_normal"].items():
            print(f"{f'epoch, planar, k = {k}':30} {result['planar']['median'][k]:9.2f} {times:18.2f} times the normal")
        print(f"memory of the estimate: {result['estimate']['peak_gigabytes']:.2f} GB at most")
        write_json(options.out, result)


if __name__ == "__main__":
    main()
