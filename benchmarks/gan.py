"""The speed of training GANs of images: the fast path beside the plain one.

Timed in turns, for each kind of configuration: a generator update, with its critic updates and the average, of the
plain eager loop, float32 as torch comes, and of the fast path (channels last, fused Adam, bfloat16 where the device
computes it natively and, on CUDA, the step as a graph). On a CPU the networks are narrow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.turns import in_turns
from lab.device import Graphed, choose_device, precision
from question2.configurations import CONFIGURATIONS, Hyperparameters
from question2.images import Players, make_advance

KINDS = {"JSD": "cifar10-jsd-1", "JSD, spectral norm": "cifar10-jsd-2", "JSD, R1": "cifar10-jsd-3"}


def updates_of(hp: Hyperparameters, images: torch.Tensor, fast: bool, count: int) -> Callable[[], None]:
    """Some updates of the fast path or of the plain one."""
    device = images.device
    players = Players(hp, device, fast)
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    total = torch.zeros((), device=device)
    update = make_advance(hp, players, images, total, precision(fast, device) == "bfloat16")
    update = Graphed(update) if fast and device.type == "cuda" else update

    def run() -> None:
        for _ in range(count):
            update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def measure(rounds: int = 5, updates: int = 0, width: int = 0, device: str = "auto") -> dict[str, Any]:
    """Milliseconds of an update of both paths, per kind.

    0 updates a turn are 100 on CUDA and 4 on a CPU; width 0 is the configurations' on CUDA and 32 on a CPU.
    """
    place = choose_device(device)
    gpu = place.type == "cuda"
    updates = updates or (100 if gpu else 4)
    width = width or (Hyperparameters.generator_dimh if gpu else 32)
    images = torch.randint(0, 256, (50_000 if gpu else 1000, 3, 32, 32), dtype=torch.uint8).to(place)
    kinds: dict[str, dict[str, Any]] = {}
    for kind, name in KINDS.items():
        hp = dataclasses.replace(CONFIGURATIONS[name], generator_dimh=width, critic_dimh=width)
        contestants = {path: updates_of(hp, images, path == "fast", updates) for path in ("plain", "fast")}
        median = in_turns(contestants, rounds, scale=1e3 / updates)
        kinds[kind] = {"median": median, "times_faster": median["plain"] / median["fast"]}
    return {
        "device": torch.cuda.get_device_name(place) if gpu else "CPU",
        "precision": precision(True, place),
        "width": width,
        "rounds": rounds,
        "kinds": kinds,
    }
