"""Small runs of the trainers, which finish in seconds and leave a checkpoint on the way; FAULTS=long tries more."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import run_exp
import train
import vae
from experiments import classifier
from lab import checkpoint
from lab.files import fingerprint, read_json

ROOT = Path(__file__).parent.parent.parent
LONG = os.environ.get("FAULTS") == "long"


@dataclass
class Trainer:
    """A command, its entry point, the folder below ``--out`` that it claims, and where its checkpoint lies."""

    program: str
    main: Callable[[list[str]], None]
    options: str
    folder: str = ""
    place: str = "checkpoint.pt"

    @property
    def arguments(self) -> list[str]:
        return self.options.split()

    def start(self, out: Path, *more: str, **keywords: Any) -> subprocess.Popen:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of tests in the background, and inherited
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command = [sys.executable, self.program, *self.arguments, "--out", str(out), *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, **pipes, **keywords)


IMAGES = "--config=cifar10-jsd-2 --dataset=digits --scores=none --device=cpu --generator_dimh=2 --critic_dimh=2"
IMAGES += " --generator_dimz=4 --batch_size=8 --max_iters=20 --log_every=5 --eval_every=20 --checkpoint_minutes=0"
FLOWS = "--from samples --targets arcs --num_layers 1 --num_iter 2000 --compile no --workers 1"
GAME = "--config=dirac-jsd-8 --max_iters=2000 --log_every=200 --games=2 --workers=1 --viz=no"
TRAINERS = {
    "vae": Trainer("vae.py", vae.main, "--dataset digits --epochs 2 --latent_size 3 --num_samples 2"),
    "train": Trainer("train.py", train.main, FLOWS, place="from_samples_l1/checkpoint.pt"),
    "images": Trainer("run_exp.py", run_exp.cli, IMAGES, "cifar10-jsd-2-31415", "cifar10-jsd-2-31415/checkpoint.pt"),
}


@pytest.fixture(params=TRAINERS)
def trainer(request) -> Trainer:
    return TRAINERS[request.param]


def classifier_trainer(folder: Path) -> Trainer:
    """The classifier's training on few images of CIFAR-10's form, which are written to a folder."""
    folder.mkdir()
    images, labels = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8), np.arange(200) % 10
    np.savez(folder / "cifar10.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    options = f"--width 2 --epochs 4 --batch_size 40 --device cpu --data {folder}"
    return Trainer("experiments/classifier.py", classifier.main, options)


def without_times(value: Any) -> Any:
    """A value without what depends on the clock, and tensors as their fingerprints."""
    if isinstance(value, torch.Tensor):
        return fingerprint(value)
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in str(k)}
    return [without_times(each) for each in value] if isinstance(value, (list, tuple)) else value


def outcome(out: Path) -> dict[str, Any]:
    """What runs leave in a folder, without what depends on the clock."""
    read: dict[str, Callable[[Path], Any]] = {
        ".pt": checkpoint.load,
        ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
        ".png": lambda path: path.read_bytes(),
    }
    files = [path for path in out.rglob("*") if path.suffix in read or path.name == "result.json"]
    return {
        str(path.relative_to(out)): without_times(read.get(path.suffix, read_json)(path))
        for path in files
        if ".previous." not in path.name
    }


def newest(out: Path) -> int:
    """When a checkpoint was written last."""
    latest = 0
    for path in out.rglob("checkpoint.pt"):
        with contextlib.suppress(FileNotFoundError):  # moved away that moment, to make room for the next
            latest = max(latest, path.stat().st_mtime_ns)
    return latest


NOTES = ("it/s]", "%|", "training images", "compiling, up to", "machine is busy")


def messages(error: str) -> list[str]:
    """What was said on standard error, without progress bars and what each run says of its data and its machine."""
    lines = error.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and not any(note in line for note in NOTES)]


@pytest.fixture
def refused(capsys):
    """Run a command that must end in one line; its line."""

    def call(main: Callable[[list[str]], None], arguments: list[str], status: int = 2) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        error = capsys.readouterr().err
        lines = messages(error)
        assert stop.value.code == status, error
        assert len(lines) == 1 and lines[0].startswith("error: "), error
        return lines[0]

    return call
