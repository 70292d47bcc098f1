"""Pictures of the trained models: images that they draw, or a flow's density."""

from collections.abc import Iterable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from torchvision.utils import make_grid
from tqdm.auto import tqdm

from lab import figures
from pretrained import index, load
from question3 import plots

COLUMNS, SIDE = 4, 2.6  # panels in a row, and the side of one in inches


@torch.no_grad()
def draw(axes: Axes, name: str, seed: int = 0, count: int = 64) -> None:
    """Draw images from a VAE (as pixel probabilities) or a generator, in a square; or the density of a flow.

    The same seed is the same noise for all models of a kind.
    """
    row, model, generator = index()[name], load(name), torch.Generator().manual_seed(seed)
    score, value = next(iter(row["scores"].items()))
    axes.set_title(f"{name}\n{score} {value:.4g}")
    if row["kind"] == "flow":
        density = plots.flow_density(model, row["source"])
        return plots.show(axes, density, axes.get_title(), Normalize(0, density.max()))
    if row["kind"] == "vae":
        ink = torch.sigmoid(model.decode(torch.randn(count, model.latent_size, generator=generator)))
        images = 1 - ink.view(count, 1, 28, 28)
    else:
        images = model(torch.randn(count, model.dimz, generator=generator)) / 2 + 0.5
    grid = make_grid(images, nrow=int(count**0.5), padding=1, pad_value=1)
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    return None


def sheet(path: str | Path, names: Iterable[str], seed: int = 0) -> None:
    """Draw models on one page, a panel each."""
    names = list(names)
    rows = -(-len(names) // COLUMNS)
    with figures.figure(path, columns=COLUMNS, rows=rows, size=(SIDE, SIDE + 0.3)) as panels:
        for axes in panels:
            axes.set_axis_off()
        for axes, name in tqdm(zip(panels, names, strict=False), total=len(names), desc="drawing", unit=" models"):
            axes.set_axis_on()
            draw(axes, name, seed)
