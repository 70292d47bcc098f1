"""Files that are whole or not there, checkpoints of named parts, and run folders that belong to one configuration."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lab.command_line import determining


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
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give this one the mode that an ordinary file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON, atomically. Not-a-number is refused: JSON has no word for it."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def save(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Save tensors and plain values, atomically."""
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Load what :func:`save` wrote, or return None where there is none yet."""
    if not Path(path).exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)


class Checkpoint:
    """A run's checkpoint: parts that are named once, and saved and restored by those names.

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

    def save(self, **values: Any) -> None:
        """Save the parts as they are now, and plain values beside them."""
        save(self.path, {**{name: _state(part) for name, part in self.parts.items()}, **values})

    def restore(self) -> dict[str, Any]:
        """Give the parts their saved state; returns the plain values, none where there is no checkpoint yet."""
        state = load(self.path) or {}
        for name, part in self.parts.items():
            if name in state:
                _restore(part, state.pop(name))
        return state


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
    """
    parameters = dict(network.named_parameters())
    return {name: value.half() if name in parameters else value for name, value in network.state_dict().items()}


def claim_folder(
    folder: str | os.PathLike, *options: Any, former: Mapping[str, str] | None = None, **more: Any
) -> None:
    """Reserve a run's folder for one configuration by writing it to ``config.json`` there.

    Args:
        folder: The run's output folder, made if it is missing.
        options: Dataclasses. Started again with the same values, a run goes on where it stopped; fields that are
            ``bookkeeping`` may differ.
        former: Names that fields had in files of earlier versions, to today's.
        more: Further values that must be the same.

    Raises:
        ValueError: The folder holds another configuration's run, or files but no ``config.json``, or nothing can be
            written there.
    """
    folder = Path(folder)
    path = folder / "config.json"
    fixed = {name for group in options for name in determining(group)} | set(more)
    values = _plain({**{name: value for group in options for name, value in vars(group).items()}, **more})
    if path.exists():
        written = {(former or {}).get(name, name): value for name, value in json.loads(path.read_text()).items()}
        # A field that was added later had its default when the run began.
        previous = {**_defaults(options), **written}
        other = [f"{k}={previous[k]}" for k in values if k in fixed and k in previous and previous[k] != values[k]]
        if other:
            raise ValueError(f"{folder} holds a run with {', '.join(other)}; choose another --out")
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ValueError(f"{folder} holds files that are no run of ours; choose another --out")
    try:
        write_json(path, values)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written to ({error.strerror})") from None


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
