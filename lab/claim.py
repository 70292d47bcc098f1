"""Folders that belong to one configuration, and to one process at a time."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lab.files import TEMPORARY, warn_once, write_json
from lab.options import InputError, determining


@contextlib.contextmanager
def claim(folder: str | os.PathLike, *options: Any, may_grow: Sequence[str] = (), **more: Any) -> Iterator[None]:
    """Reserve a run's folder for one configuration, and lock it for this process while the block lasts.

    The configuration is written to ``config.json`` there. The operating system releases the lock when the process
    ends.

    Args:
        folder: The run's folder, made if it is missing.
        options: Dataclasses. Started again with the same values, a run resumes; ``bookkeeping`` fields may differ.
        may_grow: Fields, such as a number of updates, that may be larger than before: the run goes further.
        more: Further values that must be the same.

    Raises:
        InputError: The folder holds another configuration's run, or files but no ``config.json``, or another process
            is using it.
    """
    folder, path = Path(folder), Path(folder) / "config.json"
    given = {name: value for group in options for name, value in vars(group).items()} | more
    values = json.loads(json.dumps(given, default=str))  # as they are read again
    fixed = {name: values[name] for group in (*map(determining, options), more) for name in group}
    if folder.is_dir() and not path.exists() and any(entry.name[0] != "." for entry in folder.iterdir()):
        raise InputError(f"{folder} holds files of something else; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        locked = False
        try:
            stack.enter_context(FileLock(folder / ".lock", timeout=0))
            locked = True
        except Timeout:
            raise InputError(f"another process is using {folder}") from None
        except (OSError, NotImplementedError):
            pass  # where nothing can be written at all, writing the configuration says so
        if path.exists():
            _check_same(path, fixed, may_grow)
        for leftover in folder.rglob(f"{TEMPORARY}*"):  # of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        write_json(path, values)
        if not locked:
            warn_once(f"the file system of {folder} does not lock files: start one process at a time there")
        yield


def _check_same(path: Path, values: dict[str, Any], may_grow: Sequence[str]) -> None:
    """Refuse a folder whose ``config.json`` is another configuration's, or not ours."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        other = [
            f"{name}={written.get(name)}{' (which may only grow)' if name in may_grow else ''}"
            for name, value in values.items()
            if written.get(name) != value and not (name in may_grow and written[name] < value)
        ]
    except (ValueError, AttributeError, KeyError, TypeError):
        raise InputError(f"{path} is damaged, or not ours: delete it, or choose another --out") from None
    if other:
        raise InputError(f"{path.parent} holds a run with {', '.join(other)}; choose another --out")
