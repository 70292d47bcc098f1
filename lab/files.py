"""Files that are written whole or not at all, JSON, and fingerprints of tensors."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

TEMPORARY = ".writing-"  # prefix of files that are not complete yet


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, and rename it to ``path`` when the block succeeds.

    A crash at any moment leaves the old file or the new one, never a part of it. An exception leaves the old one and
    no temporary file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "note.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [entry.name for entry in Path(folder).iterdir()]
        ['note.txt']
    """
    path = Path(path)
    # The suffix is kept, because writers such as matplotlib choose the format by it.
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        _synchronise(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space to write {path} ({error.strerror}); the previous file is intact"
            raise OSError(error.errno, message) from None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _synchronise(path: Path) -> None:
    """Wait until a file is on the disk, so that a power cut does not leave an empty one."""
    try:
        with path.open("r+b") as file:  # Windows synchronises only what is open for writing
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        warn_once(f"the file system of {path.parent} does not synchronise files: a power cut may lose the last ones")


@functools.cache
def warn_once(text: str) -> None:
    """Print a line on standard error, the first time it is asked for."""
    print(text, file=sys.stderr)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON, atomically. NaN is refused, because JSON cannot represent it."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is no file or, with a warning, where it is damaged."""
    if not Path(path).exists():
        return None
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    print(f"{path} is damaged and will be recomputed", file=sys.stderr)
    return None


def fingerprint(*values: Any) -> str:
    """SHA-256 of tensors and plain values, in 16 digits. It does not depend on the device.

    Example:
        >>> fingerprint(torch.zeros(2), 1) == fingerprint(torch.zeros(2), 1) != fingerprint(torch.ones(2), 1)
        True
    """
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            total.update(repr(value).encode())
    return total.hexdigest()[:16]
