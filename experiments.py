"""Every experiment of the report, one after the other: python experiments.py --profile full|quick

Each writes what it measured to ``runs/PROFILE/results/*.json`` and its pictures to ``runs/PROFILE/figures``. An
experiment that was interrupted goes on where it stopped; one that is done is not run again.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import autoencoder
import benchmarks.vae
import checkpoint
import command_line
import data
import plots
import vae
from estimates import mean_and_error, spread


@dataclass
class Options:
    """What to run."""

    profile: str = "full"  # full, or quick: small data, few steps, no network, about three minutes on two cores
    data: str = field(default_factory=data.default_root)  # folder where data sets lie or are put
    dataset: str = "auto"  # auto, binarized_mnist or digits; the quick profile always takes digits
    seed: int = 1  # the first of the seeds
    device: str = "auto"  # auto, cpu, cuda, ...
    out: str = ""  # folder of the runs, their results and figures; left empty, runs/PROFILE

    def __post_init__(self) -> None:
        if self.profile not in ("full", "quick"):
            raise ValueError(f"profile must be full or quick, got {self.profile!r}")
        if self.profile == "quick":
            self.dataset = "digits"
        self.out = self.out or f"runs/{self.profile}"


# The assignment's setting, and what "feel free to modify the hyper-parameters" allows with the same network:
# name, number of seeds, changes to the defaults. The quick profile shortens them.
TUNED = {"schedule": "one-cycle", "learning_rate": 3e-3, "gradient": "path"}
VAE_SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("assignment", 5, {}),
    ("tuned", 3, TUNED),
    ("long", 3, {**TUNED, "epochs": 300, "batch_size": 128, "input_dropout": 0.2}),
]
BOUND_SAMPLES = [1, 10, 200, 5000]


def question1(options: Options) -> dict[str, Any]:
    """Questions 1.6 and 1.7: the VAE in each setting and seed, its bound as K grows, what its latents carry."""
    quick, out = options.profile == "quick", Path(options.out)
    dataset, splits = data.load(options.dataset, options.data)
    settings = {}
    for name, seeds, changes in VAE_SETTINGS:
        if quick:
            changes = {**changes, "epochs": min(40, changes.get("epochs", 20))}
            seeds = min(2, seeds)
        runs = []
        for seed in range(options.seed, options.seed + seeds):
            run = vae.Hyperparameters(
                dataset=dataset,
                data=options.data,
                device=options.device,
                seed=seed,
                out=str(out / "vae" / dataset / f"{name}-{seed}"),
            )
            print(f"VAE, {name}, seed {seed}, in {run.out}")
            runs.append(vae.run(replace(run, **changes)))
        settings[name] = {"options": public(replace(run, **changes)), **summarise([result for *_, result in runs])}
        model = runs[0][0]
        if name == "assignment":
            bounds, active = bound_as_k_grows(model, splits.test, quick), dimensions(model, splits.valid)
    figures = out / "figures"
    draw_training(figures / "vae_training.svg", settings)
    draw_bound(figures / "vae_bound.svg", bounds)
    draw_dimensions(figures / "vae_kl.svg", active["kl"])
    draw_images(figures, model, splits.test)
    return {
        "dataset": dataset,
        "images": dict(zip(splits._fields, map(len, splits), strict=True)),
        "settings": settings,
        "bounds": bounds,
        "latent": active,
    }


def public(options: vae.Hyperparameters) -> dict[str, Any]:
    """The options that a reader needs: not the folders of this machine, nor what differs between seeds."""
    return {k: v for k, v in asdict(options).items() if k not in ("data", "out", "seed", "num_samples")}


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    keep = ("seed", "valid_elbo", "test_elbo", "test_log_px", "train_seconds", "history")
    return {
        "runs": [{key: result[key] for key in keep} for result in results],
        "valid_elbo": spread([result["valid_elbo"]["mean"] for result in results]),
        "test_elbo": spread([result["test_elbo"]["mean"] for result in results]),
        "test_log_px": spread([result["test_log_px"]["200"]["mean"] for result in results]),
        "train_minutes": spread([result["train_seconds"] / 60 for result in results]),
    }


def bound_as_k_grows(model: autoencoder.VAE, images: Tensor, quick: bool) -> list[dict[str, Any]]:
    """The importance-sampling bound of the test set for each number of samples K."""
    images = images.to(next(model.parameters()).device)
    samples = [k for k in BOUND_SAMPLES if k <= 200 or not quick]
    return [{"k": k, **mean_and_error(autoencoder.log_likelihood(model, images, k, progress=True))} for k in samples]


def dimensions(model: autoencoder.VAE, images: Tensor, threshold: float = 0.01) -> dict[str, Any]:
    """The KL divergence per latent dimension, in falling order, and how many exceed ``threshold`` nats."""
    kl = (
        autoencoder.kl_per_dimension(model, images.to(next(model.parameters()).device))
        .sort(descending=True)
        .values.tolist()
    )
    return {"kl": kl, "threshold": threshold, "active": sum(value > threshold for value in kl), "total": sum(kl)}


def draw_training(path: Path, settings: dict[str, Any]) -> None:
    with plots.figure(path, size=(5.4, 2.7)) as (axes,):
        for (name, setting), colour in zip(settings.items(), plots.COLOURS, strict=False):
            for kind, line in {"train_elbo": ":", "valid_elbo": "-"}.items():
                curves = np.array([[record[kind] for record in run["history"]] for run in setting["runs"]])
                epochs = np.arange(1, curves.shape[1] + 1)
                label = f"{name}, {kind.split('_')[0]}"
                axes.plot(epochs, curves.mean(0), line, color=colour, label=label)
                axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)
        last = min(run["history"][-1]["valid_elbo"] for setting in settings.values() for run in setting["runs"])
        top = max(run["history"][-1]["train_elbo"] for setting in settings.values() for run in setting["runs"])
        axes.set(
            xscale="log", xlabel="epoch", ylabel="ELBO (nats)", ylim=(last - 0.25 * abs(last), top + 0.02 * abs(top))
        )
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_bound(path: Path, bounds: list[dict[str, Any]]) -> None:
    k = [bound["k"] for bound in bounds]
    with plots.figure(path) as (axes,):
        axes.errorbar(
            k, [b["mean"] for b in bounds], [b["standard_error"] for b in bounds], marker="o", ms=4, capsize=3
        )
        axes.set(xscale="log", xlabel="samples $K$", ylabel=r"test $\log p(x)$ (nats)")


def draw_dimensions(path: Path, kl: list[float]) -> None:
    with plots.figure(path) as (axes,):
        axes.bar(range(1, len(kl) + 1), kl, width=1.0)
        axes.set(xlabel="latent dimension, sorted", ylabel="KL from the prior (nats)")


@torch.no_grad()
def draw_images(folder: Path, model: autoencoder.VAE, images: Tensor) -> None:
    """Samples from the prior, reconstructions, and a walk between codes: pixel probabilities, not samples."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device

    def decode(z: Tensor) -> Tensor:
        return torch.sigmoid(model.decode(z.to(device)))

    plots.image_grid(folder / "vae_samples.png", decode(torch.randn(80, model.latent_size, generator=generator)), 16)
    chosen = images[torch.randperm(len(images), generator=generator)[:16]].float().to(device)
    mean, _ = model.encode(chosen)
    plots.image_grid(folder / "vae_reconstructions.png", torch.cat([chosen, decode(mean)]), 16)
    steps = torch.linspace(0, 1, 16, device=device).view(1, -1, 1)
    walk = torch.lerp(mean[:4, None], mean[4:8, None], steps).flatten(0, 1)
    plots.image_grid(folder / "vae_interpolation.png", decode(walk), 16)


def vae_speed(options: Options) -> dict[str, Any]:
    """The benchmark of question 1, cut down in the quick profile."""
    quick = options.profile == "quick"
    return benchmarks.vae.measure(options.dataset, options.data, rounds=1 if quick else 5, share=1.0 if quick else 0.2)


EXPERIMENTS: dict[str, Callable[[Options], dict[str, Any]]] = {"vae": question1, "vae_speed": vae_speed}


def environment() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cores": os.cpu_count(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Options, "Run every experiment of the report.", argv)
    try:
        options.dataset, _ = data.load(options.dataset, options.data)
    except (ValueError, data.DataUnavailableError) as error:
        command_line.fail(error)
    for name, experiment in EXPERIMENTS.items():
        path = Path(options.out) / "results" / f"{name}.json"
        held = json.loads(path.read_text()) if path.exists() else {}
        if (held.get("profile"), held.get("dataset")) == (options.profile, options.dataset):
            print(f"{name}: done before, {path} has it")
            continue
        print(f"{name}: running")
        started = time.perf_counter()
        result = experiment(options)
        minutes = (time.perf_counter() - started) / 60
        frame = {"profile": options.profile, "environment": environment(), "minutes": minutes}
        checkpoint.write_json(path, {**frame, **result})
        print(f"{name}: {minutes:.1f} minutes, written to {path}")


if __name__ == "__main__":
    main()
