"""Speed beside the textbook loop: python -m benchmarks, or some of vae, gan and flow: python -m benchmarks vae gan"""

from lab import interruption

# isort: split
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.turns import lines
from lab.device import warn_if_busy
from lab.files import write_json
from lab.options import InputError, check, option, parse

UNITS = {"vae": "seconds; floor: the matrix products alone", "gan": "milliseconds", "flow": "milliseconds"}


@dataclass
class Options:
    """What to measure."""

    # vae, gan, flow; none for all
    which: list[str] = option(default_factory=list, positional=True, nargs="*", metavar="{vae,gan,flow}")
    rounds: int = option(5, at_least=1)  # turns of each contestant
    out: str = "runs/benchmark.json"  # where the results go

    def __post_init__(self) -> None:
        check(self)
        if not set(self.which) <= set(UNITS):
            raise InputError(f"there are benchmarks of {', '.join(UNITS)}, got {' '.join(self.which)}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(Options, "Time our code beside the textbook loop.", argv, program="python -m benchmarks")
    results = {}
    with interruption.one_line_errors():
        warn_if_busy()
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        for name in options.which or UNITS:
            results[name] = importlib.import_module(f"benchmarks.{name}").measure(rounds=options.rounds)
            print("\n".join([f"{name}, medians in {UNITS[name]}", *lines(name, results[name])]), flush=True)
            write_json(options.out, results)


if __name__ == "__main__":
    main()
