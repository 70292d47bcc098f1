"""Signals, divergence, starts that fail, compilers that fail, and workers whose parent dies."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import experiments.__main__
import vae
from lab import checkpoint, interruption, options
from lab.device import has_compiler
from tests.faults.conftest import LONG, ROOT, TRAINERS, classifier_trainer, messages


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


ENDLESS = {"vae": ["--epochs", "400"], "train": ["--num_iter", "2000000"], "images": ["--max_iters", "100000"]}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if LONG else [signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(trainer, number, tmp_path, request):
    process = trainer.start(tmp_path, *ENDLESS[request.node.callspec.params["trainer"]])
    wait_for(tmp_path / trainer.place, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, error
    (line,) = messages(error)
    assert "goes on" in line
    assert checkpoint.load(tmp_path / trainer.place) is not None


def test_the_second_request_leaves_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a worker of the tests may not have
    try:
        with pytest.raises(KeyboardInterrupt), interruption.Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            assert interruption.requested
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL] if LONG else [signal.SIGKILL])
def test_workers_end_with_their_parent(number, tmp_path):
    trainer = TRAINERS["train"]
    more = ["--num_layers", "1", "2", "--num_iter", "100000000", "--workers", "2"]
    process = trainer.start(tmp_path, *more)
    wait_for(tmp_path / "from_samples_l1" / "checkpoint.pt", process)
    wait_for(tmp_path / "from_samples_l2" / "checkpoint.pt", process)
    process.send_signal(number)
    process.wait(timeout=60)
    stamps = [path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.pt")]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(3)
        before, stamps = stamps, [path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.pt")]
        if before == stamps:
            return
    raise AssertionError("a worker trains on")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("vae", ["--learning_rate", "1e30"]),
        ("train", ["--lr", "1e30"]),
        ("train", ["--lr", "1e30", "--recipe", "tuned"]),
        ("images", ["--generator_lr", "1e25"]),
        ("classifier", ["--learning_rate", "1e30"]),
    ],
)
def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(name, more, tmp_path, refused):
    trainer = classifier_trainer(tmp_path / "data") if name == "classifier" else TRAINERS[name]
    out = tmp_path / "run"
    for _ in range(2):  # and says the same when it is started again
        line = refused(trainer.main, [*trainer.arguments, *more, "--out", str(out)], status=1)
        assert str(out) in line and "checkpoint" in line
    assert not list(out.rglob("classifier.pt"))
    for path in out.rglob("checkpoint.pt"):
        state = torch.load(path, weights_only=True)
        assert checkpoint.not_finite(state) is None
    assert not list(tmp_path.rglob("result.json"))


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    """Though the loss is: it was taken before the last update."""
    weight = torch.ones(2)
    state = checkpoint.Checkpoint(tmp_path / "checkpoint.pt", weight=weight)
    state.save(step=1)
    weight[1] = math.inf
    with pytest.raises(FloatingPointError, match=r"step 2: weight is not finite; the last good checkpoint is"):
        state.save(step=2)
    assert state.restore() == {"step": 1} and torch.equal(weight, torch.ones(2))


def test_weights_too_large_for_float16_are_not_kept():
    network = torch.nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.fill_(1e6)
    with pytest.raises(FloatingPointError, match="weight"):
        checkpoint.as_float16(network)


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
def test_experiments_refuse_in_one_line(tmp_path, refused, capsys):
    main, command = experiments.__main__.main, ["--dataset", "digits", "--only", "flow", "--out"]
    (tmp_path / "file").touch()
    refused(main, [*command, str(tmp_path / "file" / "runs")])
    refused(main, [*command, str(tmp_path), "--seed", str(10**30)])
    refused(main, [*command, str(tmp_path), "--seed", str(2**63 - 3)])  # the seeds after it are too large
    refused(main, [*command, str(tmp_path), "--device", "meta"])
    refused(main, ["--dataset", "digits", "--only", "nonsense", "--out", str(tmp_path)])


REFUSED = [
    ("vae", ["--latent_size", str(10**12)]),
    ("vae", ["--batch_size", "-1"]),
    ("vae", ["--learning_rate", "nan"]),
    ("vae", ["--seed", "-1"]),
    ("vae", ["--seed", str(10**30)]),
    ("vae", ["--device", "meta"]),
    ("vae", ["--out", "x" * 300]),
    ("vae", ["--dataset", "/nonexistent/own.npz"]),
    ("train", ["--seed", str(2**64)]),
    ("train", ["--lr", "inf"]),
    ("train", ["--num_layers"]),
    ("train", ["--out", "/proc/nowhere"]),
    ("images", ["--max_minutes", "nan"]),
    ("images", ["--critic_lr", "-1"]),
    ("images", ["--generator_betas", "0", "1"]),
    ("images", ["--batch_size", str(10**15)]),
    ("images", ["--out", "x" * 300]),
    ("images", ["--seed", "-3"]),
    ("images", ["--device", "meta"]),
]


@pytest.mark.parametrize(("name", "more"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line(name, more, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = TRAINERS[name]
    refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path / "run"), *more])


def test_numbers_of_more_bits_than_torch_takes_are_refused_before_anything_is_done(capsys):
    with pytest.raises(SystemExit) as stop:
        options.parse(vae.Hyperparameters, "", ["--epochs", str(10**30)])
    assert stop.value.code == 2 and "epochs must be below 2**63" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} run_exp.py --list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("name")


COMPILED = """
import torch
from lab.device import compile_where_possible
x = torch.arange(8.0)
print((compile_where_possible(lambda x: (x.sin() * 2 + x.cos()).sum())(x)).item())
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here")
def test_a_compiler_that_fails_and_a_damaged_cache_do_not_stop_a_run(tmp_path):
    def run(**environment: str) -> tuple[str, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", COMPILED],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if "compiling" in line]

    expected, said = run()
    assert not said
    libraries = list((tmp_path / "cache").rglob("*.so"))
    assert libraries
    for library in libraries:
        library.write_bytes(b"")  # what a kill of the linker leaves
    again, said = run()
    assert "damaged" in said[0]
    if len(said) == 1:
        assert again == expected
    else:  # torch 2.8 remembers, as long as the process lives, what the damaged library said of the processor
        assert "uncompiled" in said[1] and float(again) == pytest.approx(float(expected))
    again, said = run()
    assert again == expected and not said  # it has been mended
    (tmp_path / "file").touch()
    for trouble in ({"CXX": "/bin/false"}, {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "file" / "cache")}):
        trouble = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "fresh"), **trouble}
        again, said = run(**trouble)
        assert float(again) == pytest.approx(float(expected)) and "uncompiled" in said[-1]


@pytest.mark.slow
def test_a_result_that_is_damaged_is_made_anew(tmp_path, capsys):
    command = [*TRAINERS["vae"].arguments, "--out", str(tmp_path)]
    vae.main(command)
    first = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text("{")
    vae.main(command)
    assert json.loads((tmp_path / "result.json").read_text()) == first
