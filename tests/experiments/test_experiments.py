"""The experiments run end to end at toy size, find one another, and a finished one is not run again."""

import functools
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
import torch

import benchmarks.flow
import benchmarks.vae
import data
import experiments
import gan as graded_gan
import train
import vae as root_vae
from experiments import (
    __main__ as command_line,
)
from experiments import (
    dirac,
    dirac_long,
    flow,
    flow_posterior,
    flow_speed,
    flow_tuned,
    gan,
    gan_small,
    inference_gap,
    posterior_controls,
    vae,
    vae_ablation,
    vae_tuned,
)
from experiments.options import Options
from question2 import dirac_plots, games, images
from question2.configurations import Run
from report import build

PACE = {"log_every": 2, "eval_every": 2, "eval_samples": 20, "final_samples": 40}
SMALL = {
    (flow, "DEPTHS"): [2],
    (flow_tuned, "DEPTHS"): [2],
    (flow_speed, "DEPTHS"): [2],
    (flow_posterior, "DEPTHS"): [4],
    (vae, "BOUND_SAMPLES"): [1, 200],
    (vae, "QUICK_EPOCHS"): 1,
    (vae, "SEEDS"): {"quick": 1},
    (inference_gap, "FAMILIES"): {"normal": 0, "planar 4": 1, "planar 16": 2},
    (gan_small, "SMALL"): gan_small.SMALL | {"max_iters": 4},
    (gan_small, "MANAGED"): gan_small.MANAGED | PACE,
    (gan, "SCALES"): {"quick": (gan.SCALES["quick"][0] | {"max_iters": 4}, gan.SCALES["quick"][1] | PACE)},
    (benchmarks.vae, "SAMPLES"): 5,
    (benchmarks.vae, "compile_where_possible"): lambda function: function,
    (benchmarks.flow, "ITERATIONS"): 5,
    # Compilation, worker processes and the arrows of the vector fields have tests of their own.
    (benchmarks.flow.stacked_flows, "compile_flows"): lambda function: function,
    (train, "Hyperparameters"): functools.partial(train.Hyperparameters, compile=False, workers=1),
    (games, "usable_cores"): lambda: 1,
    (dirac_plots, "draw_field"): lambda *_: None,
    (dirac_plots, "final_plot"): lambda path, *_: plt.imsave(path, [[0]], format=path.suffix[1:]),
}


@pytest.fixture
def small(monkeypatch):
    """Every experiment at toy size."""
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    name, train_images, test_images = data.load_images("digits", "")
    monkeypatch.setattr(data, "load_images", lambda *_: (name, train_images[:200], test_images[:40]))
    changes = {"latent_size": 3}
    for module in (vae_tuned, posterior_controls):
        monkeypatch.setattr(module, "SETTINGS", {name: {**each, **changes} for name, each in module.SETTINGS.items()})
    monkeypatch.setattr(vae_ablation, "PARTS", {name: {**part, **changes} for name, part in vae_ablation.PARTS.items()})
    for module in (flow_posterior, posterior_controls, vae_tuned, vae_ablation):
        monkeypatch.setattr(module, "SEEDS", 1)
    for module in (graded_gan, images):
        monkeypatch.setattr(module, "refresh_batch_norm", functools.partial(graded_gan.refresh_batch_norm, batches=2))
    monkeypatch.setitem(dirac_long.UPDATES, "quick", 2000)


@pytest.mark.slow
def test_every_experiment_runs_and_the_report_takes_it(small, tmp_path):
    out = tmp_path / "runs"
    known = set(command_line.listed())
    command_line.main(["--profile", "quick", "--out", str(out), "--data", str(tmp_path), "--only", "*"])
    assert {path.stem for path in (out / "results").iterdir()} == known
    build.build(tmp_path / "report.pdf", "yours", out)
    assert {section["name"] for section in build.compared(out)["sections"]} == known
    result = json.loads((out / "results" / "vae.json").read_text())
    assert result["profile"] == "quick" and result["dataset"] == "digits"
    assert result["latent"]["kl"] == sorted(result["latent"]["kl"], reverse=True)
    assert "out" not in result["options"]
    posterior = json.loads((out / "results" / "flow_posterior.json").read_text())["settings"]
    assert posterior["assignment"]["runs"] == result["runs"][:1]


FIRST = """
MINUTES = {"full": 1}
USES = ("dataset",)
def run(options):
    return {"value": 1, "dataset": options.images}
"""
SECOND = """
MINUTES = {"full": 1}
NEEDS = ("trial_first",)
def run(options):
    return {"value": options.result("trial_first")["value"] + 1}
"""
BROKEN = "MINUTES = {}\n1 / 0"


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """A folder of experiments beside ours; none of ours is run."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    for name, source in (("first", FIRST), ("second", SECOND), ("broken", BROKEN), ("no_experiment", "1 / 0")):
        (folder / f"trial_{name}.py").write_text(source)
    monkeypatch.setattr(experiments, "__path__", [str(folder)])
    monkeypatch.setattr(data, "load", lambda name, *_: ("digits" if name == "auto" else name, None))
    yield folder
    for name in ("first", "second"):
        sys.modules.pop(f"experiments.trial_{name}", None)


def test_a_file_in_the_folder_is_an_experiment_and_what_it_needs_runs_before(trial, tmp_path, capsys):
    assert list(command_line.listed()) == ["trial_broken", "trial_first", "trial_second"]
    out = tmp_path / "out"
    for expected in (["[1 of 2] trial_first", "[2 of 2] trial_second"], ["trial_second: done before"]):
        command_line.main(["--only", "*second", "--out", str(out)])
        printed = capsys.readouterr().out
        assert all(text in printed for text in expected) and printed.count(" of 2]") == printed.count("written to")
    result = json.loads((out / "results" / "trial_second.json").read_text())
    assert result["value"] == 2 and result["profile"] == "assignment"
    command_line.main(["--only", "trial_first", "--out", str(out), "--dataset", "digits"])  # what auto was
    assert "trial_first: done before" in capsys.readouterr().out
    command_line.main(["--only", "trial_first", "--out", str(out), "--dataset", "other"])
    assert json.loads((out / "results" / "trial_first.json").read_text())["asked"]["dataset"] == "other"


def test_an_experiment_without_a_data_set_loads_none(trial, tmp_path, monkeypatch):
    (trial / "trial_second.py").write_text("MINUTES = {'full': 1}\ndef run(options):\n    return {}\n")
    monkeypatch.setattr(data, "load", lambda *_: 1 / 0)
    command_line.main(["--only", "trial_second", "--out", str(tmp_path / "out")])
    with pytest.raises(ZeroDivisionError):
        command_line.main(["--only", "trial_first", "--out", str(tmp_path / "out")])


def test_a_mistyped_name_is_refused_with_the_list(trial, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--only", "trial_first", "frist", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == "error: no experiment frist: there are trial_broken, trial_first, trial_second\n"


def test_the_list_of_experiments_imports_none_of_them():
    program = "import sys; from experiments.__main__ import listed; print(len(listed()), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, *modules = done.stdout.split()
    assert int(count) > 10 and "experiments.vae" not in modules
    assert not {"matplotlib", "scipy", "question1", "question2", "train"} & set(modules)


def test_the_study_without_cuda_is_left_to_the_reference_unless_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    known = command_line.listed()
    assert "gan" not in command_line.chosen(Options(profile="full"), known)
    assert "--only gan" in capsys.readouterr().out
    assert command_line.chosen(Options(profile="full", only=["ga*n"]), known) == ["gan"]


@pytest.mark.parametrize("changes", [{"seed": 5}, {"gan_seeds": 2}, {"profile": "quick"}])
def test_another_seed_number_of_seeds_or_profile_is_another_result(changes):
    study = command_line.listed()["gan"]
    asked = [study.asked(Options(device="cpu", **more)) for more in ({}, changes)]
    assert asked[0] != asked[1] and asked[0] == study.asked(Options(device="cpu", dataset="digits"))


def test_the_seed_reaches_every_experiment(monkeypatch):
    options = Options(seed=7, gan_seeds=2, dataset="digits", device="cpu")
    assert options.seeds([1, 2, 3]) == [7, 8, 9] and Options().seeds([31415]) == [31415]
    assert {run.hp.seed for run in gan.planned(options, "reduced")} == {7, 8}
    seen = []
    monkeypatch.setattr(Options, "result", lambda self, name: build.result(name))
    monkeypatch.setattr(games, "run_games", lambda planned: seen.extend(planned) or 1 / 0)
    monkeypatch.setattr(images, "run_all", lambda planned: seen.extend(planned) or 1 / 0)
    monkeypatch.setattr(train, "run", lambda asked: seen.extend(asked.seed) or 1 / 0)
    monkeypatch.setattr(root_vae, "run", lambda asked: seen.append(asked.seed) or 1 / 0)
    trained = (vae, vae_tuned, vae_ablation, flow_posterior, posterior_controls, inference_gap, flow, flow_tuned)
    for experiment in (*trained, dirac, dirac_long, gan, gan_small):
        seen.clear()
        with pytest.raises(ZeroDivisionError):
            experiment.run(options)
        first = seen[0]
        assert (first.hp.seed if isinstance(first, Run) else first) == 7
