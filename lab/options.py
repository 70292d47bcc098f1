"""Command lines from dataclasses: a flag for each field, with its comment as help, its choices and its range."""

import argparse
import dataclasses
import functools
import operator
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import simple_parsing
from simple_parsing import ArgumentParser, DashVariant
from simple_parsing.wrappers.dataclass_wrapper import DataclassWrapper

LARGEST = 1e20  # float32 ends at 3e38, and optimisers multiply what they are given
LIMITS = {
    "at_least": ("at least", operator.ge),
    "at_most": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}
Group = TypeVar("Group")


class InputError(ValueError):
    """Something that the user gave is wrong. The command line shows it as one line, with exit status 2."""


def option(default: Any = dataclasses.MISSING, *, bookkeeping: bool = False, **arguments: Any) -> Any:
    """A field of options with what is said of it beside its type.

    Args:
        default: Its default.
        bookkeeping: No number of the result depends on it: a folder, a number of workers, a pace.
        arguments: ``at_least``, ``at_most``, ``above``, ``below``: the range of the number, or of each number of a
            list, which is not empty. Others are those of ``simple_parsing.field``, such as ``alias``.
    """
    limits = {name: arguments.pop(name) for name in LIMITS if name in arguments}
    return simple_parsing.field(default, metadata={"bookkeeping": bookkeeping, **limits}, **arguments)


def determining(options: Any) -> dict[str, Any]:
    """The values of a dataclass on which the numbers of its run depend, by name."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if not field.metadata.get("bookkeeping")
    }


def check(options: Any) -> None:
    """Check the fields of a dataclass against their choices and ranges, and expand ``~`` in paths.

    Call it in ``__post_init__``.

    Raises:
        InputError: A value is not one of the choices, or out of its range.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, str) and value.startswith("~"):
            setattr(options, field.name, str(Path(value).expanduser()))
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        choices = _choices(field.type)
        for each in values:
            if choices and each not in choices:
                names = ", ".join("none" if choice is None else choice for choice in choices)
                raise InputError(f"{field.name} must be one of {names}, got {each}")
            if isinstance(each, (int, float)) and not isinstance(each, bool):
                _check_range(field.name, each, field.metadata)
        if not values and LIMITS.keys() & field.metadata.keys():
            raise InputError(f"{field.name} needs at least one value")


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values that a field's annotation allows: of Literal, alone or in a list or an optional."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return parts
    choices = [choice for part in parts for choice in _choices(part)]
    return (*choices, None) if choices and type(None) in parts else tuple(choices)


def _check_range(name: str, value: float, metadata: Mapping[str, Any]) -> None:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(f"{name} must be below 2**63, got {value}")
    if isinstance(value, float) and not abs(value) < LARGEST:
        raise InputError(f"{name} must be a number below {LARGEST:g}, got {value}")
    for key, (words, holds) in LIMITS.items():
        if key in metadata and not holds(value, metadata[key]):
            raise InputError(f"{name} must be {words} {metadata[key]}, got {value}")


class _Titled(DataclassWrapper):
    """A group of flags that is headed by the first line of the dataclass's docstring."""

    @property
    def title(self) -> str:
        return (self.dataclass.__doc__ or "options").strip().splitlines()[0].rstrip(".")

    @property
    def description(self) -> str:
        return ""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(message)


def fail(message: object, status: int = 2) -> NoReturn:
    """Print one line on standard error and exit with a status."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(status)


def parse(group: type[Group], description: str, argv: Sequence[str] | None = None, **about: str) -> Group:
    """Read a dataclass from the command line; its ``__post_init__`` may refuse values by InputError."""
    return parse_all(description, argv, {"options": group}, **about).options


def parse_all(
    description: str,
    argv: Sequence[str] | None,
    groups: Mapping[str, type],
    typed: Sequence[str] = (),
    program: str | None = None,
    examples: str | None = None,
) -> Any:
    """Read several dataclasses from one command line, to an object with their names in ``groups`` as attributes.

    Of the ``typed`` groups only what was typed is wanted, as a dictionary. ``program`` is the program's name, where it
    is not that of its file; ``examples`` are shown below the flags.
    """
    argv = [_with_underscores(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    formatter: Any = functools.partial(simple_parsing.SimpleHelpFormatter, max_help_position=34, width=118)
    parser: Any = _Parser(
        prog=program,
        usage="%(prog)s [options]",
        description=description,
        epilog=examples,
        formatter_class=formatter,
        add_option_string_dash_variants=DashVariant.AUTO,
    )
    asks_help = bool({"-h", "--help"} & set(argv))
    for name, group in groups.items():
        only_typed = name in typed and not asks_help  # the help shows defaults
        default = argparse.SUPPRESS if only_typed else None
        parser.add_arguments(group, dest=name, default=default, dataclass_wrapper_class=_Titled)
    try:
        asked = parser.parse_args(argv)
    except (ValueError, OverflowError) as error:
        fail(error)
    for name in typed:  # of a group of which nothing was typed the parser says nothing
        setattr(asked, name, getattr(asked, name, {}))
    return asked


def _with_underscores(argument: str) -> str:
    """A flag as its field is spelt: ``--max-iters=5`` is ``--max_iters=5``."""
    flag, equals, value = argument.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else argument
