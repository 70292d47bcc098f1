"""The command line of question 2: names, overrides, folders, errors."""

import json

import pytest
import torch

import run_exp
from lab import checkpoint
from question2.configurations import CONFIGURATIONS, Hyperparameters, matching, table

SHORT = ["--max_iters", "40", "--log_every", "20", "--games", "2", "--jobs", "1"]


def refused(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as stop:
        run_exp.main(list(argv))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_configurations_are_those_of_the_contract():
    assert len(matching("dirac-*")) == 20 and len(matching("cifar10-*")) == 5
    default = Hyperparameters()
    values = (64, 31415, 100, 128, 128, 0.998, 2e-4, 4e-4, 0.0, 0.99, 0.0, 1e-6, "JSD", None, 0.1, 2, 100_000)
    names = "batch_size seed dimz generator_dimh critic_dimh alpha_ema generator_lr critic_lr beta1 beta2 generator_wd"
    names += " critic_wd loss_type reg_type reg_cf critic_inner_iters max_iters"
    assert tuple(getattr(default, name) for name in names.split()) == values
    penalties = [(None, None), ("R1", 0.01), ("R1", 0.1), ("GP", 0.01), ("GP", 0.1)]
    for loss in ("jsd", "w1"):
        for i in range(1, 11):
            c = CONFIGURATIONS[f"dirac-{loss}-{i}"]
            assert (c.loss_type, c.alpha_ema) == (loss.upper(), None if i <= 5 else 0.998)
            assert (c.reg_type, c.reg_cf if c.reg_type else None) == penalties[(i - 1) % 5]
            assert (c.generator_lr, c.critic_lr, c.critic_wd, c.critic_inner_iters) == (0.1, 0.1, 0, 1)
            assert (c.max_iters, c.dirac_target) == (5000, 0)
    for name, sn, reg in [
        ("jsd-1", 0, None),
        ("jsd-2", 1, None),
        ("w1-2", 1, None),
        ("jsd-3", 0, "R1"),
        ("w1-3", 0, "R1"),
    ]:
        c = CONFIGURATIONS[f"cifar10-{name}"]
        assert (c.spectral_norm, c.reg_type, c.loss_type) == (bool(sn), reg, name.split("-")[0].upper())
        assert reg is None or c.reg_cf == 1.0


def test_a_dirac_run_leaves_all_it_should(tmp_path, capsys):
    run_exp.main(["--config", "dirac-jsd-8", "--seed", "20012345", "--out", str(tmp_path), "--animate", *SHORT])
    assert "dirac-jsd-8-20012345" in capsys.readouterr().out
    folder = tmp_path / "dirac-jsd-8-20012345"
    names = {path.name.split(".")[0] if "events" in path.name else path.name for path in folder.iterdir()}
    wanted = {"config.json", "metrics.jsonl", "log.txt", "events", "checkpoint.pt", "trajectory.png", "result.json"}
    assert wanted <= names and names & {"trajectory.gif", "trajectory.mp4"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["seed"], config["reg_cf"], config["task"], config["max_iters"]) == (20012345, 0.1, "DIRAC", 40)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [0, 20, 40]
    assert set(lines[0]) == {"step", "theta", "psi_0", "psi_1", "theta_averaged"}


@pytest.mark.parametrize("changes", [["--generator_lr=2.1", "--critic_lr=2.1", "--max_iters=300"], ["--max_iters=3"]])
def test_games_that_diverge_or_are_short_are_reported_too(tmp_path, capsys, changes):
    command = ["--config", "dirac-w1-[16]", "--out", str(tmp_path), *SHORT, *changes, "--log_every=1"]
    run_exp.main(command)
    run_exp.main(command)  # what is held can be read again
    assert "dirac-w1-1-31415" in capsys.readouterr().out
    for name in ("dirac-w1-1-31415", "dirac-w1-6-31415"):
        result = json.loads((tmp_path / name / "result.json").read_text())
        assert (result["measured"]["verdict"] == "diverges") == (len(changes) > 1)
        assert all(json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open())


def test_a_seed_typed_twice_is_one_run():
    runs = run_exp.plan(["--config", "dirac-jsd-1", "--seed", "3", "1", "3"])
    assert [run.hp.seed for run in runs] == [3, 1]


def test_a_game_leaves_the_threads_of_its_process_alone(tmp_path, monkeypatch):
    """Else images that are trained after it in the same process get one core."""
    changes = []
    monkeypatch.setattr(torch, "set_num_threads", changes.append)
    run_exp.main(["--config", "dirac-w1-2", "--out", str(tmp_path), *SHORT])
    assert not changes


def test_the_same_seed_gives_the_same_numbers_alone_and_among_others(tmp_path):
    out = [tmp_path / name for name in ("alone", "again", "all")]
    for folder, config in zip(out, ("dirac-w1-2", "dirac-w1-2", "dirac-w1-[27]"), strict=True):
        run_exp.main(["--config", config, "--out", str(folder), *SHORT])
    states = [checkpoint.load(folder / "dirac-w1-2-31415" / "checkpoint.pt") for folder in out]
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=0, atol=0)
    assert "averaged" not in states[2]
    assert "averaged" in checkpoint.load(out[2] / "dirac-w1-7-31415" / "checkpoint.pt")
    run_exp.main(["--config", "dirac-w1-2", "--out", str(tmp_path / "other"), "--seed", "7", *SHORT])
    other = checkpoint.load(tmp_path / "other" / "dirac-w1-2-7" / "checkpoint.pt")
    assert not torch.equal(other["theta"], states[0]["theta"])


def test_games_over_processes_are_those_of_one(tmp_path):
    for jobs in ("1", "2"):
        run_exp.main(["--config", "dirac-w1-[13]", "--out", str(tmp_path / jobs), *SHORT, "--jobs", jobs])
    for name in ("dirac-w1-1-31415", "dirac-w1-3-31415"):
        states = [checkpoint.load(tmp_path / jobs / name / "checkpoint.pt") for jobs in ("1", "2")]
        torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert (tmp_path / "2" / "dirac-31415.png").exists()


def test_list_names_every_configuration(capsys):
    run_exp.main(["--list"])
    printed = capsys.readouterr().out
    assert printed.strip() == table() and all(name in printed for name in CONFIGURATIONS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "dirac-kl-1"], "no configuration"),
        (["--config", "nothing-*"], "no configuration"),
        ([], "--config"),
        (["--config", "dirac-w1-1", "--learning_rat", "1"], "unrecognized"),
        (["--config", "dirac-w1-1", "--reg_cf", "0"], "reg_cf"),
        (["--config", "dirac-w1-1", "--alpha_ema", "1.5"], "alpha_ema"),
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
    run_exp.main(command)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    error = refused(capsys, *command, "--max_iters", "50")
    assert "max_iters=40" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == held
