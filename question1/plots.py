"""Pictures of question 1: training, the bound, what the latents carry, and images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import figures
from question1 import autoencoder


def training(path: Path, settings: dict[str, Any]) -> None:
    with figures.figure(path, size=(5.4, 2.7)) as (axes,):
        for (name, setting), colour in zip(settings.items(), figures.COLOURS, strict=False):
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


def bound(path: Path, bounds: list[dict[str, Any]]) -> None:
    k = [bound["k"] for bound in bounds]
    with figures.figure(path) as (axes,):
        axes.errorbar(
            k, [b["mean"] for b in bounds], [b["standard_error"] for b in bounds], marker="o", ms=4, capsize=3
        )
        axes.set(xscale="log", xlabel="samples $K$", ylabel=r"test $\log p(x)$ (nats)")


def dimensions(path: Path, kl: list[float]) -> None:
    with figures.figure(path) as (axes,):
        axes.bar(range(1, len(kl) + 1), kl, width=1.0)
        axes.set(xlabel="latent dimension, sorted", ylabel="KL from the prior (nats)")


@torch.no_grad()
def images(folder: Path, model: autoencoder.VAE, images: Tensor) -> None:
    """Samples from the prior, reconstructions, and a walk between codes: pixel probabilities, not samples."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device

    def decode(z: Tensor) -> Tensor:
        return torch.sigmoid(model.decode(z.to(device)))

    figures.image_grid(folder / "vae_samples.png", decode(torch.randn(80, model.latent_size, generator=generator)), 16)
    chosen = images[torch.randperm(len(images), generator=generator)[:16]].float().to(device)
    mean, _ = model.encode(chosen)
    figures.image_grid(folder / "vae_reconstructions.png", torch.cat([chosen, decode(mean)]), 16)
    steps = torch.linspace(0, 1, 16, device=device).view(1, -1, 1)
    walk = torch.lerp(mean[:4, None], mean[4:8, None], steps).flatten(0, 1)
    figures.image_grid(folder / "vae_interpolation.png", decode(walk), 16)
