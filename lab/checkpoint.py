"""Checkpoints of named parts, which know the run that they belong to."""

import io
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lab.files import atomic_write
from lab.options import InputError


class DamagedError(InputError):
    """A file that should hold a state does not."""


def save(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Save tensors and plain values, atomically."""
    buffer = io.BytesIO()  # on a full disk torch's own writer fails without saying why
    torch.save(state, buffer)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(buffer.getbuffer())


def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load what :func:`save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedError: The file cannot be read, or a record of it does not have its checksum.
    """
    try:
        # torch writes a CRC-32 for each record, but does not check it; a record that is marked as a folder it does not
        # read at all.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() or any(entry.external_attr for entry in archive.infolist())
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise DamagedError(f"{path} is damaged, or not a file of this program ({type(error).__name__})") from None
    if damaged or not isinstance(state, dict):
        raise DamagedError(f"{path} is damaged: it does not hold what was saved")
    return state


class Checkpoint:
    """The checkpoint of a run. Each part is named once, for saving and for restoring.

    The checkpoint before the last is kept beside it. Values that are not finite are not saved.

    Args:
        path: The file.
        origin: What the run's numbers depend on: its options and its data. A checkpoint of another origin is refused.
        parts: Name to what training changes: anything with ``state_dict`` and ``load_state_dict``, tensors and random
            generators (restored in place), or sequences of these.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weight = torch.ones(1)
        ...     checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", {"seed": 1}, weight=weight)
        ...     before = checkpoint.restore()
        ...     checkpoint.save(step=3)
        ...     _ = weight.zero_()
        ...     before, checkpoint.restore(), weight
        ({}, {'step': 3}, tensor([1.]))
    """

    def __init__(self, path: str | os.PathLike, origin: Mapping[str, Any], **parts: Any) -> None:
        self.path, self.origin, self.parts = Path(path), dict(origin), parts
        self.previous = self.path.with_name(f"{self.path.stem}.previous{self.path.suffix}")

    def save(self, **values: Any) -> None:
        """Save the parts as they are now, and plain values beside them.

        Raises:
            FloatingPointError: A parameter, or another number of a part, is not finite. The last checkpoint stays.
        """
        state = {name: _state(part) for name, part in self.parts.items()}
        if (name := not_finite(state)) is not None:
            where = ", ".join(f"{key} {value}" for key, value in values.items() if isinstance(value, int))
            raise FloatingPointError(f"{self.path.parent}, {where}: {name} is not finite; {self.last_good()}")
        if self.path.is_file():
            self.path.replace(self.previous)
        save(self.path, {"origin": self.origin, **state, **values})

    def last_good(self) -> str:
        """Say which checkpoint a run that broke off leaves."""
        found = next((path for path in (self.path, self.previous) if path.exists()), None)
        return f"the last good checkpoint is {found}" if found else "there is no checkpoint yet"

    def restore(self) -> dict[str, Any]:
        """Give the parts their saved state and return the plain values; none where there is no checkpoint yet.

        Where the last checkpoint is damaged, the one before takes its place, with a warning.

        Raises:
            DamagedError: Neither can be read.
            InputError: It belongs to another run.
        """
        failure = None
        for path in (self.path, self.previous):
            try:
                values = self._give(path, load(path))
            except FileNotFoundError:
                continue
            except DamagedError as error:
                failure = failure or error
                continue
            if failure:
                print(f"{failure}; resuming from the one before, {path}", file=sys.stderr)
                self.previous.replace(self.path)
            return values
        if failure:
            raise DamagedError(f"{failure}: delete it to start the run again")
        return {}

    def _give(self, path: Path, state: dict[str, Any]) -> dict[str, Any]:
        """Give the parts a state of this run, and return the rest of it."""
        try:
            origin = dict(state.pop("origin"))
            other = [f"{key}={origin.get(key)} (here {x})" for key, x in self.origin.items() if origin.get(key) != x]
            if not other:
                for name, part in self.parts.items():
                    _restore(part, state.pop(name))
        except Exception as error:  # parts say in many ways that a state is not theirs
            raise DamagedError(f"{path} does not fit this run ({type(error).__name__})") from None
        if other:
            raise InputError(f"{path} is of another run, with {', '.join(other)}: delete it, or choose another --out")
        return state


def not_finite(state: Any, name: str = "") -> str | None:
    """Return the name of a number that is not finite, or None."""
    if isinstance(state, torch.Tensor):
        return name if state.is_floating_point() and not state.isfinite().all() else None
    if isinstance(state, (dict, list, tuple)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        names = (not_finite(value, f"{name}.{key}" if name else str(key)) for key, value in items)
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
    elif isinstance(part, (list, tuple)):
        for each, its_state in zip(part, state, strict=True):
            _restore(each, its_state)
    elif not isinstance(part, torch.Generator):
        part.load_state_dict(state)
    elif state.numel() == part.get_state().numel():
        part.set_state(state.cpu())
    else:  # a generator of another kind of device: a seed that follows from its state
        print(f"the run changes its device to {part.device}: random numbers start from a new seed", file=sys.stderr)
        part.manual_seed(zlib.crc32(bytes(state.cpu())))


def as_float16(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a trained network, with its parameters in half the bytes; ``load_state_dict`` makes them float32.

    Raises:
        FloatingPointError: A parameter is too large for float16.
    """
    parameters = dict(network.named_parameters())
    state = {name: value.half() if name in parameters else value for name, value in network.state_dict().items()}
    if (name := not_finite(state)) is not None:
        raise FloatingPointError(f"{name} is too large for float16, in which networks are kept")
    return state
