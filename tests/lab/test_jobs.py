"""Runs as jobs, for real: processes of this machine, and a Slurm cluster of one node where Slurm is installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import run_exp
from lab import checkpoint, jobs
from lab.files import write_json
from question2 import summary

ROOT = Path(__file__).parent.parent.parent
NAME = "cifar10-jsd-2"
IMAGES = [
    "--dataset=digits",
    "--scores=none",
    "--device=cpu",
    "--generator_dimh=2",
    "--critic_dimh=2",
    "--generator_dimz=4",
]
COMMAND = [f"--config={NAME}", *IMAGES, "--batch_size=8", "--log_every=10", "--checkpoint_minutes=0"]


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


def processes_of(out: Path) -> list[int]:
    """The processes of jobs that keep their files in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"submitit.core._submit" in words and any(str(out).encode() in word for word in words):
            found.append(int(entry.name))
    return found


def kill(out: Path) -> None:
    """End the job's processes without a word."""
    victims = processes_of(out)
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def preempt(out: Path) -> None:
    """What Slurm does some time before a time limit or a pre-emption: the signal that submitit asked it for."""
    (job,) = subprocess.run(["squeue", "-h", "-o", "%i"], check=True, capture_output=True, text=True).stdout.split()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


def survives(tmp_path: Path, executor: str, stop: Callable[[Path], None]) -> str:
    """A run whose job is stopped half way ends as one that was not; what its launcher printed."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_exp.cli([*COMMAND, "--max_iters=60", f"--out={whole}"])
    command = [sys.executable, "run_exp.py", *COMMAND, "--max_iters=60", f"--executor={executor}", f"--out={stopped}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = stopped / f"{NAME}-31415"
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    stop(stopped)
    assert not (folder / "result.json").exists()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    states = [checkpoint.load(out / folder.name / "checkpoint.pt")["players"] for out in (whole, stopped)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert (folder / "log.txt").read_text().count(" of 60 on cpu") >= 2  # it was started twice
    return output


def test_a_cluster_that_refuses_the_jobs_is_one_line(tmp_path, monkeypatch, capsys):
    for command in ("srun", "sbatch"):
        (tmp_path / command).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SystemExit) as stop:
        run_exp.cli([*COMMAND, "--executor", "slurm", "--out", str(tmp_path / "runs")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "refuses the jobs" in error and "invalid partition" in error


@pytest.mark.slow
def test_local_job_that_is_killed_goes_on_from_its_checkpoint(tmp_path):
    assert "resubmitted" in survives(tmp_path, "local", kill)


@pytest.mark.slow
def test_slurm_job_that_is_killed_goes_on_from_its_checkpoint(tmp_path, slurm):
    assert "resubmitted" in survives(tmp_path, "slurm", kill)


@pytest.mark.slow
def test_slurm_job_that_is_preempted_is_requeued_and_goes_on_from_its_checkpoint(tmp_path, slurm):
    assert "resubmitted" not in survives(tmp_path, "slurm", preempt)  # Slurm did it, the launcher had only to wait


@pytest.mark.slow
def test_slurm_array_of_seeds_and_its_summary(tmp_path, slurm, capsys):
    command = ["--config=dirac-w1-[13]", "--seed", "1", "2", "--max_iters=60", f"--out={tmp_path}", "--summary"]
    run_exp.cli([*command, "--executor=slurm", "--parallel=2"])
    printed = capsys.readouterr().out
    assert "dirac-w1-1" in printed and "2 seeds" in printed
    assert json.loads((tmp_path / "summary.json").read_text()) == summary.collect(tmp_path)


@pytest.mark.slow
def test_a_run_that_fails_is_reported_and_not_repeated(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_exp.cli(["--config=cifar10-jsd-1", "--dataset=nonsense", f"--out={tmp_path}", "--executor=local"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "cifar10-jsd-1-31415 failed" in error and "unknown data set" in error and "again" not in error


def test_no_cluster_is_a_clear_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SystemExit) as stop:
        run_exp.cli(["--config=dirac-w1-1", f"--out={tmp_path}", "--executor=slurm"])
    assert stop.value.code == 2 and "slurm" in capsys.readouterr().err
    for wrong in (["--executor=cloud"], ["--tries=0"]):
        with pytest.raises(SystemExit) as stop:
            run_exp.cli(["--config=dirac-w1-1", f"--out={tmp_path}", *wrong])
        assert stop.value.code == 2


class Job:
    """A job that ended without a result."""

    def __init__(self, folder: Path) -> None:
        self.paths = type("Paths", (), {"result_pickle": folder / "none.pkl", "folder": folder})

    def done(self) -> bool:
        return True


def test_a_run_that_keeps_dying_is_given_up(tmp_path, monkeypatch):
    submitted = []

    class Executor:
        def batch(self):
            return __import__("contextlib").nullcontext()

        def submit(self, task):
            submitted.append(task)
            return Job(tmp_path)

    monkeypatch.setattr(jobs, "make_executor", lambda *_: Executor())
    resources = jobs.Resources(executor="local", tries=3)
    failed = jobs.run_jobs({"a": jobs.Task(print)}, tmp_path, resources, progress=False, poll=0)
    assert len(submitted) == 3 and failed["a"].startswith("died")


def finished(folder: Path, name: str, seed: int, metric: float, **changes) -> None:
    config = {"config": name, "seed": seed, "critic_reg_cf": 1, "exp_path": "here", **changes}
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
    assert second["numbers"]["metric"]["deviation"] is None and "±" not in summary.table([second])
    finished(tmp_path, "cifar10-jsd-1", 3, 4.0, critic_reg_cf=9)
    finished(tmp_path, "cifar10-w1-2", 1, 7.0, exp_path="elsewhere")
    with pytest.raises(ValueError, match="critic_reg_cf"):
        summary.collect(tmp_path)
    with pytest.raises(ValueError, match="no finished run"):
        summary.collect(tmp_path / "nothing")


def test_workers_draw_their_bars_in_lines_of_their_own():
    """As long as two processes are at work, their bars are on two lines."""
    task = "(__import__('time').sleep(0.3), __import__('os').getpid(), __import__('lab.jobs').jobs.bar(2, total=1))[1:]"
    ask = f"(lambda process, bar: (process, -bar.pos, bar.leave, bar.close())[:3])(*{task})"
    seen: set[tuple[int, int, bool]] = set()
    with jobs.pool(2, threads=1) as pool:
        end = time.monotonic() + 300
        while len({process for process, *_ in seen}) < 2 and time.monotonic() < end:
            seen |= {future.result() for future in [pool.submit(eval, ask) for _ in range(4)]}
    assert {(line, leave) for _, line, leave in seen} == {(0, False), (1, False)}
    assert jobs.bar(1, total=1, disable=True).leave
