"""How a command ends: normally, on Ctrl-C or SIGTERM, or on a mistake of the user.

Import this module before torch, so that a Ctrl-C while torch is imported is one line too.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

STOPPED = "stopped; run the same command to resume"


class InterruptedRunError(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C or SIGTERM, and has."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


def _without_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(str(error) or STOPPED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _without_files(arguments: threading.ExceptHookArgs) -> None:
    if not issubclass(arguments.exc_type, OSError):  # the next call of TensorBoard's writer raises its thread's again
        threading.__excepthook__(arguments)


_interrupts: list[int] = []


def _remember(number: int, frame: Any) -> None:
    _interrupts.append(number)  # a library may swallow the exception while it is imported
    raise KeyboardInterrupt


sys.excepthook = _without_traceback
threading.excepthook = _without_files
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    with contextlib.suppress(ValueError):  # in another thread than the main one
        signal.signal(signal.SIGINT, _remember)


class Interruption:
    """Turns the first Ctrl-C or SIGTERM of a block into a request, so that a run can finish its update and save.

    A Ctrl-C after it stops at once; a second SIGTERM, which ``timeout`` sends, changes nothing.

    Args:
        finishing: What is finished before the run stops, for the message.
    """

    def __init__(self, finishing: str = "this update") -> None:
        self.finishing = finishing
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run should stop."""
        return self.number is not None

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self.before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        before = self.before[number]
        if before == signal.SIG_IGN:
            return  # a worker leaves Ctrl-C to its parent
        if self.number is None:
            self.number = number
            if multiprocessing.parent_process() is None:
                text = f"\nfinishing {self.finishing}, then saving; Ctrl-C again stops at once\n"
                os.write(2, text.encode())  # print and tqdm may be in the middle of a line of their own
        elif number == signal.SIGINT:
            terminate(number, frame)

    def stop(self, message: str) -> NoReturn:
        """Stop, after the state has been saved."""
        raise InterruptedRunError(f"{message}; run the same command to resume", self.number or signal.SIGINT)


def terminate(number: int, frame: Any) -> NoReturn:
    """Handle SIGTERM as Ctrl-C."""
    raise InterruptedRunError(STOPPED, number)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Wrap a command: mistakes of the user become one line, and figures need no screen.

    The exit status is 2 for input, files and memory, 1 for a run that diverged, and 128 plus the signal's number for
    one that was stopped. Any other exception is a bug of the program and keeps its traceback.
    """
    import torch

    from lab.options import InputError, fail

    os.environ["MPLBACKEND"] = "Agg"  # a notebook's "!python train.py" inherits one that may not be installed
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib"].use("Agg")
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    try:
        Path(cache or ".").mkdir(parents=True, exist_ok=True)
    except OSError as error:  # torch makes it when its compiler is imported, and cannot be imported without
        print(f"TORCHINDUCTOR_CACHE_DIR is ignored: {error}", file=sys.stderr)
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    before = signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is _remember:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console of another encoding shows what it can
            stream.reconfigure(errors="replace")
    try:
        if _interrupts:
            _interrupts.clear()
            raise KeyboardInterrupt
        yield
    except BrokenPipeError:  # the reader of the output has left, as "| head -1" does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except FloatingPointError as error:
        fail(error, status=1)
    except (InputError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        fail(error or type(error).__name__)
    except RuntimeError as error:  # what torch raises on a CPU where a GPU raises OutOfMemoryError
        if "DefaultCPUAllocator" not in str(error):
            raise
        fail(f"too little memory: {error}")
    except KeyboardInterrupt as error:
        print(str(error) or STOPPED, file=sys.stderr)
        raise SystemExit(128 + getattr(error, "number", signal.SIGINT)) from None
    finally:
        signal.signal(signal.SIGTERM, before)
