"""Train a variational autoencoder of binary images and estimate its log-likelihood (questions 1.6 and 1.7).

    python vae.py --epochs 20 --seed 1 --out runs/vae

trains, resumes where a killed run stopped, and prints the validation ELBO and the test log-likelihood.
"""

from lab import interruption

# isort: split
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from tqdm.auto import tqdm

import data
from lab.checkpoint import Checkpoint
from lab.claim import claim
from lab.device import choose_device, compile_where_possible, warn_if_busy
from lab.estimates import mean_and_error
from lab.files import fingerprint, read_json, write_json
from lab.options import InputError, check, determining, option, parse
from lab.record import Record
from question1.autoencoder import VAE, elbo, evaluate_elbo, kl_per_dimension, log_likelihood, path_elbo, sampled_elbo

COMPILE_FROM = 10_000  # updates: in shorter runs, compiling would cost more time than it saves


@dataclass
class Hyperparameters:
    """The run. The defaults are the assignment's."""

    # auto, binarized_mnist, digits (the stand-in that needs no download), or a file of your own, NAME.npz
    dataset: str = "auto"
    data: str = option(default_factory=data.default_root, bookkeeping=True)  # folder where data sets lie or are put
    epochs: int = option(20, at_least=1)  # passes over the training images
    latent_size: int = option(100, at_least=1)  # size L of the latent vector
    batch_size: int = option(64, at_least=1)  # images per update
    learning_rate: float = option(3e-4, above=0)  # Adam's step size; the peak of it with a one-cycle schedule
    schedule: Literal["constant", "one-cycle"] = "constant"  # of the learning rate (one-cycle: Smith and Topin 2018)
    # q(z|x): normal, or with a planar flow, whose KL divergence is estimated from the draw (also with 0 layers)
    posterior: Literal["normal", "planar"] = "normal"
    num_layers: int = option(0, at_least=0)  # planar layers of the posterior
    # factor of the encoder's outputs for the planar layers; with a small one the flow changes slowly
    flow_scale: float = option(1.0, at_least=0, at_most=1)
    gradient: Literal["total", "path"] = "total"  # of the bound: total, or through the draw only (Roeder et al. 2017)
    # K of each importance-sampling estimate of log p(x)
    num_samples: list[int] = option(default_factory=lambda: [200], bookkeeping=True, at_least=1)
    # share of the pixels that training hides from the encoder (Im et al. 2017)
    input_dropout: float = option(0.0, at_least=0, below=1)
    seed: int = option(1, at_least=0)  # of the initial weights, the order of the images and the noise
    device: str = option("auto", bookkeeping=True)  # auto, cpu, cuda, cuda:1, ...; moves the last digits
    # torch.compile the loss; auto: in long runs; moves the last digits
    compile: Literal["auto", "yes", "no"] = option("auto", bookkeeping=True)
    out: str = option("runs/vae", bookkeeping=True)  # folder of the run

    def __post_init__(self) -> None:
        check(self)
        if self.num_layers > 0 and self.posterior != "planar":
            raise InputError("num_layers above 0 needs posterior planar")


def hide(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the pixels to 0 and scale the others up, so that their expected value stays.

    An encoder that never sees a whole image cannot memorise the training images (Im et al. 2017, Denoising criterion
    for variational auto-encoding framework). Evaluation shows it the whole image.
    """
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= share
    return x * kept / (1 - share)


def train_epoch(
    vae: VAE,
    objective: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    images: Tensor,
    options: Hyperparameters,
    generator: torch.Generator,
) -> Tensor:
    """One pass over the images in random order; returns the mean of the objective, a scalar in nats."""
    order = torch.randperm(len(images), generator=generator, device=images.device)
    noise = torch.randn(len(images), vae.latent_size, generator=generator, device=images.device, dtype=vae.dtype)
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
    """Train a VAE, or resume from the checkpoint in the run's folder, which is written after each epoch.

    A run that was killed and started again ends with the same parameters, to the bit, as one that was not.

    Returns:
        The trained model, and per epoch the learning rate, the mean ELBO of the training batches and of the
        validation set (nats), and the seconds of training.
    """
    device = choose_device(options.device)
    images, valid = splits.train.to(device), splits.valid.to(device)
    torch.manual_seed(options.seed)
    generator = torch.Generator(device).manual_seed(options.seed)
    vae = VAE(options.latent_size, images.shape[1], num_layers=options.num_layers, flow_scale=options.flow_scale)
    vae = vae.to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=options.learning_rate, fused=True)
    updates = math.ceil(len(images) / options.batch_size) * options.epochs
    scheduler: LRScheduler = ConstantLR(optimizer, factor=1)
    if options.schedule == "one-cycle":
        scheduler = OneCycleLR(optimizer, options.learning_rate, total_steps=updates, cycle_momentum=False)
    origin = {key: value for key, value in determining(options).items() if key not in may_grow(options)}
    parts = {"vae": vae, "optimizer": optimizer, "scheduler": scheduler, "generator": generator}
    state = Checkpoint(Path(options.out) / "checkpoint.pt", origin | {"images": fingerprint(*splits)}, **parts)
    lines: list[dict[str, float]] = state.restore().get("lines", [])

    print(f"{options.dataset}: {len(images)} training images", flush=True)
    warn_if_busy()
    total = elbo if options.posterior == "normal" else sampled_elbo
    objective = path_elbo if options.gradient == "path" else total
    if options.compile == "yes" or (options.compile == "auto" and updates >= COMPILE_FROM):
        objective = compile_where_possible(objective)
    with (
        interruption.Interruption("this epoch") as stop,
        Record(Path(options.out), lines) as record,
        tqdm(total=options.epochs, initial=len(lines), desc="training", unit="epoch", disable=not progress) as bar,
    ):
        for epoch in range(len(lines), options.epochs):
            if stop.requested:
                stop.stop(f"{options.out}: stopped after epoch {epoch}, saved")
            started = time.perf_counter()
            learning_rate = float(scheduler.get_last_lr()[0])
            mean_elbo = train_epoch(vae, objective, optimizer, scheduler, images, options, generator).item()
            seconds = time.perf_counter() - started
            valid_elbo = evaluate_elbo(vae, valid).mean().item()
            if not math.isfinite(mean_elbo + valid_elbo):
                found = f"the ELBO is {mean_elbo} in training, {valid_elbo} in validation"
                raise FloatingPointError(f"{options.out}, epoch {epoch + 1}: {found}; {state.last_good()}")
            values = {"learning_rate": learning_rate, "train_elbo": mean_elbo, "seconds": seconds}
            record.add(epoch + 1, **values, valid_elbo=valid_elbo)
            state.save(lines=record.lines)
            bar.set_postfix(valid_elbo=f"{valid_elbo:.2f}")
            bar.update()
        if stop.requested:
            stop.stop(f"{options.out}: trained, saved")
    return vae, [{"epoch": line["step"], **{k: v for k, v in line.items() if k != "step"}} for line in record.lines]


def may_grow(options: Hyperparameters) -> tuple[str, ...]:
    """What a later start may ask more of: epochs, where the learning rate does not depend on their number."""
    return ("epochs",) if options.schedule == "constant" else ()


def run(options: Hyperparameters, progress: bool = True) -> tuple[VAE, data.Splits, dict[str, Any]]:
    """Train, evaluate, and write ``result.json`` in the run's folder; resume where an earlier start stopped.

    Returns:
        The model, the data set and the result: ELBO of validation and test set and the test set's
        log-likelihood per number of samples, each with its standard error over the images.

    Raises:
        InputError: The folder holds another configuration's run, or the data set is not available.
    """
    dataset, splits = data.load(options.dataset, options.data, options.seed)
    options = replace(options, dataset=dataset)
    choose_device(options.device)  # a run that cannot begin claims no folder
    with claim(options.out, options, may_grow=may_grow(options)):
        vae, history = train(options, splits, progress)
        valid, test = (split.to(next(vae.parameters()).device) for split in splits[1:])
        path = Path(options.out) / "result.json"
        before = read_json(path) or {}
        log_px = before.get("test_log_px", {}) if before.get("history") == history else {}
        result = {
            "dataset": options.dataset,
            "seed": options.seed,
            "valid_elbo": mean_and_error(evaluate_elbo(vae, valid)),
            "test_elbo": mean_and_error(evaluate_elbo(vae, test)),
            "test_log_px": log_px,
            "kl_per_dimension": kl_per_dimension(vae, valid).tolist(),
            "train_seconds": sum(record["seconds"] for record in history),
            "history": history,
        }
        for k in options.num_samples:
            if str(k) not in log_px:
                log_px[str(k)] = mean_and_error(log_likelihood(vae, test, k, progress=progress))
            result["test_log_px"] = {k: log_px[k] for k in sorted(log_px, key=int)}
            write_json(path, result)  # after each: thousands of draws take minutes
        return vae, splits, result


def report(result: dict[str, Any]) -> str:
    """The numbers of a result, as the command line prints them and the README quotes them."""
    values = {"validation ELBO": result["valid_elbo"], "test ELBO": result["test_elbo"]}
    values |= {f"test log p(x), K={k}": value for k, value in result["test_log_px"].items()}
    lines = [f"{label:20} {value['mean']:.3f} ± {value['standard_error']:.3f} nats" for label, value in values.items()]
    return "\n".join([f"{'data set':20} {result['dataset']}", *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(Hyperparameters, "Train a VAE and estimate its log-likelihood.", argv)
    with interruption.one_line_errors():
        model, splits, result = run(options)
        from question1 import plots  # matplotlib takes a second to import

        plots.images(Path(options.out), model, splits.test)
        print(report(result))
        print(f"training took {result['train_seconds']:.1f} s; everything is in {options.out}")


if __name__ == "__main__":
    main()
