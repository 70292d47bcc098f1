"""Command lines from dataclasses: a flag per field, help from its comment, one-line errors with exit status 2."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import torch
from simple_parsing import ArgumentParser

Options = TypeVar("Options")


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(message)


def fail(message: object) -> NoReturn:
    """Print one line on standard error and leave with exit status 2."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(2)


def parse(options: type[Options], description: str, argv: Sequence[str] | None = None) -> Options:
    """Read a dataclass from the command line; its ``__post_init__`` may refuse values by ValueError."""
    return parse_all(description, argv, options=options).options


def parse_all(description: str, argv: Sequence[str] | None = None, **groups: Any) -> Any:
    """Read several dataclasses from one command line.

    Args:
        description: First line of the help.
        argv: The arguments; None for those of the process.
        groups: Name to a dataclass, or to an instance of one, whose values then are the defaults.

    Returns:
        An object with the names as attributes.
    """
    parser: Any = _Parser(description=description, add_option_string_dash_variants=False)
    for name, group in groups.items():
        if isinstance(group, type):
            parser.add_arguments(group, dest=name)
        else:
            parser.add_arguments(type(group), dest=name, default=group)
    try:
        return parser.parse_args(argv)
    except ValueError as error:
        fail(error)


def choose_device(name: str) -> torch.device:
    """The named device; ``auto`` takes CUDA where there is one, else the CPU.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r} here ({str(error).splitlines()[0]})") from None
