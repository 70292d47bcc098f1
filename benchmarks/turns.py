"""Contestants in turns: a machine shared with others is noisy, and turns spread the noise over all."""

import statistics
import time
from collections.abc import Callable, Mapping

from lab.device import warn_if_busy


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int, scale: float = 1.0) -> dict[str, float]:
    """The median seconds of each contestant, times ``scale``, after one turn that does not count."""
    warn_if_busy()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(1 + rounds):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            times[name].append((time.perf_counter() - started) * scale)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
