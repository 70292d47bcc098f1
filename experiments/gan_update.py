"""What one update of the generator does to the metric that its critic has just measured, with W1."""

import copy
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments import gan as study
from experiments.options import Options
from gan import make_losses
from lab.command_line import determining
from lab.estimates import mean_and_error
from question2 import image_gan, runs
from question2.configurations import CONFIGURATIONS, Hyperparameters, Management

NAMES = ("cifar10-w1-2", "cifar10-w1-3")
MARKS = {"full": (500, 1000, 2000, 4500), "reduced": (500, 1000, 2000, 4500), "quick": (5, 10)}  # updates
WINDOW = {"full": 200, "reduced": 200, "quick": 4}  # updates after a mark that are measured


def run(options: Options) -> dict[str, Any]:
    """Train to each mark, and measure the updates that follow it."""
    scale = study.choose_scale(options)
    changes, managed = study.SCALES[scale]
    management = Management(
        data_path=options.data,
        device=options.device,
        exp_path=str(Path(options.out) / "gan_update"),
        **{**managed, "scores": "none"},
    )
    changes = {**changes, "max_iters": MARKS[scale][-1]}
    planned = [one for name in NAMES for one in runs.plan(name, options.seeds(study.SEEDS)[:1], management, **changes)]
    images = runs.load_images(management)
    rows = []
    for one in planned:
        with one.claimed():
            marks = []
            for mark in MARKS[scale]:
                part = replace(one.hp, max_iters=mark)
                players, _, _ = image_gan.train(part, management, images.train, one.folder, label=one.label)
                marks.append({"step": mark, **measure(players, one.hp, images.train, WINDOW[scale])})
        rows.append({"name": one.name, "seed": one.hp.seed, "marks": marks})
    return {
        "dataset": images.dataset,
        "scale": scale,
        "options": determining(planned[0].hp),
        "full_options": {**determining(CONFIGURATIONS[NAMES[0]]), "max_iters": MARKS[scale][-1]},
        "window": WINDOW[scale],
        "configurations": rows,
    }


def measure(
    trained: image_gan.Players, hp: Hyperparameters, images: torch.Tensor, window: int, fast: bool = True
) -> dict[str, Any]:
    """The metric before the generator's updates, as a run records it, and after each, of the same critic.

    The players go on from copies, so that the run can go on from where they are. After an update the critic's singular
    values stay as they were, and the passes are in float32; beside it in the precision of the run.

    Returns:
        ``before``, ``after`` and ``after_in_bfloat16``, over the updates: mean and standard error. ``level`` and
        ``spread``: mean and standard deviation of the critic's values at real images.
    """
    players, total = copy.deepcopy(trained), torch.zeros((), device=images.device)
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    precision = image_gan.precision(fast, images.device)
    advance = image_gan.make_advance(hp, players, images, total, precision == "bfloat16")
    batches, (metric, _) = image_gan.Batches(images, hp.batch_size), make_losses(hp.loss_type)
    rounded = image_gan.in_bfloat16(players.critic)
    before, after, after_rounded, levels, spreads = [], [], [], [], []
    with torch.random.fork_rng():
        for _ in range(window):
            total.zero_()
            advance()
            before.append(total.item())
            with torch.no_grad():
                players.critic.eval()  # no power iteration
                p, q = next(batches), players.generator()
                after.append(metric(p, q, players.critic).item())
                after_rounded.append(metric(p, q, rounded).item())
                values = players.critic(p)
                levels.append(values.mean().item())
                spreads.append(values.std().item())
                players.critic.train()
    return {
        "before": mean_and_error(torch.tensor(before)),
        "after": mean_and_error(torch.tensor(after)),
        "after_in_bfloat16": mean_and_error(torch.tensor(after_rounded)),
        "level": statistics.mean(levels),
        "spread": statistics.mean(spreads),
    }
