"""Pictures of the trained models: images that they draw, or a flow's density."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torchvision.utils import make_grid
from tqdm.auto import tqdm

from lab import figures
from pretrained import index, load
from question3 import plots


@torch.no_grad()
def draw(axes: Axes, name: str, seed: int = 0, count: int = 64) -> None:
    """Draw a square of images from a VAE (as pixel probabilities) or a generator, or the density of a flow.

    The same seed is the same noise for all models of a kind.
    """
    row, model, generator = index()[name], load(name), torch.Generator().manual_seed(seed)
    if row["kind"] == "flow":
        density = plots.flow_density(model, row["source"])
        plots.show(axes, density, "", Normalize(0, density.max()))
    else:
        if row["kind"] == "vae":
            ink = torch.sigmoid(model.decode(torch.randn(count, model.latent_size, generator=generator)))
            images = 1 - ink.view(count, 1, 28, 28)
        else:
            images = model(torch.randn(count, model.dimz, generator=generator)) / 2 + 0.5
        grid = make_grid(images, nrow=int(count**0.5), padding=1, pad_value=1)
        axes.imshow(grid.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="bicubic")
        axes.set_axis_off()
    score, value = next(iter(row["scores"].items()))
    meaning = ", lower is better" if score.startswith("FID") else " nats"
    title = score.replace("‖", r"$\Vert$")  # which the typeface lacks
    axes.set_title(f"{name}\n{title} ${value:.4g}${meaning}")


def sheet(names: Sequence[str], seed: int = 0, count: int = 64, columns: int = 4, progress: bool = False) -> Figure:
    """Models side by side, a panel each, as :func:`draw` draws them."""
    with mpl.rc_context(figures.STYLE):
        rows, columns = -(-len(names) // columns), min(columns, len(names))
        size = (2.6 * columns, 2.9 * rows)
        page, axes = plt.subplots(rows, columns, figsize=size, dpi=150, layout="constrained", squeeze=False)
        plt.close(page)  # so that a notebook shows it once
        for panel in axes.flat[len(names) :]:
            panel.set_axis_off()
        bar = tqdm(names, desc="drawing", unit="model", disable=not progress)
        for name, panel in zip(bar, axes.flat, strict=False):
            draw(panel, name, seed, count)
    return page
