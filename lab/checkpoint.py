"""Files that are whole or not there, and run folders that belong to one configuration."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


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
    """Save a checkpoint of tensors and plain values, atomically."""
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def as_float16(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's state to keep when training is over, in half the bytes; loading it makes it float32 again."""
    return {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}


def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Load a checkpoint, or return None where there is none yet."""
    if not Path(path).exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)


def claim_folder(folder: str | os.PathLike, config: Any, free: tuple[str, ...] = ()) -> None:
    """Reserve a run's folder for one configuration by writing it to ``config.json`` there.

    Args:
        folder: The run's output folder, made if it is missing.
        config: A dataclass or a dictionary. Started again with the same values, a run goes on where it stopped.
        free: Fields that may differ between two starts of the same run, because no number depends on them.

    Raises:
        ValueError: The folder holds another configuration's run, or files but no ``config.json``, or nothing can be
            written there.
    """
    folder = Path(folder)
    path = folder / "config.json"
    fields = {} if isinstance(config, dict) else {f.name: f.default for f in dataclasses.fields(config)}
    values = json.loads(json.dumps(dataclasses.asdict(config) if fields else config, default=str))
    if path.exists():
        # A field that was added later had its default when the run began.
        held = fields | json.loads(path.read_text())
        other = [f"{k}={held[k]}" for k in values if k not in free and k in held and held[k] != values[k]]
        if other:
            raise ValueError(f"{folder} holds a run with {', '.join(other)}; choose another --out")
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ValueError(f"{folder} holds files that are no run of ours; choose another --out")
    try:
        write_json(path, values)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written to ({error.strerror})") from None
