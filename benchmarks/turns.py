"""Contestants in turns: a machine shared with others is noisy, and turns spread the noise over all."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from lab.device import usable_cores

AT_MOST = 4  # times as many rounds as asked for, where the medians do not settle
SETTLED = 0.03  # relative difference of the medians of even and odd rounds


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int, scale: float = 1.0) -> dict[str, Any]:
    """Time each contestant once in each round, after one turn that does not count.

    Args:
        contestants: Name to what is timed.
        rounds: At least; more follow until the medians settle.
        scale: Of the times.

    Returns:
        The ``times`` of each contestant, in seconds times ``scale``; their ``median``; and whether it is ``settled``.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()
    while len(times[next(iter(times))]) < AT_MOST * rounds and not settled(times, rounds):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            times[name].append((time.perf_counter() - started) * scale)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {"times": times, "median": median, "settled": settled(times, rounds)}


def settled(times: Mapping[str, list[float]], rounds: int) -> bool:
    """Whether there are enough rounds, and the even ones say what the odd ones say."""
    if min(map(len, times.values())) < max(2, rounds):
        return False
    halves = [(statistics.median(values[::2]), statistics.median(values[1::2])) for values in times.values()]
    return all(abs(even - odd) <= SETTLED * max(even, odd) for even, odd in halves)


def unsettled(found: Mapping[str, Any]) -> str:
    """A remark for a line of times whose medians have not settled."""
    return "" if found["settled"] else "  (the medians have not settled)"


def too_busy() -> str | None:
    """Say so where others keep the machine so busy that no time means anything."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"load {load:.1f} on {usable_cores()} cores: too busy to judge" if load > usable_cores() else None
