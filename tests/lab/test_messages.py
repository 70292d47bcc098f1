"""What programs say on standard error: bars and plain lines, no warnings with files and lines of source."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNS = {
    "vae": "vae.py --dataset digits --epochs 1 --latent_size 4 --num_samples 2",
    "train": "train.py --compile no --num_iter 10 --num_layers 1 2 --workers 2",
    "dirac": "run_exp.py --config dirac-jsd-2 --max_iters 50",
    "images": "run_exp.py --config cifar10-jsd-3 --dataset digits --scores classifier --generator_dimh 2"
    " --critic_dimh 2 --max_iters 2 --log_every 1 --eval_every 1 --eval_samples 20 --final_samples 20",
}
SOURCE = re.compile(r"warning|traceback|\.py\W|CUDA", re.IGNORECASE)


def strange(text: str) -> list[str]:
    """The lines that a person who runs a program could not read."""
    return [line for line in re.split(r"[\r\n]+", text) if SOURCE.search(line)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_programs_give_no_warnings(name, tmp_path):
    # A machine with CUDA's compiler and no GPU is one on which torch warns.
    environment = {**os.environ, "CUDA_HOME": str(tmp_path / "cuda")}
    command = [sys.executable, *RUNS[name].split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not strange(done.stderr), done.stderr
