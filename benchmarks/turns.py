"""Contestants in turns: a machine shared with others is noisy, and turns spread the noise over all."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int, scale: float = 1.0) -> dict[str, Any]:
    """Time each contestant once in each round, after one turn that does not count.

    On a busy machine up to four times as many rounds follow, until the medians settle.

    Returns:
        The ``times`` of each contestant, in seconds times ``scale``; their ``median``; and whether they ``settled``.
    """
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
    median = {name: statistics.median(values) for name, values in times.items()}
    return {"times": times, "median": median, "settled": settled(times)}


def settled(times: Mapping[str, Sequence[float]]) -> bool:
    """Whether the medians of even and odd rounds differ by at most 3 %."""
    halves = [[statistics.median(values[start::2] or values) for start in (0, 1)] for values in times.values()]
    return all(max(half) <= 1.03 * min(half) for half in halves)


def lines(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """The numbers of a result as text, a line for each of its parts, without the single times.

    Example:
        >>> list(lines("vae", {"rounds": 2, "epoch": {"times": {"ours": [1.0, 3.0]}, "median": {"ours": 2.0}}}))
        ['vae: rounds 2', 'vae epoch median: ours 2']
    """
    numbers = [f"{key} {value:.3g}" for key, value in result.items() if type(value) in (int, float)]
    if not result.get("settled", True):
        numbers.append("not settled: the machine is too busy to judge")
    if numbers:
        yield f"{name}: {', '.join(numbers)}"
    for key, part in result.items():
        if isinstance(part, dict) and key != "times":
            yield from lines(f"{name} {key}", part)
