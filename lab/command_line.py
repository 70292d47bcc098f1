"""Command lines from dataclasses: a flag per field, help from its comment, one-line errors with exit status 2."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import simple_parsing
from simple_parsing import ArgumentParser, DashVariant
from simple_parsing.helpers.custom_actions import BooleanOptionalAction
from simple_parsing.wrappers.dataclass_wrapper import DataclassWrapper

Options = TypeVar("Options")


def bookkeeping(default: Any = dataclasses.MISSING, **arguments: Any) -> Any:
    """A field of options on which no number of the result depends: a folder, a number of workers, a pace.

    The field says so here, once; folder claims, summaries and reports read it through :func:`determining`.
    """
    return simple_parsing.field(default, metadata={"bookkeeping": True}, **arguments)


def determining(options: Any) -> dict[str, Any]:
    """The values of a dataclass on which the numbers of its run depend, by the fields' names."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if not field.metadata.get("bookkeeping")
    }


class _Titled(DataclassWrapper):
    """A group of flags that is headed by the first line of the dataclass's docstring."""

    @property
    def title(self) -> str:
        return (self.dataclass.__doc__ or "options").strip().splitlines()[0].rstrip(".")

    @property
    def description(self) -> str:
        return ""


class _Formatter(simple_parsing.SimpleHelpFormatter):
    """Shows each flag by one spelling, and no default that says nothing."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **{"max_help_position": 34, "width": 118, **keywords})

    def _format_action_invocation(self, action: argparse.Action) -> str:
        spellings = action.option_strings
        shown = [option for option in spellings if "-" not in option.lstrip("-")]
        if isinstance(action, BooleanOptionalAction):
            return shown[0] if not action.default else ", ".join(shown)
        action.option_strings = shown or spellings
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = spellings

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        return "value ..." if text == "list" else text

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = super()._get_help_string(action)
        if action.default in (None, False, "", [], argparse.SUPPRESS):
            text = re.sub(r" \(default: .*\)$", "", text or "")
        return text


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(message)


def fail(message: object) -> NoReturn:
    """Print one line on standard error and leave with exit status 2."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(2)


def parse(options: type[Options], description: str, argv: Sequence[str] | None = None, **about: str) -> Options:
    """Read a dataclass from the command line; its ``__post_init__`` may refuse values by ValueError."""
    return parse_all(description, argv, {"options": options}, **about).options


def parse_all(
    description: str,
    argv: Sequence[str] | None,
    groups: Mapping[str, Any],
    typed: Sequence[str] = (),
    program: str | None = None,
    examples: str | None = None,
) -> Any:
    """Read several dataclasses from one command line.

    Args:
        description: First line of the help.
        argv: The arguments; None for those of the process.
        groups: Name to a dataclass, or to an instance of one, whose values then are the defaults.
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
        kind, default = (group, None) if isinstance(group, type) else (type(group), group)
        if name in typed and not asks_help:  # the help shows defaults; the result leaves them out
            default = argparse.SUPPRESS
        parser.add_arguments(kind, dest=name, default=default, dataclass_wrapper_class=_Titled)
    try:
        asked = parser.parse_args(argv)
    except ValueError as error:
        fail(error)
    for name in typed:  # of a group of which nothing was typed the parser says nothing
        setattr(asked, name, getattr(asked, name, {}))
    return asked
