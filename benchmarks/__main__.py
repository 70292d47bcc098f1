"""Speed beside the textbook loop: python -m benchmarks, or some of vae, gan and flow: python -m benchmarks vae gan"""

from lab import interruption

# isort: split
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lab.device import warn_if_busy
from lab.files import write_json
from lab.options import check, option, parse

Name = Literal["vae", "gan", "flow"]


@dataclass
class Options:
    """What to measure."""

    which: list[Name] = option(default_factory=lambda: [*get_args(Name)], positional=True, type=str, nargs="*")
    rounds: int = option(5, at_least=1)  # turns of each contestant
    out: str = "runs/benchmark.json"  # where the results go

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(Options, "Time our code beside the textbook loop.", argv, program="python -m benchmarks")
    results = {}
    with interruption.one_line_errors():
        warn_if_busy()
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        for name in options.which:
            results[name] = importlib.import_module(f"benchmarks.{name}").measure(rounds=options.rounds)
            print(name, json.dumps(results[name], indent=1), flush=True)
            write_json(options.out, results)


if __name__ == "__main__":
    main()
