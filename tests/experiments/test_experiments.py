"""The experiments and benchmarks run end to end at toy size, and a finished one is not run again."""

import functools
import json

import matplotlib.pyplot as plt
import pytest
import torch

import benchmarks.flow
import benchmarks.gan
import benchmarks.vae
import data
import gan as graded_gan
import train
import vae as root_vae
from experiments import __main__ as experiments
from experiments import (
    dirac,
    dirac_long,
    flow,
    flow_posterior,
    flow_tuned,
    gan,
    gan_fast,
    gan_small,
    inference_gap,
    posterior_controls,
    speed,
    vae,
    vae_ablation,
    vae_tuned,
)
from experiments.options import Options
from question2 import dirac_plots, image_gan, runs
from report import build


@pytest.mark.slow
def test_every_experiment_runs_and_the_report_takes_it(tmp_path, monkeypatch, capsys):
    for of in (vae_tuned, flow_posterior, posterior_controls):
        small = [(n, 1, c and {**c, "epochs": 2, "latent_size": 3}) for n, _, c in of.SETTINGS]
        monkeypatch.setattr(of, "SETTINGS", small)
    parts = {name: {**part, "epochs": 2, "latent_size": 3} for name, part in vae_ablation.PARTS.items()}
    monkeypatch.setattr(vae_ablation, "PARTS", parts)
    monkeypatch.setattr(vae_ablation, "KNOWN", {"": "assignment"})
    monkeypatch.setattr(vae_ablation, "SEEDS", 1)
    monkeypatch.setattr(inference_gap, "FAMILIES", {"normal": 0, "planar 4": 1, "planar 16": 2})
    monkeypatch.setitem(gan_small.SMALL, "max_iters", 11)
    monkeypatch.setattr(gan_small, "MANAGED", gan_small.MANAGED | {"eval_every": 5, "final_samples": 40})
    for of in (flow, flow_tuned, speed):
        monkeypatch.setattr(of, "DEPTHS", [2])
    monkeypatch.setattr(vae, "BOUND_SAMPLES", [1, 200])
    monkeypatch.setattr(benchmarks.vae, "SAMPLES", 5)
    refresh = functools.partial(graded_gan.refresh_batch_norm, batches=2)
    for module in (graded_gan, image_gan):
        monkeypatch.setattr(module, "refresh_batch_norm", refresh)
    monkeypatch.setitem(gan.SCALES["quick"][0], "max_iters", 11)
    for name, value in (("eval_every", 5), ("eval_samples", 20), ("final_samples", 40)):
        monkeypatch.setitem(gan.SCALES["quick"][1], name, value)
    monkeypatch.setitem(gan_fast.SCALES["quick"][0], "max_iters", 5)
    # Compilation and the arrows of the vector fields have tests of their own.
    monkeypatch.setattr(train, "Hyperparameters", functools.partial(train.Hyperparameters, compile=False, workers=1))
    monkeypatch.setattr(benchmarks.flow.stacked_flows, "compile_flows", lambda function: function)
    monkeypatch.setitem(dirac_long.UPDATES, "quick", 2000)
    monkeypatch.setattr(dirac_plots, "draw_field", lambda *_: None)
    monkeypatch.setattr(dirac_plots, "final_plot", lambda path, *_: plt.imsave(path, [[0]], format=path.suffix[1:]))
    out = tmp_path / "runs"
    command = ["--profile", "quick", "--out", str(out), "--data", str(tmp_path), "--only", *experiments.EXPERIMENTS]
    experiments.main(command)
    sources = build.build(tmp_path / "report.pdf", out)
    assert set(sources.values()) == {"runs"}
    assert {path.stem for path in (out / "results").iterdir()} == set(experiments.EXPERIMENTS) == set(build.SECTIONS)
    result = json.loads((out / "results" / "vae.json").read_text())
    assert result["profile"] == "quick" and result["dataset"] == "digits"
    assert result["latent"]["kl"] == sorted(result["latent"]["kl"], reverse=True)
    assert "out" not in result["options"]

    previous = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    capsys.readouterr()
    experiments.main(command)
    assert capsys.readouterr().out.count("done before") == len(experiments.EXPERIMENTS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == previous


def test_the_study_without_cuda_is_left_to_the_reference_unless_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study = {"gan": experiments.EXPERIMENTS["gan"]}
    monkeypatch.setattr(experiments, "EXPERIMENTS", study)
    experiments.main(["--profile", "full", "--dataset", "digits", "--out", str(tmp_path)])
    assert "--only gan" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_study_whose_data_cannot_be_had_ends_in_one_line(tmp_path, monkeypatch, capsys):
    def unavailable(*_):
        raise data.DataUnavailableError("no file, no network")

    monkeypatch.setitem(experiments.EXPERIMENTS, "gan", unavailable)
    with pytest.raises(SystemExit) as stop:
        experiments.main(["--dataset", "digits", "--device", "cpu", "--only", "gan", "--out", str(tmp_path)])
    assert stop.value.code == 2 and capsys.readouterr().err == "error: no file, no network\n"
    assert not list(tmp_path.rglob("*.json"))


def test_the_full_studys_time_is_that_of_all_its_updates(monkeypatch):
    kinds = {kind: {"median": {"fast": float(ms)}} for ms, kind in enumerate(benchmarks.gan.KINDS, start=1)}
    monkeypatch.setattr(benchmarks.gan, "measure", lambda options: {"kinds": kinds})
    # Two seeds of 100,000 updates: 1 ms with a free critic, twice 2 with spectral normalisation, twice 3 with R1.
    assert gan.minutes_of_training(Options(gan_seeds=2)) == pytest.approx(2 * 11 * 100 / 60)


@pytest.mark.parametrize("changes", [{"seed": 5}, {"gan_seeds": 2}, {"profile": "quick"}])
def test_another_seed_or_number_of_seeds_is_another_study(changes):
    asked = [experiments.asked("gan", Options(device="cpu", **c)) for c in ({}, changes)]
    assert asked[0] != asked[1] and asked[0] == experiments.asked("gan", Options(device="cpu", dataset="digits"))


def test_the_seed_reaches_every_experiment(monkeypatch):
    options = Options(seed=7, gan_seeds=2, dataset="digits", device="cpu")
    assert options.seeds([1, 2, 3]) == [7, 8, 9] and Options().seeds([31415]) == [31415]
    assert {run.hp.seed for run in gan.planned(options, "quick")} == {7, 8}
    seen = []
    monkeypatch.setattr(runs, "run_all", lambda planned: seen.extend(planned) or 1 / 0)
    monkeypatch.setattr(train, "run", lambda asked: seen.extend(asked.seed) or 1 / 0)
    monkeypatch.setattr(root_vae, "run", lambda asked: seen.append(asked.seed) or 1 / 0)
    monkeypatch.setattr(benchmarks.vae, "measure", lambda *arguments: seen.append(arguments[-1]) or 1 / 0)
    everything = (
        *(dirac.run, dirac_long.run, gan_small.run, flow.run, flow_tuned.run, vae.run, vae_tuned.run, vae_ablation.run),
        *(flow_posterior.run, posterior_controls.run, inference_gap.run, speed.vae),
    )
    for experiment in everything:
        seen.clear()
        with pytest.raises(ZeroDivisionError):
            experiment(options)
        first = seen[0]
        assert (first.hp.seed if isinstance(first, runs.Run) else first) == 7


@pytest.mark.slow
def test_benchmark_of_the_gans_counts_and_times_both_paths():
    options = benchmarks.gan.Options(width=2, rounds=2, updates=1, eval_samples=20, device="cpu")
    result = benchmarks.gan.measure(options)
    for row in result["kinds"].values():
        assert {path: len(values) for path, values in row["milliseconds"].items()} == {"plain": 2, "fast": 2}
        assert row["times_faster"] == pytest.approx(row["median"]["plain"] / row["median"]["fast"])
    assert result["full"]["JSD"]["tera_operations"] > 50 * result["kinds"]["JSD"]["tera_operations"]


def test_operations_and_living_bytes_are_counted():
    with benchmarks.gan.Count() as count:
        x = torch.zeros(2, 3, 8, 8)
        y = torch.nn.functional.conv2d(x, torch.zeros(5, 3, 3, 3), padding=1)
        view = y[0]
        del x, y  # the view keeps what it shares
        z = torch.zeros(100)
    assert count.operations == 2 * 2 * 5 * 3 * 9 * 64
    assert count.bytes == 4 * (2 * 5 * 64 + 100) and view.shape == (5, 8, 8) and len(z) == 100
    assert count.most_bytes == 4 * (2 * 3 * 64 + 5 * 3 * 9 + 2 * 5 * 64)


def test_an_unknown_profile_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        experiments.main(["--profile", "slow"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: argument --profile: invalid choice")


@pytest.mark.slow
def test_benchmark_times_all_three_in_every_round(monkeypatch):
    monkeypatch.setattr(benchmarks.vae, "SAMPLES", 5)
    result = benchmarks.vae.measure("digits", "unused", rounds=2, share=0.05)
    for task in ("epoch", "estimate"):
        assert {name: len(values) for name, values in result[task]["seconds"].items()} == {
            "textbook": 2,
            "ours": 2,
            "floor": 2,
        }
        median = result[task]["median"]
        assert result[task]["times_the_floor"] == pytest.approx(median["ours"] / median["floor"])
