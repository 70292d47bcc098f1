"""Files that are whole or not there, checkpoints of named parts, and run folders that belong to one configuration."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lab.command_line import determining

TEMPORARY = ".writing-"  # how names of files begin that are not whole yet


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` that takes its name when the block ends well.

    A crash at any moment leaves the old file or the new one, never a part of it; an exception leaves the
    old one and no temporary file.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "note.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [entry.name for entry in Path(folder).iterdir()]
        ['note.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept, because writers such as matplotlib choose the format by it.
    handle, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give this one the mode that an ordinary file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("r+b") as file:  # Windows synchronises only what is open for writing
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            wanted = f", after {temporary.stat().st_size / 1e6:.1f} MB" if temporary.exists() else ""
            message = f"no room to write {path}{wanted} ({error.strerror}); what was there before is intact"
            raise OSError(error.errno, message) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON, atomically. Not-a-number is refused: JSON has no word for it."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file, and with a line on the screen where it is damaged."""
    if not Path(path).exists():
        return None
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    print(f"{path} is damaged; it is made anew", file=sys.stderr)
    return None


class DamagedError(ValueError):
    """A file that should hold a state of ours does not."""


def save(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Save tensors and plain values, atomically, with a digest of them all."""
    # Into memory first: on a full disk torch's own writer fails in a way that says nothing.
    buffer = io.BytesIO()
    torch.save({**state, "digest": digest(state)}, buffer)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(buffer.getbuffer())


def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Load what :func:`save` wrote, or return None where there is none yet.

    Raises:
        DamagedError: The file cannot be read, holds something else, or not what was saved.
    """
    if not Path(path).exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        written = state.pop("digest", None)  # earlier versions wrote none
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise DamagedError(f"{path} is damaged, or no file of this program ({type(error).__name__})") from None
    if written is not None and written != digest(state):
        raise DamagedError(f"{path} is damaged: it does not hold what was saved")
    return state


def digest(value: Any) -> str:
    """SHA-256 of nested tensors and plain values, which do not depend on the device."""
    total = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            total.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            for key, each in part.items():
                total.update(f"{key!r}: ".encode())
                add(each)
        elif isinstance(part, (list, tuple)):
            total.update(f"{len(part)} ".encode())
            for each in part:
                add(each)
        else:
            total.update(repr(part).encode())

    add(value)
    return total.hexdigest()


class Checkpoint:
    """A run's checkpoint: parts that are named once, and saved and restored by those names.

    The checkpoint before the last is kept beside it. What is not finite is not saved.

    Args:
        path: The file.
        parts: Name to what changes in training: anything with ``state_dict`` and ``load_state_dict``, tensors and
            random generators (restored in place), or sequences of these.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weight = torch.ones(1)
        ...     checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", weight=weight)
        ...     before = checkpoint.restore()
        ...     checkpoint.save(step=3)
        ...     _ = weight.zero_()
        ...     before, checkpoint.restore(), weight
        ({}, {'step': 3}, tensor([1.]))
    """

    def __init__(self, path: str | os.PathLike, **parts: Any) -> None:
        self.path, self.parts = Path(path), parts
        self.previous = self.path.with_name(f"{self.path.stem}.previous{self.path.suffix}")
        self.last_is_good = True  # until restoring finds otherwise

    def save(self, **values: Any) -> None:
        """Save the parts as they are now, and plain values beside them.

        Raises:
            FloatingPointError: A parameter, or another number of a part, is not finite. The last checkpoint stays.
        """
        state = {name: _state(part) for name, part in self.parts.items()}
        if (name := _not_finite(state)) is not None:
            raise FloatingPointError(f"{self.describe(values)}: {name} is not finite; {self.last_good()}")
        if self.path.is_file() and self.last_is_good:
            self.path.replace(self.previous)
        save(self.path, {**state, **values})
        self.last_is_good = True

    def describe(self, values: dict[str, Any]) -> str:
        """The run and where it is, for a message."""
        where = ", ".join(f"{name} {value}" for name, value in values.items() if isinstance(value, int))
        return f"{self.path.parent}{', ' + where if where else ''}"

    def last_good(self) -> str:
        """What a run that broke off leaves, for a message."""
        candidates = (self.path, self.previous) if self.last_is_good else (self.previous,)
        found = next((path for path in candidates if path.exists()), None)
        return f"the last good checkpoint is {found}" if found else "there is no checkpoint yet"

    def restore(self) -> dict[str, Any]:
        """Give the parts their saved state; returns the plain values, none where there is no checkpoint yet.

        Where the last checkpoint is damaged, the one before is taken, and a line says so.

        Raises:
            DamagedError: Neither can be read, or it belongs to other parts.
        """
        state, failure = None, None
        for path in (self.path, self.previous):
            try:
                state = load(path)
                if state is not None and not self.parts.keys() <= state.keys():
                    state = None
                    raise DamagedError(f"{path} is no checkpoint of this run")
            except DamagedError as error:
                failure = failure or error
            if state is not None:
                if failure:
                    print(f"{failure}; going on from the one before, {path}", file=sys.stderr)
                    self.last_is_good = False  # it must not take the place of the one before
                break
        else:
            if failure:
                raise DamagedError(f"{failure}: delete it to start the run again")
            return {}
        try:
            for name, part in self.parts.items():
                _restore(part, state.pop(name))
        except Exception as error:  # parts say in many ways that a state is not theirs
            raise DamagedError(
                f"{path} belongs to another run ({type(error).__name__}): delete it to start the run again"
            ) from None
        return state


def _not_finite(state: Any, name: str = "") -> str | None:
    """The name of a number that is not finite, or None."""
    if isinstance(state, torch.Tensor):
        return name if state.is_floating_point() and not state.isfinite().all() else None
    if isinstance(state, (dict, list, tuple)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        names = (_not_finite(value, f"{name}.{key}" if name else str(key)) for key, value in items)
        return next((found for found in names if found is not None), None)
    return name if isinstance(state, float) and not math.isfinite(state) else None


def _state(part: Any) -> Any:
    if isinstance(part, torch.Tensor):
        return part.detach()
    if isinstance(part, torch.Generator):
        return part.get_state()
    return [_state(each) for each in part] if isinstance(part, (list, tuple)) else part.state_dict()


def _restore(part: Any, state: Any) -> None:
    if isinstance(part, torch.Tensor):
        part.copy_(state)
    elif isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, (list, tuple)):
        for each, of_each in zip(part, state, strict=True):
            _restore(each, of_each)
    else:
        part.load_state_dict(state)


def as_float16(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's state to keep when training is over: parameters in half the bytes, other buffers as they are.

    ``load_state_dict`` makes it float32 again.

    Raises:
        FloatingPointError: A parameter is too large for float16.
    """
    parameters = dict(network.named_parameters())
    state = {name: value.half() if name in parameters else value for name, value in network.state_dict().items()}
    if (name := _not_finite(state)) is not None:
        raise FloatingPointError(f"{name} is too large for float16, in which networks are kept")
    return state


@contextlib.contextmanager
def claimed(
    folder: str | os.PathLike, *options: Any, former: Mapping[str, str] | None = None, **more: Any
) -> Iterator[None]:
    """Reserve a run's folder for one configuration, and for this process as long as the block lasts.

    The configuration is written to ``config.json`` there. The operating system releases the folder when the process
    ends, whichever way.

    Args:
        folder: The run's output folder, made if it is missing.
        options: Dataclasses. Started again with the same values, a run goes on where it stopped; fields that are
            ``bookkeeping`` may differ.
        former: Names that fields had in files of earlier versions, to today's.
        more: Further values that must be the same.

    Raises:
        ValueError: The folder holds another configuration's run, or files but no ``config.json``, or another process
            is at work there, or nothing can be written there.
    """
    folder = Path(folder)
    path = folder / "config.json"
    fixed = {name for group in options for name in determining(group)} | set(more)
    values = _plain({**{name: value for group in options for name, value in vars(group).items()}, **more})
    try:
        foreign = folder.is_dir() and not path.exists() and any(e.name[0] != "." for e in folder.iterdir())
        if foreign:
            raise ValueError(f"{folder} holds files that are no run of ours; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        with lock:
            if path.exists():
                _check_same(path, fixed, values, _defaults(options), former or {})
            for leftover in folder.glob(f"{TEMPORARY}*"):  # of a run that was killed while it wrote
                leftover.unlink(missing_ok=True)
            write_json(path, values)
            yield
    except Timeout:
        raise ValueError(f"another process is at work in {folder}") from None


def _check_same(
    path: Path, fixed: set[str], values: dict[str, Any], defaults: dict[str, Any], former: Mapping[str, str]
) -> None:
    """Refuse a folder whose ``config.json`` is another configuration's, or not ours."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        written = {former.get(name, name): value for name, value in read.items()}
    except (OSError, ValueError, AttributeError):
        raise ValueError(f"{path} is damaged, or not ours: delete it, or choose another --out") from None
    if not written.keys() & values.keys():
        raise ValueError(f"{path} is not ours; choose another --out")
    # A field that was added later had its default when the run began.
    previous = {**defaults, **written}
    other = [f"{k}={previous[k]}" for k in values if k in fixed and k in previous and previous[k] != values[k]]
    if other:
        raise ValueError(f"{path.parent} holds a run with {', '.join(other)}; choose another --out")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back."""
    return json.loads(json.dumps(values, default=str))


def _defaults(options: Sequence[Any]) -> dict[str, Any]:
    values = {}
    for field in (field for group in options for field in dataclasses.fields(group)):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return _plain(values)
