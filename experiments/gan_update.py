"""What one update of the generator does to the metric that its critic has just measured, with W1."""

import copy
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import gan as study
from experiments.options import Options
from gan import make_losses
from lab.estimates import mean_and_error
from question2 import image_gan, runs
from question2.configurations import Hyperparameters, Management

NAMES = ("cifar10-w1-2", "cifar10-w1-3")
UPDATES = {"full": 4500, "reduced": 4500, "quick": 10}  # of the generator, before those that are measured
WINDOW = {"full": 200, "reduced": 200, "quick": 4}  # updates that are measured


def run(options: Options) -> dict[str, Any]:
    """Train each configuration, or go on with it, and measure the updates that follow."""
    scale = study.choose_scale(options)
    changes, managed = study.SCALES[scale]
    management = Management(
        data_path=options.data,
        device=options.device,
        exp_path=str(Path(options.out) / "gan_update"),
        **{**managed, "scores": "none"},
    )
    changes = {**changes, "max_iters": UPDATES[scale]}
    planned = [one for name in NAMES for one in runs.plan(name, options.seeds(study.SEEDS)[:1], management, **changes)]
    images, rows = runs.load_images(management), []
    with ExitStack() as claims:
        for one in planned:
            claims.enter_context(one.claimed())
        for one in planned:
            players, _, _ = image_gan.train(one.hp, management, images.train, one.folder, label=one.label)
            measured = measure(players, one.hp, images.train, WINDOW[scale], image_gan.use_fast(management))
            rows.append({"name": one.name, "seed": one.hp.seed, **measured})
    frame = study.frame(runs.Outcome(planned, {}, images), scale)
    frame["full_options"]["max_iters"] = UPDATES["full"]  # the full comparison is of the first updates too
    return {**frame, "window": WINDOW[scale], "configurations": rows}


def measure(
    trained: image_gan.Players, hp: Hyperparameters, images: Tensor, window: int, fast: bool
) -> dict[str, dict[str, float] | float]:
    """The metric of the same critic, images and noise with the generator before and after each of some updates.

    The players go on from copies, so that the run can go on from where they are. The critic is the one that has had
    its updates; its singular values stay as they are, and the passes are in float32.

    Args:
        trained: The players.
        hp: The run's hyper-parameters.
        images: uint8, ``(N, 3, 32, 32)``.
        window: How many updates.
        fast: Whether the run takes the fast path.

    Returns:
        ``before``, ``after`` and their ``difference``, over the updates: mean and standard error. ``rounded``: the
        difference in bfloat16. ``level`` and ``spread``: means of a batch's mean and deviation of the critic's values
        at real images.
    """
    players, device = copy.deepcopy(trained), images.device
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    precision = image_gan.precision(fast, device)
    advance = image_gan.make_advance(hp, players, images, torch.zeros((), device=device), precision == "bfloat16")
    batches, (metric, _) = image_gan.Batches(images, hp.batch_size), make_losses(hp.loss_type)
    rows = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for _ in range(window):
            old = copy.deepcopy(players.generator)
            advance()
            with torch.no_grad():
                players.critic.eval()  # no power iteration
                p, z = next(batches), players.generator.draw_noise(hp.batch_size)
                values = players.critic(p)
                row = {"level": values.mean(), "spread": values.std()}
                for name, as_is in (("", lambda network: network), ("rounded ", image_gan.in_bfloat16)):
                    critic, before, after = (as_is(one) for one in (players.critic, old, players.generator))
                    row[name + "before"] = metric(p, before(z), critic)
                    row[name + "after"] = metric(p, after(z), critic)
                players.critic.train()
            rows.append({name: value.item() for name, value in row.items()})
    columns = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return {
        "before": mean_and_error(columns["before"]),
        "after": mean_and_error(columns["after"]),
        "difference": mean_and_error(columns["after"] - columns["before"]),
        "rounded": mean_and_error(columns["rounded after"] - columns["rounded before"]),
        "level": statistics.mean(columns["level"].tolist()),
        "spread": statistics.mean(columns["spread"].tolist()),
    }
