"""Pack what the notebooks need into one file for Colab: ``python -m report.colab``.

A notebook that finds this archive beside it, or is given it as an upload, needs no address; see ``first_cell.py``.
This is the one program that needs no installation, for those who use Colab have none: the standard library alone.
"""

from __future__ import annotations  # for the Python 3.9 that some systems bring

import argparse
import contextlib
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What the notebooks import, and what that imports, beside the root's modules.
FOLDERS = ("question1", "question2", "question3", "lab", "data", "experiments", "benchmarks")
SINGLE = ("requirements.txt", "LICENSE", "README.md")
LIMIT = 5_000_000  # bytes: an upload of some seconds
TIME = (2026, 1, 1, 0, 0, 0)  # the same files make the same archive


def contents() -> list[Path]:
    """The files that the notebooks need, relative to the root: code, its small arrays, published numbers."""
    return sorted(path for path in _files() if _needed(path))


def _needed(path: Path) -> bool:
    if len(path.parts) == 1:
        return path.suffix == ".py" or path.name in SINGLE
    return path.parts[0] in FOLDERS or (path.parent == Path("report/results") and path.suffix == ".json")


def _files() -> Iterator[Path]:
    """The repository's files; in a folder that is no repository, all but what programs left there."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        yield from (Path(name) for name in listed.decode().split("\0") if name and (ROOT / name).is_file())
        return
    for folder in (".", *FOLDERS, "report/results"):
        for path in (ROOT / folder).glob("*"):
            if path.is_file():
                yield path.relative_to(ROOT)


def pack(out: str | Path) -> int:
    """Write the archive.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: It is larger than 5 MB.
    """
    temporary = Path(f"{out}.part")  # so that a whole archive is there, or none
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in contents():
                entry = zipfile.ZipInfo(path.as_posix(), TIME)
                archive.writestr(entry, (ROOT / path).read_bytes(), zipfile.ZIP_DEFLATED)
        if (size := temporary.stat().st_size) > LIMIT:
            raise ValueError(f"the archive has {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}: what made it grow?")
        temporary.replace(out)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return size


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m report.colab", description="Pack the code for Colab.")
    parser.add_argument("--out", default="colab.zip", help="the archive (default: %(default)s)")
    out = parser.parse_args(argv).out
    try:
        size = pack(out)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        parser.error(str(error))
    print(f"written: {out}, {size / 1e6:.1f} MB; a notebook's first cell asks for it in Colab")


if __name__ == "__main__":
    main()
