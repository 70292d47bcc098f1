"""Runs that are killed at random moments, by themselves and with all their processes, end with the same bits."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lab.device import has_compiler
from tests.faults.conftest import LONG, TRAINERS, Trainer, newest, outcome

KILLS = 50 if LONG else 1
MORE = {  # long enough to be met at work
    "vae": ["--epochs", "6", "--input_dropout", "0.1", "--schedule", "one-cycle"],
    "train": ["--num_iter", "6000", "--from", "samples", "density", "--targets", "arcs", "sine"],
    "images": ["--max_iters", "60"],
}


def wait(process: subprocess.Popen, out: Path, seconds: float, until_saved: bool, chance: random.Random) -> None:
    """Wait for a random moment of a process: since its start, or since it has written another checkpoint."""
    before = newest(out)
    while until_saved and process.poll() is None and newest(out) == before:
        time.sleep(0.005)
    deadline = time.monotonic() + chance.uniform(0, 0.5 if until_saved else seconds)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def kill_often(
    trainer: Trainer,
    out: Path,
    more: list[str],
    kills: int,
    whole_group: bool = False,
) -> None:
    """Kill runs, start them again, and compare what those that end leave with a run that was not killed.

    Where whole groups of processes are killed, each run has a compiler's cache of its own, so that it has to compile,
    and, started again, finds what the kill left there.
    """

    def environ(folder: Path) -> dict[str, str]:
        return {**os.environ, **({"TORCHINDUCTOR_CACHE_DIR": f"{folder}-cache"} if whole_group else {})}

    started = time.monotonic()
    process = trainer.start(out / "whole", *more, env=environ(out / "whole"))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    seconds, expected = time.monotonic() - started, outcome(out / "whole")
    chance, killed, run = random.Random(0), 0, 0
    while killed < kills:
        folder = out / f"killed-{run}"
        while True:
            process = trainer.start(folder, *more, env=environ(folder), start_new_session=True)
            if killed < kills:
                wait(process, folder, seconds, killed % 2 == 0, chance)
                if process.poll() is None:
                    killed += 1
                    if whole_group:
                        os.killpg(process.pid, signal.SIGKILL)
                    else:
                        process.kill()
            _, error = process.communicate(timeout=300)
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, error
        assert outcome(folder) == expected
        run += 1


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(any_trainer, request, tmp_path):
    name = request.node.callspec.params["any_trainer"]
    kill_often(any_trainer, tmp_path, MORE.get(name, []), KILLS)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: make faults")
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here")
def test_a_group_of_processes_that_is_killed_while_it_compiles_ends_with_the_same_bits(tmp_path):
    more = ["--num_layers", "1", "2", "--compile", "yes", "--workers", "2"]
    kill_often(TRAINERS["train"], tmp_path, more, KILLS, whole_group=True)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: make faults")
def test_a_parent_that_is_killed_alone_and_started_again_at_once(tmp_path):
    more = ["--num_layers", "1", "2", "--workers", "2", "--num_iter", "6000"]
    kill_often(TRAINERS["train"], tmp_path, more, 10)
