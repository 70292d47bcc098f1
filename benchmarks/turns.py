"""Contestants in turns: a machine shared with others is noisy, and turns spread the noise over all."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int, scale: float = 1.0) -> dict[str, Any]:
    """Time each contestant once in each round, after one turn that does not count.

    Returns:
        The ``times`` of each contestant, in seconds times ``scale``, and their ``median``.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()
    for _ in range(rounds):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            times[name].append((time.perf_counter() - started) * scale)
    return {"times": times, "median": {name: statistics.median(values) for name, values in times.items()}}


def lines(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """The numbers of a result as text, a line for each of its parts, without the single times.

    Example:
        >>> list(lines("vae", {"rounds": 2, "epoch": {"times": {"ours": [1.0, 3.0]}, "median": {"ours": 2.0}}}))
        ['vae: rounds 2', 'vae epoch median: ours 2']
    """
    numbers = [f"{key} {value:.3g}" for key, value in result.items() if isinstance(value, (int, float))]
    if numbers:
        yield f"{name}: {', '.join(numbers)}"
    for key, part in result.items():
        if isinstance(part, dict) and key != "times":
            yield from lines(f"{name} {key}", part)
