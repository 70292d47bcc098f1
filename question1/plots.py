"""Figures of question 1: training, the bound, latent dimensions, images and posteriors."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lab import figures
from q1_solution import log_mean_exp
from question1 import inference_gap
from question1.autoencoder import VAE, Posterior

THIRD = ((figures.WIDTH - 0.2) / 3, 2.0)


def training(path: Path, settings: dict[str, Any], target: float | None = None) -> None:
    """ELBO over the epochs, of the training batches (dotted) and the validation set: a line for each seed.

    ``settings``, a panel each, maps names to ``runs``, each with its ``history``; ``target`` is an ELBO in nats.
    """
    size = (figures.WIDTH / max(2, len(settings)), 2.4)
    shown = [] if target is None else [target]
    with figures.figure(path, columns=len(settings), size=size, sharey=True) as columns:
        for axes, (name, setting) in zip(columns, settings.items(), strict=True):
            for kind, line, colour in (("train", ":", figures.COLOURS[1]), ("valid", "-", figures.COLOURS[0])):
                for i, run in enumerate(setting["runs"]):
                    curve = [record[f"{kind}_elbo"] for record in run["history"]]
                    label = None if i else {"train": "training batches", "valid": "validation set"}[kind]
                    axes.plot(range(1, len(curve) + 1), curve, line, color=colour, linewidth=0.8, label=label)
                    shown.append(curve[-1])
            if target is not None:
                axes.axhline(target, color="black", linestyle="--", linewidth=0.8, label=f"target, ${target:g}$")
            axes.set(title=name, xlabel="epoch", xlim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        low, high = min(shown), max(shown)
        columns[0].set(ylabel="ELBO (nats)", ylim=(low - 0.2 * abs(low), high + 0.02 * abs(high)))
        columns[0].legend(loc="lower right")


def bound(path: Path, bounds: list[dict[str, Any]]) -> None:
    """The estimated log-likelihood over the number of samples, with standard errors."""
    k, mean, error = ([bound[key] for bound in bounds] for key in ("k", "mean", "standard_error"))
    with figures.figure(path) as (axes,):
        axes.errorbar(k, mean, error, marker="o", ms=4, capsize=3)
        axes.set(xscale="log", xlabel="samples $K$", ylabel=r"test $\log p(x)$ (nats)")


def dimensions(path: Path, kl: list[float]) -> None:
    """The KL divergence of each latent dimension, in the given order."""
    with figures.figure(path) as (axes,):
        axes.bar(range(1, len(kl) + 1), kl, width=1.0)
        axes.set(xlabel="latent dimension, sorted", ylabel="KL from the prior (nats)")


@torch.no_grad()
def images(folder: Path, model: VAE, images: Tensor) -> None:
    """Samples from the prior, reconstructions and interpolations, as pixel probabilities, where images are square."""
    if math.isqrt(images.shape[1]) ** 2 != images.shape[1]:
        return
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device

    def decode(z: Tensor) -> Tensor:
        return torch.sigmoid(model.decode(z.to(device)))

    noise = torch.randn(80, model.latent_size, generator=generator)
    chosen = images[torch.randperm(len(images), generator=generator)[:16]].float().to(device)
    mean, _ = model.encode(chosen)
    steps = torch.linspace(0, 1, 16, device=device).view(1, -1, 1)
    walk = torch.lerp(mean[:4, None], mean[4:8, None], steps).flatten(0, 1)
    for name, caption, shown in (
        ("samples", "Images decoded from draws of the prior: pixel probabilities.", decode(noise)),
        ("reconstructions", "Test images, and below them their reconstructions.", torch.cat([chosen, decode(mean)])),
        ("interpolation", "Each row walks between the codes of two test images.", decode(walk)),
    ):
        figures.image_grid(figures.captioned(folder / f"vae_{name}.png", caption), shown, 16)


def inference_gaps(path: Path, plane: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]]) -> None:
    """The two parts of the inference gap for each family, with two latent dimensions and with all."""
    with figures.figure(path, columns=2, size=THIRD, sharey=True) as columns:
        top = max(row["gap"]["mean"] for row in (*plane, *full))
        for axes, rows, title in zip(columns, (plane, full), ("2 latent dimensions", "100 dimensions"), strict=True):
            bottom = np.zeros(len(rows))
            for part, colour in (("approximation", figures.COLOURS[0]), ("amortisation", figures.COLOURS[5])):
                heights = np.array([row[part]["mean"] for row in rows])
                errors = [row[part]["standard_error"] for row in rows]
                axes.bar(range(len(rows)), heights, 0.6, bottom, color=colour, yerr=errors, capsize=2, label=part)
                bottom += heights
            axes.set_xticks(range(len(rows)), [row["name"].removeprefix("planar ") for row in rows])
            axes.set(title=title, xlabel="planar layers", ylim=(0, 1.2 * top))
            axes.grid(visible=False, axis="x")
        columns[0].set_ylabel("inference gap (nats)")
        columns[0].legend(loc="upper right")


def importance(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """How far the importance-sampling estimate is below log p(x) by quadrature."""
    mean, error = ([row["missing"][key] for row in rows] for key in ("mean", "standard_error"))
    with figures.figure(path, size=THIRD) as (axes,):
        axes.errorbar([row["k"] for row in rows], mean, error, marker="o", ms=4)
        axes.set(title="importance sampling", xscale="log", xlabel="samples $K$")
        axes.set_ylabel("shortfall in $\\log p(x)$ (nats)")
        figures.logarithmic(axes, mean)


def contours(path: Path, model: VAE, images: Tensor, posteriors: Sequence[dict[str, Posterior]]) -> None:
    """True posteriors on the latent plane (grey) and approximate ones (lines), at levels that enclose 50 % and 95 %.

    A panel for each image ``(N, 784)``, which has its approximate posteriors by name.
    """
    with figures.figure(path, columns=len(images), size=(figures.WIDTH / len(images), 1.75)) as columns:
        for axes, image, approximations in zip(columns, images, posteriors, strict=True):
            x, y = grid = window(model, image)
            points = grid.flatten(1).T
            truth = inference_gap.log_joint(model, image.unsqueeze(0), points)[0].double().view(x.shape)
            density = torch.exp(truth - truth.max())
            axes.contourf(x, y, density, levels=[*levels(density), 1.01], colors=["0.9", "0.75"])
            for (name, q), colour, dashes in zip(approximations.items(), figures.COLOURS, figures.DASHES, strict=False):
                density = torch.exp(inference_gap.log_density(q, points)).view(x.shape)
                look: dict[str, Any] = {"colors": colour, "linestyles": [dashes], "linewidths": 1.2}
                axes.contour(x, y, density, levels=levels(density), **look)
                axes.plot([], [], dashes, color=colour, label=name)
            axes.set(aspect="equal", xlabel="$z_1$")
            axes.grid(visible=False)
            inset = axes.inset_axes((0.72, 0.72, 0.28, 0.28))
            draw_tiles(inset, image.view(1, 1, -1))
            inset.spines[:].set_visible(True)
            inset.set(xticks=[], yticks=[])
        columns[0].set_ylabel("$z_2$")
        columns[0].fill([], [], color="0.75", label="true posterior")
        columns[0].figure.legend(*columns[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)


def window(model: VAE, image: Tensor, cells: int = 240) -> Tensor:
    """A square of the latent plane around the bulk of an image's true posterior: coordinates ``(2, cells, cells)``."""
    points, _ = inference_gap.plane(cells=300)
    log_joint = inference_gap.log_joint(model, image.unsqueeze(0), points)[0]
    bulk = points[log_joint > log_joint.max() - 8]
    low, high = bulk.min(0).values, bulk.max(0).values
    line = 0.7 * (high - low).max() * torch.linspace(-1, 1, cells)
    return torch.stack(torch.meshgrid(line, line, indexing="ij")) + ((low + high) / 2).view(2, 1, 1)


def levels(density: Tensor) -> list[float]:
    """The levels that enclose 95 % and 50 % of the mass of a density on cells of equal size."""
    ordered, _ = density.flatten().double().sort(descending=True)
    mass = ordered.cumsum(0) / ordered.sum()
    return [ordered[int((mass < share).sum())].item() for share in (0.95, 0.5)]


def varied(images: Tensor, count: int) -> Tensor:
    """Indices ``(count,)`` of different images ``(N, D)``: the nearest to the centre of each k-means cluster.

    The first images of a data set that is ordered by class would all be alike. No labels are needed.
    """
    from sklearn.cluster import KMeans  # slow to import

    # A thousand images, spread over the data set, are enough.
    spread = torch.arange(0, len(images), max(1, len(images) // max(count, 1000)))
    distances = KMeans(count, n_init=1, random_state=0).fit_transform(images.cpu()[spread].float().numpy())
    return spread[torch.from_numpy(distances.argmin(0))]


def image_rows(path: Path, rows: dict[str, Tensor]) -> None:
    """Draw rows of square images ``(N, D)``, 0 white and 1 black, each row with its name."""
    count = len(next(iter(rows.values())))
    side = min(0.5, (figures.WIDTH - 1.15) / count)  # of an image, in inches
    with figures.figure(path, size=(1.15 + side * count, 0.1 + side * len(rows))) as (axes,):
        draw_tiles(axes, torch.stack([images.cpu().float() for images in rows.values()]))
        axes.set_xticks([])
        axes.set_yticks([len(rows) - 0.5 - row for row in range(len(rows))], list(rows))
        axes.tick_params(length=0)


def draw_tiles(axes: Axes, images: Tensor, extent: tuple[float, float, float, float] | None = None) -> None:
    """Draw square images ``(R, C, D)``, the first row at the top, on axes without grid or frame."""
    rows, columns, pixels = images.shape
    side = math.isqrt(pixels)
    tiles = images.cpu().reshape(rows, columns, side, side).transpose(1, 2).reshape(rows * side, columns * side)
    look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    axes.imshow(tiles.numpy(), extent=extent or (0, columns, 0, rows), **look)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def importance_weights(path: Path, log_weights: Tensor) -> None:
    r"""Importance weights of one image: their logarithms, and the share of the sum that the largest have.

    ``log_weights`` are :math:`\log p(x|z_k) p(z_k) / q(z_k|x)` of the draws ``(K,)``, in nats.
    """
    y = log_weights.detach().cpu().double()
    shares = torch.softmax(y, dim=0).sort(descending=True).values.cumsum(0)
    counts = np.arange(1, len(y) + 1)
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
    with figures.figure(path, columns=2, size=(figures.HALF, 2.6)) as (left, right):
        left.hist(y.numpy(), bins=40, color=figures.COLOURS[5])
        lines = {"their mean: the ELBO": y.mean(), "log of the mean weight": log_mean_exp(y), "largest": y.max()}
        for (name, value), colour in zip(lines.items(), figures.COLOURS, strict=False):
            left.axvline(value.item(), color=colour, label=name)
        left.set(xlabel=r"$\log w_k$ (nats)", ylabel="draws")
        left.legend(**above)
        right.plot(counts, shares, label="these weights")
        right.plot(counts, counts / len(y), "--", color="grey", linewidth=1, label="equal weights")
        right.set(xscale="log", xlabel="how many of the largest weights", ylabel="share of the sum", ylim=(0, 1.03))
        right.legend(**above)


@torch.no_grad()
def walk(path: Path, model: VAE, z: Tensor, pair: Sequence[int], codes: Tensor, steps: int = 11) -> None:
    """Codes of the data ``(N, L)``, and decoded images of a code ``(L,)`` of which a pair of dimensions varies."""
    across, upwards = pair
    (left, right), (bottom, top) = (code_range(codes, dimension) for dimension in pair)
    plane = z.repeat(steps, steps, 1)
    plane[..., across] = torch.linspace(left, right, steps, device=z.device)
    plane[..., upwards] = torch.linspace(top, bottom, steps, device=z.device).unsqueeze(1)
    images = torch.sigmoid(model.decode(plane.flatten(0, 1))).view(steps, steps, -1)
    # The centre of each image is at its code.
    half_x, half_y = (right - left) / (steps - 1) / 2, (top - bottom) / (steps - 1) / 2
    extent = (left - half_x, right + half_x, bottom - half_y, top + half_y)
    with figures.figure(path, columns=2, size=(figures.HALF, 3.0)) as (scatter, tiles):
        scatter.plot(codes[:, across].cpu(), codes[:, upwards].cpu(), ".", ms=1.5, color="grey", alpha=0.5)
        scatter.plot(z[across].item(), z[upwards].item(), "o", color=figures.COLOURS[1], ms=5)
        scatter.set(xlim=extent[:2], ylim=extent[2:], title="codes of the data")
        draw_tiles(tiles, images, extent)
        tiles.set(title="decoded", aspect="auto")
        for axes in (scatter, tiles):
            axes.set(xlabel=f"dimension {across}", ylabel=f"dimension {upwards}")


def code_range(codes: Tensor, dimension: int) -> tuple[float, float]:
    """The smallest and the largest value of a dimension among the codes ``(N, L)``."""
    return codes[:, dimension].min().item(), codes[:, dimension].max().item()
