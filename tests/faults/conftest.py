"""Small runs of the trainers, which finish in seconds and leave a checkpoint on the way; FAULTS=long tries more."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import run_exp
import train
import vae

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Trainer:
    """A command, its entry point, and where its checkpoint lies below ``--out``."""

    name: str
    main: Callable[[list[str]], None]
    arguments: tuple[str, ...]
    place: str

    def command(self, out: Path, *more: str) -> list[str]:
        return [sys.executable, f"{self.name}.py", *self.arguments, "--out", str(out), *more]

    def start(self, out: Path, *more: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(out, *more), cwd=ROOT, **pipes)


IMAGES = "--config=cifar10-jsd-2 --dataset=digits --scores=none --device=cpu --generator_dimh=2 --critic_dimh=2"
IMAGES += " --generator_dimz=4 --batch_size=8 --max_iters=20 --log_every=5 --eval_every=20 --checkpoint_minutes=0"
TRAINERS = {
    "vae": Trainer(
        "vae",
        vae.main,
        ("--dataset", "digits", "--epochs", "2", "--latent_size", "3", "--num_samples", "2"),
        "checkpoint.pt",
    ),
    "train": Trainer(
        "train",
        train.main,
        (
            "--from",
            "samples",
            "--data",
            "arcs",
            "--num_layers",
            "1",
            "--num_iter",
            "2000",
            "--compile",
            "no",
            "--workers",
            "1",
        ),
        "from_samples_l1/checkpoint.pt",
    ),
    "run_exp": Trainer("run_exp", run_exp.cli, tuple(IMAGES.split()), "cifar10-jsd-2-31415/checkpoint.pt"),
}


LONG = os.environ.get("FAULTS") == "long"


@pytest.fixture(params=TRAINERS)
def trainer(request) -> Trainer:
    return TRAINERS[request.param]


@pytest.fixture
def refused(capsys):
    """Run a command that must end in one line; its line."""

    def call(main: Callable[[list[str]], None], arguments: list[str], status: int = 2) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        error = capsys.readouterr().err
        lines = [line for line in error.replace("\r", "\n").splitlines() if line and "it/s]" not in line]
        lines = [line for line in lines if "%|" not in line]  # progress bars are no messages
        assert stop.value.code == status, error
        assert len(lines) == 1 and lines[0].startswith("error: "), error
        return lines[0]

    return call
