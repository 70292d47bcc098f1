"""Command lines from dataclasses: a flag for each field, with its comment as help, its choices and its range."""

import argparse
import dataclasses
import operator
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import simple_parsing
from simple_parsing import ArgumentParser, DashVariant
from simple_parsing.helpers.custom_actions import BooleanOptionalAction
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


def option(
    default: Any = dataclasses.MISSING,
    *,
    bookkeeping: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    **arguments: Any,
) -> Any:
    """A field of options with what is said of it beside its type.

    Args:
        default: Its default.
        bookkeeping: No number of the result depends on it: a folder, a number of workers, a pace.
        at_least, at_most, above, below: The range of the number, or of each number of a list, which is not empty.
        arguments: Of ``simple_parsing.field``, such as ``alias`` and ``default_factory``.
    """
    limits = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    metadata = {"bookkeeping": bookkeeping, **{name: limit for name, limit in limits.items() if limit is not None}}
    return simple_parsing.field(default, metadata=metadata, **arguments)


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
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    parts = [_choices(part) or (part,) for part in typing.get_args(annotation)]
    chosen = [value for part in parts for value in part]
    return tuple(None if value is type(None) else value for value in chosen) if _has_literal(annotation) else ()


def _has_literal(annotation: Any) -> bool:
    return any(typing.get_origin(part) is Literal for part in typing.get_args(annotation))


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


class _Formatter(simple_parsing.SimpleHelpFormatter):
    """Shows each flag by one spelling, and every default."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **{"max_help_position": 34, "width": 118, **keywords})

    def _format_action_invocation(self, action: argparse.Action) -> str:
        spellings = action.option_strings
        shown = [flag for flag in spellings if "-" not in flag.lstrip("-")]
        if isinstance(action, BooleanOptionalAction):
            return ", ".join(shown)
        action.option_strings = shown or spellings
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = spellings

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        return "value ..." if text == "list" else text

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, "", []):
            return f"{action.help or ''} (default: none)"
        return super()._get_help_string(action)


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
    """Read several dataclasses from one command line.

    Args:
        description: First line of the help.
        argv: The arguments; None for those of the process.
        groups: Name to a dataclass.
        typed: Names of groups of which only what was typed is wanted, as a dictionary.
        program: The program's name, where it is not that of its file.
        examples: Shown below the flags.

    Returns:
        An object with the names as attributes.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser: Any = _Parser(
        prog=program,
        usage="%(prog)s [options]",
        description=description,
        epilog=examples,
        formatter_class=_Formatter,
        add_option_string_dash_variants=DashVariant.UNDERSCORE_AND_DASH,
    )
    asks_help = any(argument in ("-h", "--help") for argument in argv)
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
