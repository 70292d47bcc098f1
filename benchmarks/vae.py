"""The speed of the VAE against the textbook loop and against its matrix products alone.

Timed in turns: an epoch of training, the importance-sampling estimate of the test set's log-likelihood, and epochs with
planar posteriors beside one with the normal. The images are random; no time depends on them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import vae
from benchmarks.turns import in_turns
from lab.device import compile_where_possible
from question1 import autoencoder

BATCH, LATENT, SAMPLES = 64, 100, 200
TRAIN, TEST = 50_000, 10_000  # images
PLANAR = (4, 16)  # numbers of layers
LAYERS = [(784, 300), (300, 300), (300, 2 * LATENT), (LATENT, 300), (300, 300), (300, 784)]
ROWS = 2000  # of the products of an estimate


class Textbook(nn.Module):
    """The VAE as a first course writes it."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e, f = (nn.Linear(*sizes) for sizes in LAYERS)
        self.encoder = nn.Sequential(a, nn.ELU(), b, nn.ELU(), c)
        self.decoder = nn.Sequential(d, nn.ELU(), e, nn.ELU(), f)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Log p(x|z), and mean, log-variance and draw of z."""
        parameters = self.encoder(x)
        mean, logvar = parameters[:, :LATENT], parameters[:, LATENT:]
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        probability = torch.sigmoid(self.decoder(z) - 5)
        log_px = (x * torch.log(probability + 1e-8) + (1 - x) * torch.log(1 - probability + 1e-8)).sum(1)
        return log_px, mean, logvar, z


def textbook_epoch(images: Tensor) -> Callable[[], object]:
    """Batches of single images from a ``DataLoader``."""
    model = Textbook()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, foreach=False)
    loader = DataLoader(TensorDataset(images.float()), batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        for (x,) in loader:
            log_px, mean, logvar, _ = model(x)
            kl = 0.5 * (mean**2 + torch.exp(logvar) - 1 - logvar).sum(1)
            loss = -(log_px - kl).mean()
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


def products(
    layers: Sequence[tuple[int, int]], rows: int, batches: int, backward: bool = False
) -> Callable[[], object]:
    """The matrix products alone, which no implementation avoids; with those of both gradients or without."""
    tensors = [(torch.randn(rows, i), torch.randn(o, i), torch.randn(rows, o)) for i, o in layers]

    def multiply() -> None:
        for _ in range(batches):
            for x, w, _ in tensors:
                torch.mm(x, w.t())
            for x, w, g in tensors if backward else ():
                torch.mm(g.t(), x)
                if x is not tensors[0][0]:  # the first layer needs no gradient of its input
                    torch.mm(g, w)

    return multiply


def textbook_estimate(images: Tensor) -> Callable[[], object]:
    """Importance sampling by repeating each image of a batch K times."""
    model = Textbook()

    @torch.no_grad()
    def estimate() -> None:
        for batch in images.float().split(BATCH):
            x = batch.repeat_interleave(SAMPLES, dim=0)
            log_px, mean, logvar, z = model(x)
            log_prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)
            log_q = -0.5 * (logvar + (z - mean) ** 2 / torch.exp(logvar) + math.log(2 * math.pi)).sum(1)
            log_weights = (log_px + log_prior - log_q).view(-1, SAMPLES)
            torch.logsumexp(log_weights, dim=1) - math.log(SAMPLES)

    return estimate


def measure(rounds: int = 5, share: float = 0.2) -> dict[str, Any]:
    """Seconds of the textbook loop, ours and the products, for a whole epoch and the estimate of a whole test set.

    Args:
        rounds: Turns.
        share: Of an epoch and of the test set in each turn; times are scaled to the whole.
    """
    torch.manual_seed(0)
    train, test = ((torch.rand(int(share * count), 784) < 0.13).to(torch.uint8) for count in (TRAIN, TEST))
    model = autoencoder.VAE(LATENT)
    epoch_floor = products(LAYERS, BATCH, math.ceil(len(train) / BATCH), backward=True)
    estimate_floor = products(LAYERS[3:], ROWS, math.ceil(len(test) * SAMPLES / ROWS))
    tasks = {
        "epoch": {"textbook": textbook_epoch(train), "ours": our_epoch(train), "floor": epoch_floor},
        "estimate": {
            "textbook": textbook_estimate(test),
            "ours": lambda: autoencoder.log_likelihood(model, test, SAMPLES),
            "floor": estimate_floor,
        },
        "planar": {str(k): our_epoch(train, k) for k in (0, *PLANAR)},
    }
    result: dict[str, Any] = {name: {"median": in_turns(each, rounds, 1 / share)} for name, each in tasks.items()}
    for task in ("epoch", "estimate"):
        median = result[task]["median"]
        result[task]["times_faster_than_textbook"] = median["textbook"] / median["ours"]
        result[task]["times_the_floor"] = median["ours"] / median["floor"]
    median = result["planar"]["median"]
    result["planar"]["times_the_normal"] = {str(k): median[str(k)] / median["0"] for k in PLANAR}
    return {"rounds": rounds, "share": share, "threads": torch.get_num_threads(), **result}
