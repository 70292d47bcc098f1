"""A variational autoencoder of binary images: network, training and log-likelihood (questions 1.6 and 1.7).

    python vae.py --epochs 20 --seed 1 --out runs/vae

trains, goes on where a killed run stopped, and prints the validation ELBO and the test log-likelihood.
"""

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

import checkpoint
import command_line
import data
from compiled import compile_where_possible
from estimates import mean_and_error
from q1_solution import kl_gaussian_gaussian_analytic, log_likelihood_normal, log_mean_exp

HAS_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
COMPILE_FROM = 10_000  # updates: in shorter runs, compiling would cost more time than it saves
CHOICES = {"schedule": ("constant", "one-cycle"), "gradient": ("total", "path"), "compile": ("auto", "yes", "no")}


@dataclass
class Hyperparameters:
    """What a run depends on. The defaults are the assignment's."""

    dataset: str = "auto"  # auto, binarized_mnist, or digits (the stand-in that needs no download)
    data: str = field(default_factory=data.default_root)  # folder where data sets lie or are put
    epochs: int = 20  # passes over the training images
    latent_size: int = 100  # size L of the latent vector
    batch_size: int = 64  # images per update
    learning_rate: float = 3e-4  # Adam's step size; the peak of it with a one-cycle schedule
    schedule: str = "constant"  # learning rate over training: constant, or one-cycle (Smith and Topin 2018)
    gradient: str = "total"  # of the bound: total, or along the path of the draw only (Roeder et al. 2017)
    num_samples: list[int] = field(default_factory=lambda: [200])  # K of each importance-sampling estimate
    input_dropout: float = 0.0  # share of the pixels that training hides from the encoder (Im et al. 2017)
    seed: int = 1  # of the initial weights, the order of the images and the noise
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    compile: str = "auto"  # torch.compile the loss: yes, no, or auto (long runs, where there is a compiler)
    out: str = "runs/vae"  # folder of the run

    def __post_init__(self) -> None:
        for name in ("epochs", "latent_size", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.num_samples or min(self.num_samples) < 1:
            raise ValueError(f"num_samples must be at least 1, got {self.num_samples}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.input_dropout < 1:
            raise ValueError(f"input_dropout must be in [0, 1), got {self.input_dropout}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)}")


class VAE(nn.Module):
    r"""Encoder 784-300-300-2L and decoder L-300-300-784, with ELU between the layers.

    The encoder's output splits into mean and log-variance of :math:`q(z|x)`; the decoder gives the logits of
    :math:`p(x|z)`. The prior is a standard normal distribution.

    Args:
        latent_size: Size L of the latent vector.
        image_size: Number of pixels.
        width: Size of the hidden layers.

    Source:
        Kingma and Welling (2014), Auto-encoding variational Bayes.

    Example:
        >>> mean, logvar = VAE(latent_size=8).encode(torch.zeros(5, 784))
        >>> mean.shape, logvar.shape
        (torch.Size([5, 8]), torch.Size([5, 8]))
    """

    def __init__(self, latent_size: int = 100, image_size: int = 784, width: int = 300) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.encoder = _perceptron(image_size, width, 2 * latent_size)
        self.decoder = _perceptron(latent_size, width, image_size)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each ``(B, L)``, for images ``(B, 784)``."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x|z), ``(B, 784)``. They are 5 below the last layer's output: most pixels are black."""
        return self.decoder(z) - 5


def _perceptron(size_in: int, width: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(
        Linear(size_in, width),
        nn.ELU(inplace=True),
        Linear(width, width),
        nn.ELU(inplace=True),
        Linear(width, size_out),
    )


class Linear(nn.Linear):
    """``nn.Linear`` that multiplies in oneDNN when no gradient is asked for, on x86 processors.

    For float32 on the CPU torch takes MKL, which uses AVX-512 on Intel's processors alone; oneDNN uses it
    wherever it is, at the price of converting the tensors. For the large batches of an evaluation that is
    twice as fast on an AMD processor; for the small ones of a training step it gains nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype != torch.float32 or not (x.device.type == "cpu" and HAS_ONEDNN):
            return super().forward(x)
        return F.linear(x.to_mkldnn(), self.weight, self.bias).to_dense()


def log_likelihood_logits(logits: Tensor, x: Tensor) -> Tensor:
    r"""Log-likelihood of binary samples from logits, exact for logits of any size.

    .. math:: \log p(x) = \sum_i x_i \ell_i - \log(1 + e^{\ell_i})

    Args:
        logits: Shape ``(B, *, D)``.
        x: Samples, 0 or 1, shape ``(B, D)`` or any that broadcasts.

    Returns:
        Shape ``(B, *)``, in nats.
    """
    return torch.linalg.vecdot(x, logits) - F.softplus(logits).sum(-1)


def elbo(vae: VAE, x: Tensor, noise: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""Evidence lower bound of binary images, with one draw of the latent vector per image.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z|x)} \log p(x|z) - \mathrm{KL}(q(z|x) \| p(z)), \quad
        z = \mu + e^{v/2} \varepsilon

    Args:
        vae: The model.
        x: Images, 0 or 1, any dtype, shape ``(B, 784)``.
        noise: Standard normal :math:`\varepsilon`, shape ``(B, L)``.
        seen: What the encoder sees of the images, shape ``(B, 784)``; the images themselves if it is None. The bound
            holds for any q, so also for one that sees less.

    Returns:
        Shape ``(B,)``, in nats.

    Source:
        Kingma and Welling (2014), equations 7 and 10; Rezende et al. (2014).
    """
    x = x.float()
    mean, logvar = vae.encode(x if seen is None else seen)
    z = mean + torch.exp(0.5 * logvar) * noise
    zero = torch.zeros_like(mean)
    return log_likelihood_logits(vae.decode(z), x) - kl_gaussian_gaussian_analytic(mean, logvar, zero, zero)


def path_elbo(vae: VAE, x: Tensor, noise: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""The evidence lower bound with the gradient taken along the path of the draw only.

    .. math:: \log p(x|z) + \log p(z) - \log q_{\bar\phi}(z|x), \quad z = \mu_\phi + e^{v_\phi/2} \varepsilon

    The parameters :math:`\bar\phi` count as constants. What is left out, the score function
    :math:`\nabla_\phi \log q_\phi(z|x)` at fixed z, is zero on average; without it the gradient's variance
    vanishes as q approaches the true posterior.

    Args:
        vae, x, noise, seen: As for :func:`elbo`.

    Returns:
        Shape ``(B,)``, in nats, with the mean of :func:`elbo`.

    Source:
        Roeder, Wu and Duvenaud (2017), Sticking the landing, section 3.
    """
    x = x.float()
    mean, logvar = vae.encode(x if seen is None else seen)
    z = mean + torch.exp(0.5 * logvar) * noise
    zero = torch.zeros_like(mean)
    log_ratio = log_likelihood_normal(zero, zero, z) - log_likelihood_normal(mean.detach(), logvar.detach(), z)
    return log_likelihood_logits(vae.decode(z), x) + log_ratio


@torch.no_grad()
def evaluate_elbo(vae: VAE, images: Tensor, seed: int = 0, block: int = 1000) -> Tensor:
    """ELBO of each image, ``(N,)`` in nats, with a fixed draw of the noise."""
    generator = torch.Generator(images.device).manual_seed(seed)
    noise = torch.randn(len(images), vae.latent_size, generator=generator, device=images.device)
    return torch.cat([elbo(vae, x, e) for x, e in zip(images.split(block), noise.split(block), strict=True)])


@torch.no_grad()
def log_likelihood(
    vae: VAE, images: Tensor, num_samples: int = 200, seed: int = 0, progress: bool = False, rows: int = 2000
) -> Tensor:
    r"""Importance-sampling estimate of the log-likelihood of binary images.

    .. math:: \log p(x) \approx \log \frac1K \sum_k \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    A lower bound of :math:`\log p(x)` in expectation, which tightens as K grows; K = 1 is the ELBO.

    Args:
        vae: The model.
        images: 0 or 1, shape ``(N, 784)``.
        num_samples: Number of draws :math:`K` per image.
        seed: Of the draws.
        progress: Show a progress bar.
        rows: Latent vectors decoded at once. 2,000 keep the work in the processor's cache.

    Returns:
        Shape ``(N,)``, in nats.

    Source:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    zero = torch.zeros(1, vae.latent_size, device=images.device)
    estimates = []
    with tqdm(total=len(images), desc=f"log p(x), K = {num_samples}", unit=" images", disable=not progress) as bar:
        for x in images.split(max(1, rows // num_samples)):
            x = x.float()
            mean, logvar = (statistic.unsqueeze(1) for statistic in vae.encode(x))
            log_weights = []
            for count in _parts(num_samples, rows):
                noise = torch.randn(len(x), count, vae.latent_size, generator=generator, device=x.device)
                z = mean + torch.exp(0.5 * logvar) * noise
                log_prior = log_likelihood_normal(zero, zero, z.flatten(0, 1)).view(len(x), count)
                # Change of variables from the noise to z, which costs less than the density of z.
                log_posterior = log_likelihood_normal(zero, zero, noise.flatten(0, 1)).view(len(x), count)
                log_posterior = log_posterior - 0.5 * logvar.sum(-1)
                log_weights.append(log_likelihood_logits(vae.decode(z), x.unsqueeze(1)) + log_prior - log_posterior)
            estimates.append(log_mean_exp(torch.cat(log_weights, dim=1)))
            bar.update(len(x))
    return torch.cat(estimates)


def _parts(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def hide(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the pixels to 0 and scale the others up, so that their expected value stays.

    An encoder that never sees all of an image cannot learn the training images by heart (Im et al. 2017,
    Denoising criterion for variational auto-encoding framework). Evaluation shows it the whole image.
    """
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= share
    return x * kept / (1 - share)


def train_epoch(
    vae: VAE,
    objective: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    images: Tensor,
    options: Hyperparameters,
    generator: torch.Generator,
) -> Tensor:
    """One pass over the images in random order; returns the mean of the objective, a scalar in nats."""
    order = torch.randperm(len(images), generator=generator, device=images.device)
    noise = torch.randn(len(images), vae.latent_size, generator=generator, device=images.device)
    total = torch.zeros((), device=images.device)
    # Images and noise are laid out in the epoch's order once, so that a batch is a slice of each.
    size = options.batch_size
    for x, e in zip(images.index_select(0, order).split(size), noise.split(size), strict=True):
        seen = hide(x, options.input_dropout, generator) if options.input_dropout else None
        loss = -objective(vae, x, e, seen).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total -= loss.detach() * len(x)
    return total / len(images)


def train(options: Hyperparameters, splits: data.Splits, progress: bool = True) -> tuple[VAE, list[dict[str, float]]]:
    """Train a VAE, or go on from the checkpoint in the run's folder.

    A checkpoint is written after each epoch. A run that was killed and started again ends with the same
    parameters, to the bit, as one that was not.

    Args:
        options: The run.
        splits: The data set.
        progress: Show progress bars.

    Returns:
        The trained model, and per epoch the learning rate, the mean ELBO of the training batches and of the
        validation set (nats), and the seconds of training.
    """
    device = command_line.choose_device(options.device)
    images, valid = splits.train.to(device), splits.valid.to(device)
    torch.manual_seed(options.seed)
    generator = torch.Generator(device).manual_seed(options.seed)
    vae = VAE(options.latent_size, images.shape[1]).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=options.learning_rate, fused=True)
    updates = math.ceil(len(images) / options.batch_size) * options.epochs
    scheduler = _scheduler(optimizer, options, updates)
    history: list[dict[str, float]] = []

    path = Path(options.out) / "checkpoint.pt"
    if state := checkpoint.load(path):
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        generator.set_state(state["generator"])
        history = state["history"]

    compiling = options.compile == "yes" or (options.compile == "auto" and updates >= COMPILE_FROM)
    objective = elbo if options.gradient == "total" else path_elbo
    objective = compile_where_possible(objective) if compiling else objective
    with (
        SummaryWriter(options.out, purge_step=len(history)) as writer,
        tqdm(total=options.epochs, initial=len(history), desc="training", unit=" epochs", disable=not progress) as bar,
    ):
        for epoch in range(len(history), options.epochs):
            started = time.perf_counter()
            learning_rate = scheduler.get_last_lr()[0]
            mean_elbo = train_epoch(vae, objective, optimizer, scheduler, images, options, generator)
            record = {
                "epoch": epoch + 1,
                "learning_rate": learning_rate,
                "train_elbo": mean_elbo.item(),
                "seconds": time.perf_counter() - started,
                "valid_elbo": evaluate_elbo(vae, valid).mean().item(),
            }
            if not math.isfinite(record["train_elbo"]):
                raise FloatingPointError(f"the ELBO is {record['train_elbo']} after epoch {epoch + 1}")
            history.append(record)
            for name in ("train_elbo", "valid_elbo", "learning_rate"):
                writer.add_scalar(name, record[name], epoch + 1)
            checkpoint.save(
                path,
                {
                    "vae": vae.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "generator": generator.get_state(),
                    "history": history,
                },
            )
            bar.set_postfix(valid_elbo=f"{record['valid_elbo']:.2f}")
            bar.update()
    return vae, history


def _scheduler(
    optimizer: torch.optim.Optimizer, options: Hyperparameters, updates: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if options.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=options.learning_rate, total_steps=updates, cycle_momentum=False
    )


@torch.no_grad()
def kl_per_dimension(vae: VAE, images: Tensor) -> Tensor:
    """Mean over images of the KL divergence of each latent dimension from the prior, ``(L,)`` in nats."""
    mean, logvar = (statistic.reshape(-1, 1) for statistic in vae.encode(images.float()))
    zero = torch.zeros_like(mean)
    return kl_gaussian_gaussian_analytic(mean, logvar, zero, zero).view(len(images), -1).mean(0)


def run(options: Hyperparameters, progress: bool = True) -> tuple[VAE, data.Splits, dict[str, Any]]:
    """Train, evaluate, and write ``result.json`` in the run's folder; go on where a former start stopped.

    Returns:
        The model, the data set and the result: ELBO of validation and test set and the test set's
        log-likelihood per number of samples, each with its standard error over the images.

    Raises:
        ValueError: The folder holds another configuration's run.
        data.DataUnavailableError: The data set was named and cannot be had.
    """
    dataset, splits = data.load(options.dataset, options.data, options.seed)
    options = replace(options, dataset=dataset)
    checkpoint.claim_folder(options.out, options, free=("data", "out"))
    vae, history = train(options, splits, progress)
    valid, test = (split.to(vae.decoder[0].weight.device) for split in splits[1:])
    started = time.perf_counter()
    log_px = {str(k): log_likelihood(vae, test, k, progress=progress) for k in options.num_samples}
    result = {
        "dataset": dataset,
        "seed": options.seed,
        "valid_elbo": mean_and_error(evaluate_elbo(vae, valid)),
        "test_elbo": mean_and_error(evaluate_elbo(vae, test)),
        "test_log_px": {k: mean_and_error(values) for k, values in log_px.items()},
        "kl_per_dimension": kl_per_dimension(vae, valid).tolist(),
        "train_seconds": sum(record["seconds"] for record in history),
        "estimate_seconds": time.perf_counter() - started,
        "history": history,
    }
    checkpoint.write_json(Path(options.out) / "result.json", result)
    return vae, splits, result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Hyperparameters, "Train a VAE and estimate its log-likelihood.", argv)
    try:
        _, _, result = run(options)
    except (ValueError, FloatingPointError, data.DataUnavailableError) as error:
        command_line.fail(error)
    print(f"data set             {result['dataset']}")
    for name, label in {"valid_elbo": "validation ELBO", "test_elbo": "test ELBO"}.items():
        print(f"{label:20} {result[name]['mean']:.3f} ± {result[name]['standard_error']:.3f} nats")
    for k, value in result["test_log_px"].items():
        print(f"{f'test log p(x), K={k}':20} {value['mean']:.3f} ± {value['standard_error']:.3f} nats")
    print(f"training took {result['train_seconds']:.1f} s; everything is in {options.out}")


if __name__ == "__main__":
    main()
