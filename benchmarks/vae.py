"""The speed of the VAE against the textbook loop and against its matrix products alone.

Timed in turns: an epoch of training, the importance-sampling estimate of the test set's log-likelihood, and epochs with
planar posteriors beside one with the normal. The images are random; no time depends on them.
"""

import math
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import vae
from benchmarks.turns import in_turns, unsettled
from lab.device import compile_where_possible
from question1 import autoencoder

BATCH, LATENT, SAMPLES = 64, 100, 200
TRAIN, TEST = 50_000, 10_000  # images
PLANAR = (4, 16)  # numbers of layers
LAYERS = [(784, 300), (300, 300), (300, 2 * LATENT), (LATENT, 300), (300, 300), (300, 784)]
FLOOR = "floor: the matrix products of the same work alone, by torch.mm, which no implementation avoids"


class Textbook(nn.Module):
    """The VAE as a first course writes it."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e, f = (nn.Linear(*sizes) for sizes in LAYERS)
        self.encoder = nn.Sequential(a, nn.ELU(), b, nn.ELU(), c)
        self.decoder = nn.Sequential(d, nn.ELU(), e, nn.ELU(), f)

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
    layers = [(torch.randn(BATCH, i), torch.randn(o, i), torch.randn(BATCH, o)) for i, o in LAYERS]

    def epoch() -> None:
        for _ in range(math.ceil(len(images) / BATCH)):
            for x, w, _ in layers:
                torch.mm(x, w.t())
            for k, (x, w, g) in reversed(list(enumerate(layers))):
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
    layers = [(torch.randn(rows, i), torch.randn(o, i)) for i, o in LAYERS[3:]]

    def estimate() -> None:
        for _ in range(math.ceil(len(images) * SAMPLES / rows)):
            for x, w in layers:
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


def measure(rounds: int = 5, share: float = 0.2) -> dict[str, Any]:
    """Seconds of the textbook loop, ours and the floor, for a whole epoch and the estimate of a whole test set.

    Args:
        rounds: Turns, at least.
        share: Of an epoch and of the test set in each turn; times are scaled to the whole.
    """
    torch.manual_seed(0)
    train, test = ((torch.rand(int(share * count), 784) < 0.13).to(torch.uint8) for count in (TRAIN, TEST))
    epochs = {"textbook": textbook_epoch(train), "ours": our_epoch(train), "floor": floor_epoch(train)}
    estimates = {"textbook": textbook_estimate(test), "ours": our_estimate(test), "floor": floor_estimate(test)}
    result: dict[str, Any] = {"rounds": rounds, "share": share, "threads": torch.get_num_threads()}
    for task, contestants in (("epoch", epochs), ("estimate", estimates)):
        found = in_turns(contestants, rounds, scale=1 / share)
        median = found["median"]
        faster = {
            "times_faster_than_textbook": median["textbook"] / median["ours"],
            "times_the_floor": median["ours"] / median["floor"],
        }
        result[task] = found | faster
    result["estimate"]["peak_gigabytes"] = peak_memory(test.repeat(math.ceil(1 / share), 1))
    planar = in_turns({str(k): our_epoch(train, k) for k in (0, *PLANAR)}, rounds, scale=1 / share)
    times = {str(k): planar["median"][str(k)] / planar["median"]["0"] for k in PLANAR}
    return result | {"planar": planar | {"times_the_normal": times}}


def lines(result: dict[str, Any]) -> list[str]:
    """The result as text."""
    text = [f"{'VAE, seconds':20} {'textbook':>9} {'ours':>9} {'floor':>9} {'faster':>9} {'of floor':>9}"]
    for task in ("epoch", "estimate"):
        row, median = result[task], result[task]["median"]
        ratios = f"{row['times_faster_than_textbook']:8.2f}x {row['times_the_floor']:8.2f}x"
        cells = " ".join(f"{median[name]:9.2f}" for name in ("textbook", "ours", "floor"))
        text.append(f"{task:20} {cells} {ratios}{unsettled(row)}")
    for k, times in result["planar"]["times_the_normal"].items():
        text.append(f"an epoch with {k} planar layers takes {times:.2f} times as long as with none")
    return [*text, f"memory of the estimate: {result['estimate']['peak_gigabytes']:.2f} GB at most", FLOOR]
