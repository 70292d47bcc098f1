"""Runs that are killed at random moments, by themselves and with their workers, end with the same bits."""

import random
import signal
import time

import pytest

from tests.faults.conftest import LONG, TRAINERS, newest, outcome

KILLS = 50 if LONG else 1
RUNS = {  # long enough to be met at work
    "vae": ["--epochs", "4", "--input_dropout", "0.1", "--schedule", "one-cycle"],
    "train": ["--num_iter", "3000", "--from", "samples", "density", "--targets", "arcs", "sine"],
    "images": ["--max_iters", "40"],
}
if LONG:  # a parent that is killed alone, and started again at once
    RUNS["workers"] = ["--num_layers", "1", "2", "--workers", "2", "--num_iter", "6000"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(name, tmp_path):
    trainer, started = TRAINERS.get(name, TRAINERS["train"]), time.monotonic()
    whole = trainer.start(tmp_path / "whole", *RUNS[name])
    _, error = whole.communicate(timeout=300)
    assert whole.returncode == 0, error
    seconds, chance, killed = time.monotonic() - started, random.Random(0), 0
    for run in range(KILLS):
        folder, status = tmp_path / f"killed-{run}", None
        while status != 0:
            process, before = trainer.start(folder, *RUNS[name]), newest(folder)
            if killed < KILLS:
                after_checkpoint = killed % 2 == 0
                while after_checkpoint and process.poll() is None and newest(folder) == before:
                    time.sleep(0.005)
                time.sleep(chance.uniform(0, 0.5 if after_checkpoint else seconds))
                if process.poll() is None:
                    killed += 1
                    process.kill()
            _, error = process.communicate(timeout=300)
            status = process.returncode
            assert status in (0, -signal.SIGKILL), error
        assert outcome(folder) == outcome(tmp_path / "whole")
        if killed == KILLS:
            break
