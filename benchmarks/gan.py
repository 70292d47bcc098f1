"""The speed of training GANs of images: the fast path beside the plain one.

Timed in turns, for each kind of configuration: a generator update, with its critic updates and the average, of the
plain eager loop, float32 as torch comes, and of the fast path (channels last, fused Adam, bfloat16 where the device
computes it natively and, on CUDA, the step as a graph). On a CPU the networks are narrow; how long an update takes at
the assignment's width, and how many operations it is, ``run_exp.py --list`` turns into hours.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.turns import in_turns
from lab.device import choose_device, native_bfloat16
from question2.configurations import CONFIGURATIONS, Hyperparameters
from question2.images import Players, make_advance

KINDS = {"JSD": "cifar10-jsd-1", "JSD, spectral norm": "cifar10-jsd-2", "JSD, R1": "cifar10-jsd-3"}


class Operations(TorchDispatchMode):  # torch's own FlopCounterMode fails in the gradient that R1 differentiates
    """Counts the floating-point operations of convolutions and matrix products; a multiplication with sum is two."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(keywords or {}))
        formula = flop_registry.get(function.overloadpacket)
        self.count += formula(*arguments, **(keywords or {}), out_val=result) if formula else 0
        return result


def updates_of(hp: Hyperparameters, images: torch.Tensor, fast: bool, count: int) -> Callable[[], None]:
    """Some updates of the fast path or of the plain one."""
    device = images.device
    players = Players(hp, device, fast)
    update = make_advance(hp, players, images, torch.zeros((), device=device), fast)

    def run() -> None:
        for _ in range(count):
            update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def measure(
    rounds: int = 5, updates: int = 0, width: int = 0, full: int = Hyperparameters.generator_dimh, device: str = "auto"
) -> dict[str, Any]:
    """Milliseconds of an update of both paths, per kind; of the fast path, and its operations, at the full width too.

    0 updates a turn are 100 on CUDA and 4 on a CPU; width 0 is the full one on CUDA and 32 on a CPU.
    """
    place = choose_device(device)
    gpu = place.type == "cuda"
    updates = updates or (100 if gpu else 4)
    width = width or (full if gpu else 32)
    images = torch.randint(0, 256, (50_000 if gpu else 1000, 3, 32, 32), dtype=torch.uint8).to(place)
    kinds: dict[str, dict[str, Any]] = {}
    for kind, name in KINDS.items():
        narrow, wide = (replace(CONFIGURATIONS[name], generator_dimh=w, critic_dimh=w) for w in (width, full))
        contestants = {path: updates_of(narrow, images, path == "fast", updates) for path in ("plain", "fast")}
        median = in_turns(contestants, rounds, scale=1e3 / updates)
        at_full = in_turns({"milliseconds": updates_of(wide, images, fast=True, count=1)}, rounds, scale=1e3)
        with Operations() as operations:
            updates_of(wide, images, fast=False, count=1)()
        kinds[kind] = {
            "median": median,
            "times_faster": median["plain"] / median["fast"],
            "full": {**at_full, "operations": operations.count},
        }
    return {
        "device": torch.cuda.get_device_name(place) if gpu else "CPU",
        "precision": "bfloat16" if native_bfloat16(place) else "float32",
        "width": width,
        "full_width": full,
        "rounds": rounds,
        "kinds": kinds,
    }
