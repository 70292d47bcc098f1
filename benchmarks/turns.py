"""Contestants in turns: a machine shared with others is noisy, and turns spread the noise over all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from lab.device import warn_if_busy


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int, scale: float = 1.0) -> dict[str, float]:
    """The median seconds of each contestant, times ``scale``, after one turn that does not count.

    On a busy machine up to four times as many rounds follow, until the medians settle.
    """
    warn_if_busy()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()
    for turn in range(4 * rounds):
        if turn >= rounds and settled(times):
            break
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            times[name].append((time.perf_counter() - started) * scale)
    if not settled(times):
        print("the medians have not settled: this machine is too busy to judge", flush=True)
    return {name: statistics.median(values) for name, values in times.items()}


def settled(times: Mapping[str, Sequence[float]]) -> bool:
    """Whether the medians of even and odd rounds differ by at most 3 %."""
    halves = [[statistics.median(values[start::2] or values) for start in (0, 1)] for values in times.values()]
    return all(max(half) <= 1.03 * min(half) for half in halves)
