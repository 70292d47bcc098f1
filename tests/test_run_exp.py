"""The command line of question 2: names, overrides, folders, errors."""

import dataclasses
import json
import re

import pytest
import torch

import run_exp
from lab import checkpoint
from question2.configurations import CONFIGURATIONS, Hyperparameters, Management, matching, plan, table

SHORT = ["--max_iters", "40", "--log_every", "20", "--games", "2", "--workers", "1"]


def same(a, b) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def refused(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as stop:
        run_exp.cli(list(argv))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_configurations_are_those_of_the_contract():
    assert len(matching("dirac-*")) == 20 and len(matching("cifar10-*")) == 5
    assert run_exp.CONFIGURATIONS is CONFIGURATIONS
    default = Hyperparameters()
    assert dataclasses.asdict(default) == {
        "task": "CIFAR10",
        "batch_size": 64,
        "seed": 31415,
        "dirac_target": 0.0,
        "games": 8,
        "generator_dimz": 100,
        "generator_dimh": 128,
        "generator_alpha_ema": 0.998,
        "critic_dimh": 128,
        "critic_use_sn": False,
        "optimizer": "Adam",
        "generator_lr": 2e-4,
        "generator_betas": (0.0, 0.99),
        "generator_wd": 0.0,
        "critic_lr": 4e-4,
        "critic_betas": (0.0, 0.99),
        "critic_wd": 1e-6,
        "loss_type": "JSD",
        "critic_reg_type": None,
        "critic_reg_cf": 0.1,
        "critic_inner_iters": 2,
        "max_iters": 100_000,
    }
    assert (Management().log_every, Management().eval_every) == (500, 2000)
    penalties = [(None, None), ("R1", 0.01), ("R1", 0.1), ("GP", 0.01), ("GP", 0.1)]
    for loss in ("jsd", "w1"):
        for i in range(1, 11):
            c = CONFIGURATIONS[f"dirac-{loss}-{i}"]
            assert (c.loss_type, c.generator_alpha_ema) == (loss.upper(), None if i <= 5 else 0.998)
            assert (c.critic_reg_type, c.critic_reg_cf if c.critic_reg_type else None) == penalties[(i - 1) % 5]
            assert (c.generator_lr, c.critic_lr, c.critic_wd, c.critic_inner_iters) == (0.1, 0.1, 0, 1)
            assert (c.max_iters, c.dirac_target, c.optimizer, c.task) == (5000, 0, "SGD", "dirac")
    for name, sn, reg in [
        ("jsd-1", 0, None),
        ("jsd-2", 1, None),
        ("w1-2", 1, None),
        ("jsd-3", 0, "R1"),
        ("w1-3", 0, "R1"),
    ]:
        c = CONFIGURATIONS[f"cifar10-{name}"]
        assert (c.critic_use_sn, c.critic_reg_type, c.loss_type) == (bool(sn), reg, name.split("-")[0].upper())
        assert reg is None or c.critic_reg_cf == 1.0


@pytest.mark.parametrize("viz", [True, False])
def test_a_notebook_runs_one_configuration(tmp_path, viz):
    """The assignment's own call: management and hyper-parameters, in its names."""
    management = Management(data_path=str(tmp_path), exp_path=str(tmp_path), exp_name="", log_every=20, viz=viz)
    hyperparameters = dataclasses.replace(CONFIGURATIONS["dirac-w1-2"], seed=20012345, max_iters=40, games=2)
    result = run_exp.main(management, hyperparameters)
    folder = tmp_path / "dirac-20012345"
    assert result == json.loads((folder / "result.json").read_text())
    assert (folder / "trajectory.png").exists() == viz
    named = dataclasses.replace(management, exp_name="mine")
    run_exp.main(named, dataclasses.replace(hyperparameters, optimizer="Adam"))
    assert (tmp_path / "mine-20012345" / "config.json").exists()
    whole = dataclasses.replace(CONFIGURATIONS["dirac-w1-1"], seed=3)
    assert run_exp.name_of(whole) == "dirac-w1-1"


def test_values_that_are_typed_override_every_configuration_and_others_stay(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run_exp, "run_all", lambda runs: asked.extend(runs) or {run.label: None for run in runs})
    command = ["--config", "dirac-*-[13]", "--critic_reg_cf", "0.1", "--generator-betas", "0", "0.5"]
    run_exp.cli([*command, "--seed", "3", "1", "3", "--out", str(tmp_path)])
    assert {run.name: run.hp.critic_reg_type for run in asked} == {
        "dirac-jsd-1": None,
        "dirac-jsd-3": "R1",
        "dirac-w1-1": None,
        "dirac-w1-3": "R1",
    }
    assert {(run.hp.critic_reg_cf, run.hp.max_iters, run.hp.generator_betas) for run in asked} == {
        (0.1, 5000, (0.0, 0.5))
    }
    assert [run.hp.seed for run in asked] == [3] * 4 + [1] * 4  # a seed typed twice is one run
    (typed,) = plan("dirac-w1-3", [5], critic_reg_cf=0.7)
    assert (typed.label, typed.hp.critic_reg_cf, typed.hp.critic_reg_type) == ("dirac-w1-3-5", 0.7, "R1")
    with pytest.raises(TypeError):
        plan("dirac-w1-3", reg_cf=0.7)
    with pytest.raises(ValueError, match="exp_name"):
        plan("dirac-*", management=Management(exp_name="one"))


def test_help_shows_each_field_by_one_spelling_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        run_exp.cli(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    rate, updates = (re.search(rf"--{name} .*\(default: (\S+)\)", shown)[1] for name in ("critic_lr", "max_iters"))
    assert (rate, updates) == ("0.0004", "100000") and "--critic-lr" not in shown
    assert shown.index("--config") < shown.index("--seed") < shown.index("--out") < shown.index("--max_iters")
    assert "{JSD,W1}" in shown and "What a run's numbers depend on" in shown and "examples:" in shown


@pytest.mark.slow
def test_a_dirac_run_leaves_all_it_should(tmp_path, capsys):
    run_exp.cli(["--config", "dirac-jsd-8", "--seed", "20012345", "--out", str(tmp_path), "--animate", *SHORT])
    assert "dirac-jsd-8-20012345" in capsys.readouterr().out
    folder = tmp_path / "dirac-jsd-8-20012345"
    names = {path.name.split(".")[0] if "events" in path.name else path.name for path in folder.iterdir()}
    wanted = {"config.json", "metrics.jsonl", "events", "checkpoint.pt", "trajectory.png", "result.json"}
    assert wanted <= names and names & {"trajectory.gif", "trajectory.mp4"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["seed"], config["critic_reg_cf"], config["task"], config["max_iters"]) == (
        20012345,
        0.1,
        "dirac",
        40,
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [0, 20, 40]
    assert set(lines[0]) == {"step", "theta", "psi_0", "psi_1", "theta_averaged"}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [["--generator_lr=2.1", "--critic_lr=2.1", "--max_iters=300"], ["--max_iters=3"]])
def test_games_that_diverge_or_are_short_are_reported_too(tmp_path, capsys, changes):
    command = ["--config", "dirac-w1-[16]", "--out", str(tmp_path), *SHORT, *changes, "--log_every=1"]
    run_exp.cli(command)
    run_exp.cli(command)  # what was played is loaded
    assert "dirac-w1-1-31415" in capsys.readouterr().out
    for name in ("dirac-w1-1-31415", "dirac-w1-6-31415"):
        result = json.loads((tmp_path / name / "result.json").read_text())
        assert (result["measured"]["verdict"] == "diverges") == (len(changes) > 1)
        assert all(json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_alone_and_among_others(tmp_path):
    out = [tmp_path / name for name in ("alone", "again", "all")]
    for folder, config in zip(out, ("dirac-w1-2", "dirac-w1-2", "dirac-w1-[237]"), strict=True):
        run_exp.cli(["--config", config, "--out", str(folder), *SHORT, "--workers", "2"])
    assert (out[2] / "dirac-31415.png").exists()
    states = [checkpoint.load(folder / "dirac-w1-2-31415" / "checkpoint.pt") for folder in out]
    for state in states[1:]:
        assert state.keys() == states[0].keys() and all(same(state[name], states[0][name]) for name in state)
    assert "averaged" not in states[2]
    assert "averaged" in checkpoint.load(out[2] / "dirac-w1-7-31415" / "checkpoint.pt")
    run_exp.cli(["--config", "dirac-w1-2", "--out", str(tmp_path / "other"), "--seed", "7", *SHORT])
    other = checkpoint.load(tmp_path / "other" / "dirac-w1-2-7" / "checkpoint.pt")
    assert not torch.equal(other["theta"], states[0]["theta"])


@pytest.mark.slow
def test_a_finished_game_is_neither_played_nor_drawn_again(tmp_path):
    command = ["--config", "dirac-w1-[12]", "--out", str(tmp_path), *SHORT]
    run_exp.cli(command)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*") if path.name != "config.json"}
    run_exp.cli(command)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.slow
def test_a_local_run_that_fails_stops_no_other(tmp_path, capsys):
    run_exp.cli(["--config", "dirac-w1-1", "--seed", "1", "--out", str(tmp_path), *SHORT, "--games", "3"])
    with pytest.raises(SystemExit) as stop:
        run_exp.cli(
            ["--config", "dirac-w1-1", "--seed", "1", "2", "--out", str(tmp_path), *SHORT, "--executor", "local"]
        )
    assert stop.value.code == 1 and "dirac-w1-1-1 failed: " in capsys.readouterr().err
    assert (tmp_path / "dirac-w1-1-2" / "result.json").exists()


def test_list_names_every_configuration(capsys):
    run_exp.cli(["--list"])
    printed = capsys.readouterr().out
    assert printed.strip() == table() and all(name in printed for name in CONFIGURATIONS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "dirac-kl-1"], "no configuration"),
        (["--config", "nothing-*"], "no configuration"),
        ([], "--config"),
        (["--config", "dirac-w1-1", "--learning_rat", "1"], "unrecognized"),
        (["--config", "dirac-w1-1", "--critic_reg_cf", "0"], "critic_reg_cf"),
        (["--config", "dirac-w1-1", "--dirac_target=-1e39"], "dirac_target"),
        (["--config", "dirac-w1-1", "--generator_wd", "1e39"], "generator_wd"),
        (["--config", "dirac-w1-1", "--critic_lr", "1e39"], "critic_lr"),
        (["--config", "dirac-w1-1", "--generator_alpha_ema", "1.5"], "generator_alpha_ema"),
        (["--config", "dirac-w1-1", "--critic_inner_iters", "0"], "critic_inner_iters"),
        (["--config", "dirac-w1-1", "--loss_type", "KL"], "loss_type"),
        (["--config", "dirac-w1-1", "--max_iters", "many"], "max_iters"),
        (["--config", "cifar10-jsd-1", "--dataset", "no-such-folder"], "data set"),
        (["--config", "cifar10-jsd-1", "--device", "nonsense"], "device"),
        (["--config", "cifar10-jsd-1", "--dataset", "cifar10", "--data", "/nonexistent"], "cifar10.npz"),
    ],
)
def test_bad_input_is_refused_in_one_line(capsys, tmp_path, argv, message):
    error = refused(capsys, *argv, "--out", str(tmp_path / "out"))
    assert message in error and not (tmp_path / "out").exists()


def test_anothers_folder_is_refused_and_left_as_it_was(capsys, tmp_path):
    command = ["--config", "dirac-w1-1", "--out", str(tmp_path), *SHORT]
    run_exp.cli(command)
    previous = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    error = refused(capsys, *command, "--games", "3")
    assert "games=" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == previous
