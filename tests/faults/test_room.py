"""A disk that fills up, a folder that cannot be written."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.faults.conftest import LONG, TRAINERS, messages, outcome


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
@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.9] if LONG else [0.6])
def test_a_disk_that_fills_up(share, small_disk, tmp_path):
    """One line and status 2; once there is room, the same command ends with the same bits."""
    trainer = TRAINERS["images"]
    trainer.main([*trainer.arguments, "--out", str(tmp_path / "whole")])
    size = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    room = int(min(size, 3e6) * share)
    (small_disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - room)))
    process = trainer.start(small_disk / "run")
    _, error = process.communicate(timeout=300)
    (line,) = messages(error)
    assert process.returncode == 2 and line.startswith("error: ") and "No space left" in line
    shutil.copytree(small_disk / "run", tmp_path / "moved") if (small_disk / "run").exists() else None
    trainer.main([*trainer.arguments, "--out", str(tmp_path / "moved")])
    assert outcome(tmp_path / "moved") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    process = TRAINERS["images"].start(small_disk / "run")
    _, error = process.communicate(timeout=300)
    (line,) = messages(error)
    assert process.returncode == 2 and line.startswith("error: ") and "Read-only" in line
