"""Command lines from dataclasses: a flag per field, help from its comment, one-line errors with exit status 2."""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import simple_parsing
from simple_parsing import ArgumentParser, DashVariant
from simple_parsing.helpers.custom_actions import BooleanOptionalAction
from simple_parsing.wrappers.dataclass_wrapper import DataclassWrapper
from tqdm.auto import tqdm

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


def fail(message: object, status: int = 2) -> NoReturn:
    """Print one line on standard error and leave with an exit status."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(status)


class InterruptedRunError(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C or SIGTERM, and has."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class Interruption:
    """Turns the first Ctrl-C or SIGTERM of a block into a request, so that a run can finish its update and save.

    The second one leaves at once. In threads but the main one nothing is changed.

    Example:
        >>> with Interruption() as interruption:
        ...     interruption.requested
        False
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        return self.number is not None

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _request(self, number: int, frame: Any) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def stop(self, message: str) -> NoReturn:
        """Leave, after the state has been saved.

        Raises:
            InterruptedRunError: Always.
        """
        raise InterruptedRunError(f"{message}; the same command goes on", self.number or signal.SIGINT)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise InterruptedRunError("stopped; the same command goes on from the last checkpoint", number)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """What a command may run into becomes one line on standard error and an exit status.

    2 for bad input, files that cannot be read or written, and too little memory; 1 for a run that diverged; 128 and
    the signal's number for one that was stopped. Anything else is a mistake of the program, and keeps its traceback.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if on_main_thread else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console of another encoding shows what it can
            stream.reconfigure(errors="replace")
    try:
        yield
    except BrokenPipeError:  # whoever read the output has left, as "| head -1" does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except FloatingPointError as error:
        fail(error, status=1)
    except (ValueError, OSError, OverflowError, MemoryError) as error:
        fail(error or type(error).__name__)
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("memory", "allocate", "storage size")):
            raise
        fail(f"too little memory: {str(error).splitlines()[0]}")
    except KeyboardInterrupt as error:
        print(str(error) or "stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(128 + getattr(error, "number", signal.SIGINT)) from None
    finally:
        if on_main_thread:
            signal.signal(signal.SIGTERM, before)


def notice(text: str) -> None:
    """Say something to the person at the screen, in a line of its own among the progress bars."""
    tqdm.write(text, file=sys.stderr)


def check_seeds(*seeds: int) -> None:
    """Refuse seeds that torch's generators do not take.

    Raises:
        ValueError: A seed is negative, or has more than 63 bits.
    """
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2**63, got {seed}")


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
    for name in groups:
        group = getattr(asked, name)
        for field, value in (group if isinstance(group, dict) else vars(group)).items():
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, int) and abs(number) >= 2**63:
                    fail(f"{field} must be below 2**63, got {number}")
    return asked
