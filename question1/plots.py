"""Pictures of question 1: training, the bound, what the latents carry, and images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import figures
from question1 import autoencoder, inference_gap


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


def inference_gaps(path: Path, plane: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]]) -> None:
    """The parts of the inference gap, family by family, for two latent dimensions and for all."""
    with figures.figure(path, columns=2, size=(3.1, 2.1)) as columns:
        for axes, rows, title in zip(columns, (plane, full), ("two latent dimensions", "all of them"), strict=True):
            bottom = np.zeros(len(rows))
            for part, colour in (("approximation", figures.COLOURS[0]), ("amortisation", figures.COLOURS[5])):
                heights = np.array([row[part]["mean"] for row in rows])
                errors = [row[part]["standard_error"] for row in rows]
                axes.bar(range(len(rows)), heights, 0.6, bottom, color=colour, yerr=errors, capsize=2, label=part)
                bottom += heights
            axes.set_xticks(range(len(rows)), [row["name"] for row in rows])
            axes.set_title(title)
            axes.grid(visible=False, axis="x")
        columns[0].set_ylabel("inference gap (nats)")
        columns[0].legend()


def importance(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """What the importance-sampling estimate misses of the quadrature's log p(x)."""
    with figures.figure(path, size=(3.1, 2.1)) as (axes,):
        k, missing = [row["k"] for row in rows], [row["missing"] for row in rows]
        axes.errorbar(k, [m["mean"] for m in missing], [m["standard_error"] for m in missing], marker="o", ms=4)
        axes.set(xscale="log", yscale="log", xlabel="samples $K$", ylabel="missing of $\\log p(x)$ (nats)")


def contours(
    path: Path,
    model: autoencoder.VAE,
    images: Tensor,
    posteriors: Sequence[dict[str, autoencoder.Posterior]],
    shares: Sequence[float] = (0.5, 0.95),
) -> None:
    """True posteriors of images on the latent plane (grey), and approximate ones (lines) that hold as much mass."""
    with figures.figure(path, columns=len(images), size=(6.4 / len(images), 1.65)) as columns:
        for axes, image, of_image in zip(columns, images, posteriors, strict=True):
            grid = window(model, image)
            side = round(len(grid) ** 0.5)
            x, y = (grid[:, i].view(side, side).numpy() for i in range(2))
            truth = inference_gap.log_joint(model, image.unsqueeze(0), grid)[0].double()
            density = torch.exp(truth - truth.max())
            axes.contourf(
                x, y, density.view(side, side), levels=[*levels(density, shares), 1.01], cmap="Greys", vmin=-1
            )
            for (name, q), colour in zip(of_image.items(), figures.COLOURS, strict=False):
                density = torch.exp(inference_gap.log_density(q, grid))
                axes.contour(
                    x, y, density.view(side, side), levels=levels(density, shares), colors=colour, linewidths=1.0
                )
                axes.plot([], [], color=colour, label=name)
            axes.set_aspect("equal")
            axes.tick_params(labelsize=7)
            axes.grid(visible=False)
            inset = axes.inset_axes((0.72, 0.72, 0.28, 0.28))
            inset.imshow(1 - image.view(round(len(image) ** 0.5), -1), cmap="gray", vmin=0, vmax=1)
            inset.set(xticks=[], yticks=[])
            inset.grid(visible=False)
        columns[0].legend(fontsize=7, loc="lower left")


def window(model: autoencoder.VAE, image: Tensor, cells: int = 240, margin: float = 0.4) -> Tensor:
    """A square of the latent plane around what matters of an image's true posterior: points ``(cells², 2)``."""
    everywhere = inference_gap.plane(cells=300)
    log_joint = inference_gap.log_joint(model, image.unsqueeze(0), everywhere.points)[0]
    matters = everywhere.points[log_joint > log_joint.max() - 8]
    low, high = matters.min(0).values, matters.max(0).values
    half, centre = (high - low).max() * (1 + margin) / 2, (high + low) / 2
    line = torch.linspace(-1, 1, cells) * half
    return torch.stack(torch.meshgrid(centre[0] + line, centre[1] + line, indexing="ij"), dim=-1).view(-1, 2)


def levels(density: Tensor, shares: Sequence[float]) -> list[float]:
    """The densities above which lie these shares of the mass, of a density on equal cells, in rising order."""
    ordered, _ = density.flatten().double().sort(descending=True)
    mass = ordered.cumsum(0) / ordered.sum()
    return sorted(ordered[int((mass < share).sum())].item() for share in shares)
