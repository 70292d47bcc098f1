"""Runs as jobs, for real: processes of this machine, and a Slurm cluster of one node where Slurm is installed."""

import json
import multiprocessing
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import run_exp
from lab import checkpoint, jobs
from lab.files import write_json
from question2 import summary

ROOT = Path(__file__).parent.parent.parent
NAME = "cifar10-jsd-2"
COMMAND = f"--config={NAME} --dataset=digits --scores=none --device=cpu --generator_dimh=2 --critic_dimh=2".split()
COMMAND += ["--generator_dimz=4", "--batch_size=8", "--log_every=10", "--checkpoint_minutes=0"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of a cluster of one node."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) or os.getuid() != 0:
        pytest.skip("Slurm was not tested: it takes root, and Debian's packages slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "tests" / "lab" / "slurm_node.sh")
    subprocess.run(["bash", script, "start", str(folder)], check=True, timeout=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
    subprocess.run(["bash", script, "stop", str(folder)], check=True, timeout=60)


def test_no_cluster_and_one_that_refuses_the_jobs_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    for why in ("not available", "invalid partition"):
        with pytest.raises(SystemExit) as stop:
            run_exp.cli([*COMMAND, "--executor", "slurm", "--out", str(tmp_path / "runs")])
        assert stop.value.code == 2 and why in capsys.readouterr().err.splitlines()[-1]
        for command in ("srun", "sbatch"):
            (tmp_path / command).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
            (tmp_path / command).chmod(0o755)


@pytest.mark.slow
def test_slurm_job_that_is_preempted_is_requeued_and_resumes_from_its_checkpoint(tmp_path, slurm):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_exp.cli([*COMMAND, "--max_iters=60", f"--out={whole}"])
    command = [sys.executable, "run_exp.py", *COMMAND, "--max_iters=60", "--executor=slurm", f"--out={stopped}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = stopped / f"{NAME}-31415"
    deadline = time.monotonic() + 300
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    # What Slurm does some time before a time limit or a pre-emption: the signal that submitit asked it for.
    (job,) = subprocess.run(["squeue", "-h", "-o", "%i"], check=True, capture_output=True, text=True).stdout.split()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    assert not (folder / "result.json").exists()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    states = [checkpoint.load(out / folder.name / "checkpoint.pt")["averaged"] for out in (whole, stopped)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    logs = "".join(path.read_text() for path in (stopped / "jobs").rglob("*_log.*"))
    assert "requeue" in logs.lower(), logs


@pytest.mark.slow
def test_slurm_array_of_seeds_and_its_summary(tmp_path, slurm, capsys):
    command = ["--config=dirac-w1-[13]", "--seed", "1", "2", "--max_iters=60", f"--out={tmp_path}", "--summary"]
    run_exp.cli([*command, "--executor=slurm", "--parallel=2"])
    printed = capsys.readouterr().out
    assert "dirac-w1-1" in printed and "2 seeds" in printed
    assert json.loads((tmp_path / "summary.json").read_text()) == summary.collect(tmp_path)


def finished(folder: Path, name: str, seed: int, metric: float, **changes) -> None:
    config = {"config": name, "seed": seed, "critic_reg_cf": 1, "exp_path": "here", **changes}
    (folder / f"{name}-{seed}").mkdir()
    write_json(folder / f"{name}-{seed}" / "config.json", config)
    result = {"metrics": [{"step": 10, "metric": metric}], "final": {"step": 10, "samples": 5, "FID": 2 * metric}}
    write_json(folder / f"{name}-{seed}" / "result.json", result)


def test_summary_is_the_mean_and_deviation_over_seeds(tmp_path):
    for seed, metric in enumerate([1.0, 2.0, 3.0]):
        finished(tmp_path, "cifar10-jsd-1", seed, metric)
    finished(tmp_path, "cifar10-w1-2", 0, 7.0)
    first, second = summary.collect(tmp_path)
    assert first["seeds"] == [0, 1, 2] and set(first["numbers"]) == {"metric", "FID"}
    assert (first["numbers"]["FID"]["mean"], first["numbers"]["FID"]["deviation"]) == (4.0, 2.0)
    assert second["numbers"]["metric"]["deviation"] is None
    assert ["±" in line for line in summary.write(tmp_path).splitlines()] == [True, False]
    finished(tmp_path, "cifar10-jsd-1", 3, 4.0, critic_reg_cf=9)
    finished(tmp_path, "cifar10-w1-2", 1, 7.0, exp_path="elsewhere")
    with pytest.raises(ValueError, match="critic_reg_cf"):
        summary.collect(tmp_path)
    with pytest.raises(ValueError, match="no finished run"):
        summary.collect(tmp_path / "nothing")


def test_a_summary_that_is_not_ours_is_not_overwritten(tmp_path):
    finished(tmp_path, "cifar10-jsd-1", 0, 1.0)
    for _ in range(2):
        assert "cifar10-jsd-1" in summary.write(tmp_path)
    (tmp_path / "summary.json").write_text('[{"name": "my thesis"}]')
    with pytest.raises(ValueError, match="not overwritten"):
        summary.write(tmp_path)
    assert "my thesis" in (tmp_path / "summary.json").read_text()


@pytest.mark.slow
def test_calls_in_processes_give_their_results_in_order_and_errors_of_the_first_that_fails(tmp_path):
    done = []
    calls = {"slow": (time.sleep, 3), "threads": (torch.get_num_threads,), "sum": (sum, [1, 2])}
    results = jobs.run_in_processes(operator.call, calls, workers=2, threads=1, done=done.append)
    assert list(results.items()) == [("slow", None), ("threads", 1), ("sum", 3)] and sorted(done) == sorted(calls)
    calls = {"a": ((tmp_path / "a").touch,), "b": (int, "diverged"), "c": ((tmp_path / "c").touch,)}
    with pytest.raises(ValueError, match="diverged"):
        jobs.run_in_processes(operator.call, calls, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # after an error no other call is begun


@pytest.mark.slow
def test_a_worker_that_the_system_ends_is_one_error_with_the_name_of_its_call():
    calls = {"large": (signal.raise_signal, signal.SIGABRT), "small": (time.sleep, 1000)}
    with pytest.raises(ChildProcessError, match=r"during large.*run the same command to resume"):
        jobs.run_in_processes(operator.call, calls, workers=2)
    assert not multiprocessing.active_children()


def test_bars_of_workers_have_lines_of_their_own(monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "name", "worker-3")
    with jobs.bar(4, total=1) as bar:
        assert abs(bar.pos) == 3 and not bar.leave
