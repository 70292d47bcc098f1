"""Signals, workers, divergence, starts that fail, environments and folders of users."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch

import experiments.__main__
import vae
from lab import checkpoint, interruption
from lab.device import has_compiler
from tests.faults.conftest import LONG, ROOT, TRAINERS, Trainer, classifier_trainer, messages, newest, outcome

PATIENCE = 300  # seconds, on a machine that does much else


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Until something holds, while a process is at work."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def group_is_at_work(process: subprocess.Popen) -> bool:
    """Whether any process lives in the group that a process has begun."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        return True
    return False


def ends(process: subprocess.Popen) -> str:
    """Wait until a process and all that it has started are gone; what it said on standard error."""
    _, error = process.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while group_is_at_work(process):
        assert time.monotonic() < deadline, "something of ours runs on"
        time.sleep(0.05)
    return error


ENDLESS = {"vae": ["--epochs", "400"], "train": ["--num_iter", "2000000"], "images": ["--max_iters", "100000"]}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if LONG else [signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_resume(trainer, number, tmp_path, request):
    process = trainer.start(tmp_path, *ENDLESS[request.node.callspec.params["trainer"]])
    wait_for((tmp_path / trainer.place).exists, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, error
    line = messages(error)[-1]
    assert "run the same command to resume" in line and "Traceback" not in error
    assert checkpoint.load(tmp_path / trainer.place) is not None


def test_a_second_interrupt_stops_at_once_and_a_second_sigterm_changes_nothing():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a worker of the tests may not have
    try:
        with pytest.raises(KeyboardInterrupt), interruption.Interruption() as stop:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
                time.sleep(0.1)
                assert stop.number == signal.SIGTERM
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)


SWALLOWED = """
from lab import interruption
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:  # as libraries do while they are imported
    pass
with interruption.one_line_errors():
    print("at work")
"""


@pytest.mark.parametrize(
    "code", [SWALLOWED, "from lab import interruption\nimport os\nos.kill(os.getpid(), 2)\nimport torch"]
)
def test_an_interrupt_during_imports_is_one_line(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (130, -signal.SIGINT) and not done.stdout
    assert messages(done.stderr) == [interruption.STOPPED]


FLOWS = ["--num_layers", "1", "2", "3", "--num_iter", "2000", "--workers", "2"]
GAMES = "--config=dirac-jsd-[1-4] --games=2 --workers=2 --viz=no --max_iters=2000000"
LOCAL = "--config=dirac-w1-2 --seed 1 2 3 --games=1 --viz=no --max_iters=2000000 --executor=local --parallel=2"


@pytest.fixture(scope="module")
def whole_flows(tmp_path_factory):
    """What the flows leave when nothing stops them."""
    out = tmp_path_factory.mktemp("flows") / "whole"
    TRAINERS["train"].main([*TRAINERS["train"].arguments, *FLOWS, "--workers", "1", "--out", str(out)])
    return outcome(out)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGKILL"] if LONG else ["Ctrl-C", "SIGKILL"])
def test_a_stop_reaches_all_workers_and_begins_nothing(how, tmp_path, whole_flows):
    trainer = TRAINERS["train"]
    process = trainer.start(tmp_path / "stopped", *FLOWS, start_new_session=True)
    wait_for(lambda: newest(tmp_path / "stopped"), process)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, how))
    error = ends(process)
    assert process.returncode == {"Ctrl-C": 130, "SIGTERM": 143, "SIGKILL": -9}[how], error
    assert "Traceback" not in error and ("resume" in messages(error)[-1]) == (how != "SIGKILL"), error
    assert len(list((tmp_path / "stopped").glob("from_*"))) <= 2  # a worker may still be starting when the stop comes
    trainer.main([*trainer.arguments, *FLOWS, "--workers", "1", "--out", str(tmp_path / "stopped")])
    assert outcome(tmp_path / "stopped") == whole_flows


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if LONG else [signal.SIGTERM])
@pytest.mark.parametrize("arguments", [GAMES, LOCAL], ids=["games", "local"])
def test_games_and_local_runs_that_are_asked_to_stop(arguments, number, tmp_path):
    game = Trainer("run_exp.py", print, arguments)
    process = game.start(tmp_path, start_new_session=True)
    wait_for(lambda: list(tmp_path.glob("*/config.json")), process)
    os.killpg(process.pid, number)  # as "timeout" does, and a terminal's Ctrl-C
    error = ends(process)
    assert process.returncode == 128 + number and "Traceback" not in error, error
    assert "resume" in messages(error)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("vae", ["--learning_rate", "1e19"]),
        ("train", ["--lr", "1e19"]),
        ("train", ["--lr", "1e19", "--recipe", "tuned"]),
        ("images", ["--generator_lr", "1e19"]),
        ("classifier", ["--learning_rate", "1e19"]),
    ],
)
def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(name, more, tmp_path, refused):
    trainer = classifier_trainer(tmp_path / "data") if name == "classifier" else TRAINERS[name]
    out = tmp_path / "run"
    for _ in range(2):  # and says the same when it is started again
        line = refused(trainer.main, [*trainer.arguments, *more, "--out", str(out)], status=1)
        assert str(out) in line and "checkpoint" in line
    assert not list(out.rglob("classifier.pt")) and not list(tmp_path.rglob("result.json"))
    for path in out.rglob("checkpoint.pt"):
        assert checkpoint.not_finite(torch.load(path, weights_only=True)) is None


@pytest.mark.slow
def test_a_start_that_fails_claims_nothing_and_another_device_is_the_same_run(tmp_path, refused, capsys, monkeypatch):
    trainer = TRAINERS["vae"]
    command = [*trainer.arguments, "--out", str(tmp_path)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if not torch.cuda.device_count():
        refused(trainer.main, [*command, "--device", "cuda"])
        assert not list(tmp_path.iterdir())
    trainer.main(command)
    printed = capsys.readouterr().out
    for more in (["--device", "cpu"], ["--compile", "no"]):
        trainer.main([*command, *more])
        assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_experiments_refuse_in_one_line(tmp_path, refused):
    main, command = experiments.__main__.main, ["--dataset", "digits", "--only", "flow", "--out"]
    (tmp_path / "file").touch()
    refused(main, [*command, str(tmp_path / "file" / "runs")])
    for more in (["--seed", str(10**30)], ["--seed", str(2**63 - 3)], ["--device", "meta"], ["--only", "nonsense"]):
        refused(main, [*command, str(tmp_path), *more])


REFUSED = [
    ("vae", ["--latent_size", str(10**12)]),
    ("vae", ["--learning_rate", "nan"]),
    ("vae", ["--seed", str(10**30)]),
    ("vae", ["--out", "x" * 300]),
    ("vae", ["--dataset", "/nonexistent/own.npz"]),
    ("train", ["--lr", "inf"]),
    ("train", ["--num_layers"]),
    ("images", ["--max_minutes", "nan"]),
    ("images", ["--generator_betas", "0", "1"]),
    ("images", ["--batch_size", str(10**15)]),
]


@pytest.mark.parametrize(("name", "more"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line(name, more, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = TRAINERS[name]
    refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path / "run"), *more])


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} run_exp.py --list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("name")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRAINERS, "dirac"])
def test_programs_give_no_warnings_and_what_a_notebook_leaves_in_the_environment_stops_nothing(name, tmp_path):
    """A back end of figures that is not installed, CUDA's compiler without a GPU, a cache that cannot be written."""
    (tmp_path / "file").touch()
    environment = {
        **os.environ,
        "MPLBACKEND": "module://not_installed",
        "CUDA_HOME": str(tmp_path / "cuda"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "file" / "cache"),
    }
    trainer = TRAINERS.get(name, Trainer("run_exp.py", print, "--config dirac-w1-[12] --max_iters 50 --workers 2"))
    more = ["--scores", "classifier", "--eval_samples", "20", "--final_samples", "20"] if name == "images" else []
    more += ["--compile", "yes"] if name in ("vae", "train") and has_compiler() else []
    process = trainer.start(tmp_path / "run", *more, env=environment)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert [line for line in messages(error) if "uncompiled" not in line and "is ignored" not in line] == []
    assert list((tmp_path / "run").rglob("*.png")) or name == "vae"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dirac", *(TRAINERS if LONG else ["train"])])
def test_a_folder_that_is_deleted_during_a_run_is_one_line_and_the_same_command_starts_again(name, tmp_path):
    more = {**ENDLESS, "train": ["--num_layers", "3", "1", "--num_iter", "20000"], "dirac": ["--max_iters=8000"]}
    trainer = TRAINERS.get(name, Trainer("run_exp.py", print, GAMES))
    out = tmp_path / "run"
    process = trainer.start(out, *more[name])
    pattern, files = ("config.json", 4) if name == "dirac" else ("checkpoint.pt", 1)  # all four games have begun
    wait_for(lambda: len(list(out.rglob(pattern))) >= files, process)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    _, error = process.communicate(timeout=PATIENCE)
    (line,) = messages(error)
    assert process.returncode == 2 and line.startswith("error: ") and "No such file" in line
    assert not any(path.is_file() for path in out.rglob("*") if path.name[0] != ".")


@pytest.mark.slow
def test_a_result_that_is_damaged_is_recomputed(tmp_path):
    command = [*TRAINERS["vae"].arguments, "--out", str(tmp_path)]
    vae.main(command)
    first = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text("{")
    vae.main(command)
    assert json.loads((tmp_path / "result.json").read_text()) == first
