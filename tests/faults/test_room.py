"""A disk that fills up, a folder that cannot be written."""

import os
import random
import shutil
import subprocess
import sys

import pytest

from lab import checkpoint
from tests.faults.conftest import LONG, TRAINERS, messages, outcome

TIMES = 6 if LONG else 1
PROGRAMS = [*TRAINERS, "dirac", "classifier"] if LONG else ["images"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounts = sys.platform == "linux" and os.getuid() == 0 and shutil.which("mount")
    if not mounts or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place]).returncode:
        pytest.skip("a file system can be mounted by root on Linux only")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("any_trainer", PROGRAMS, indirect=True)
def test_a_disk_that_fills_up(any_trainer, small_disk, tmp_path):
    """One line and status 2 each time; once there is room, the same command ends with the same bits."""
    chance = random.Random(0)
    whole = any_trainer.start(tmp_path / "whole")
    assert whole.wait(timeout=300) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    for i in range(TIMES):
        # From no room at all to nearly enough.
        room = int(min(size, 3e6) * (0 if i == 0 else chance.random()))
        with (small_disk / "ballast").open("wb") as ballast:
            ballast.write(bytes(max(0, shutil.disk_usage(small_disk).free - room)))
        process = any_trainer.start(small_disk / "run")
        _, error = process.communicate(timeout=300)
        said = messages(error)
        assert process.returncode in (0, 2), error
        if process.returncode == 2:
            assert said and said[-1].startswith("error: ") and "No space left" in said[-1], error
            assert len(said) == 1, error
            for path in small_disk.rglob("checkpoint.pt"):
                assert checkpoint.load(path) is not None
        (small_disk / "ballast").unlink()
        shutil.copytree(small_disk / "run", tmp_path / "moved") if (small_disk / "run").exists() else None
        process = any_trainer.start(tmp_path / "moved")
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert outcome(tmp_path / "moved") == outcome(tmp_path / "whole")
        for place in (small_disk / "run", tmp_path / "moved"):
            shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("any_trainer", PROGRAMS, indirect=True)
def test_a_folder_that_cannot_be_written(any_trainer, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    process = any_trainer.start(small_disk / "run")
    _, error = process.communicate(timeout=300)
    (line,) = messages(error)
    assert process.returncode == 2 and line.startswith("error: ") and "Read-only" in line
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
