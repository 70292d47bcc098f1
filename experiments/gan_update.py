"""What a run's metric is made of, with W1: the critic's passes, and what an update of the generator leaves of it."""

import copy
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
# How they are made: as in the run, or with one thing changed.
WAYS: dict[str, dict[str, Any]] = {
    "as in the run": {},
    "in float32": {"bfloat16": False},
    "ten power iterations": {"power_iterations": 10},
}


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
            fast = image_gan.use_fast(management)
            usual = {"bfloat16": image_gan.precision(fast, images.train.device) == "bfloat16"}
            ways = {
                name: measure(players, one.hp, images.train, WINDOW[scale], fast, **{**usual, **changed})
                for name, changed in WAYS.items()
                if one.hp.critic_use_sn or "power_iterations" not in changed
            }
            rows.append({"name": one.name, "seed": one.hp.seed, "ways": ways})
    frame = study.frame(runs.Outcome(planned, {}, images), scale)
    frame["full_options"]["max_iters"] = UPDATES["full"]  # the full comparison is of the first updates too
    return {**frame, "window": WINDOW[scale], "configurations": rows}


def measure(
    trained: image_gan.Players,
    hp: Hyperparameters,
    images: Tensor,
    window: int,
    fast: bool,
    bfloat16: bool,
    power_iterations: int = 1,
) -> dict[str, dict[str, float] | float]:
    """The metric that some updates report, and that of the critic with the generator before and after each of them.

    The players go on from copies, so that the run can go on from where they are. The second and the third are of the
    same critic, images and noise, in float32, and the critic's singular values stay as they are.

    Args:
        trained: The players.
        hp: The run's hyper-parameters.
        images: uint8, ``(N, 3, 32, 32)``.
        window: How many updates.
        fast: Whether the run takes the fast path.
        bfloat16: Whether the updates are in bfloat16.
        power_iterations: For the singular values of a spectrally normalised critic, in each of the updates' passes.

    Returns:
        ``recorded``, ``before``, ``after``, and the ``difference`` of the last two, over the updates: mean and standard
        error. ``level`` and ``spread``: means of a batch's mean and deviation of the critic's values at real images.
    """
    players, device = copy.deepcopy(trained), images.device
    for module in players.critic.modules():
        if hasattr(module, "n_power_iterations"):  # torch's spectral normalisation
            module.n_power_iterations = power_iterations  # type: ignore[assignment]
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    total = torch.zeros((), device=device)
    advance = image_gan.make_advance(hp, players, images, total, bfloat16)
    batches, (metric, _) = image_gan.Batches(images, hp.batch_size), make_losses(hp.loss_type)
    rows = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for _ in range(window):
            old = copy.deepcopy(players.generator)
            total.zero_()
            advance()
            with torch.no_grad():
                players.critic.eval()  # no power iteration
                p, z = next(batches), players.generator.draw_noise(hp.batch_size)
                before, after = (metric(p, one(z), players.critic) for one in (old, players.generator))
                values = players.critic(p)
                players.critic.train()
            rows.append([value.item() for value in (total, before, after, values.mean(), values.std())])
    recorded, before, after, level, spread = torch.tensor(rows, dtype=torch.float64).T
    return {
        "recorded": mean_and_error(recorded),
        "before": mean_and_error(before),
        "after": mean_and_error(after),
        "difference": mean_and_error(after - before),
        "level": level.mean().item(),
        "spread": spread.mean().item(),
    }
