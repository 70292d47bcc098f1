"""The experiments and benchmarks run end to end at toy size, and a finished one is not run again."""

import json

import pytest
import torch

import benchmarks.gan
import benchmarks.vae
import data
from experiments import __main__ as experiments
from experiments import gan as gan_study
from experiments import gan_fast as gan_paths
from report import build


def test_every_experiment_runs_and_the_report_takes_it(tmp_path, monkeypatch, capsys):
    for settings in ("VAE_SETTINGS", "PLANAR_SETTINGS"):
        small = [(n, 2, {**c, "epochs": 2, "latent_size": 3}) for n, _, c in getattr(experiments, settings)]
        monkeypatch.setattr(experiments, settings, small)
    monkeypatch.setattr(experiments, "FLOW_DEPTHS", [2])
    monkeypatch.setattr(experiments, "BOUND_SAMPLES", [1, 200])
    monkeypatch.setattr(benchmarks.vae, "SAMPLES", 5)
    monkeypatch.setitem(gan_study.SCALES, "quick", gan_study.SCALES["quick"] + " --max_iters 16 --eval_every 5")
    monkeypatch.setitem(gan_paths.SCALES, "quick", gan_paths.SCALES["quick"] + " --max_iters 5")
    out = tmp_path / "runs"
    experiments.main(["--profile", "quick", "--out", str(out)])
    sources = build.build(tmp_path / "report.pdf", out)
    assert set(sources.values()) == {"runs"}
    assert {path.stem for path in (out / "results").iterdir()} == set(experiments.EXPERIMENTS) == set(build.SECTIONS)
    result = json.loads((out / "results" / "vae.json").read_text())
    assert result["profile"] == "quick" and result["dataset"] == "digits"
    assert result["latent"]["kl"] == sorted(result["latent"]["kl"], reverse=True)

    held = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    capsys.readouterr()
    experiments.main(["--profile", "quick", "--out", str(out)])
    assert capsys.readouterr().out.count("done before") == len(experiments.EXPERIMENTS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == held


def test_the_study_without_cuda_is_left_to_the_reference_unless_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study = {"gan": experiments.EXPERIMENTS["gan"]}
    monkeypatch.setattr(experiments, "EXPERIMENTS", study)
    experiments.main(["--dataset", "digits", "--out", str(tmp_path)])
    assert "--only gan" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_study_whose_data_cannot_be_had_ends_in_one_line(tmp_path, monkeypatch, capsys):
    def unavailable(*_):
        raise data.DataUnavailableError("no file, no network")

    monkeypatch.setattr(gan_study, "study", unavailable)
    with pytest.raises(SystemExit) as stop:
        experiments.main(["--dataset", "digits", "--device", "cpu", "--only", "gan", "--out", str(tmp_path)])
    assert stop.value.code == 2 and capsys.readouterr().err == "error: no file, no network\n"
    assert not list(tmp_path.iterdir())


def test_the_full_study_says_how_long_it_will_take(monkeypatch, capsys):
    monkeypatch.setattr(gan_study, "choose_scale", lambda quick, device: "full")
    kinds = {kind: {"median": {"fast": float(ms)}} for ms, kind in enumerate(benchmarks.gan.KINDS, start=1)}
    monkeypatch.setattr(benchmarks.gan, "measure", lambda options: {"kinds": kinds})
    monkeypatch.setattr(gan_study, "study", lambda *_: {})
    experiments.question2_images(experiments.Options(gan_seeds=2))
    # Two seeds of 100,000 updates: 1 ms with a free critic, twice 2 with spectral normalisation, twice 3 with R1.
    assert "about 37 minutes" in capsys.readouterr().out


def test_another_number_of_seeds_is_another_study():
    held = {"profile": "full", "dataset": "cifar10", "seeds": [1]}
    ask = [experiments.Options(gan_seeds=count) for count in (1, 2)]
    assert [experiments.is_done("gan", held, options) for options in ask] == [True, False]


def test_benchmark_of_the_gans_counts_and_times_both_paths():
    options = benchmarks.gan.Options(width=2, rounds=2, updates=1, eval_samples=20, device="cpu")
    result = benchmarks.gan.measure(options)
    for row in result["kinds"].values():
        assert {path: len(values) for path, values in row["milliseconds"].items()} == {"plain": 2, "fast": 2}
        assert row["times_faster"] == pytest.approx(row["median"]["plain"] / row["median"]["fast"])
    with benchmarks.gan.Operations() as counter:
        torch.nn.functional.conv2d(torch.zeros(2, 3, 8, 8), torch.zeros(5, 3, 3, 3), padding=1)
    assert counter.total == 2 * 2 * 5 * 3 * 9 * 64


def test_an_unknown_profile_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        experiments.main(["--profile", "slow"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: profile must be")


def test_benchmark_times_all_three_in_every_round(monkeypatch):
    monkeypatch.setattr(benchmarks.vae, "SAMPLES", 5)
    result = benchmarks.vae.measure("digits", "unused", rounds=2, share=0.2)
    for task in ("epoch", "estimate"):
        assert {name: len(values) for name, values in result[task]["seconds"].items()} == {
            "textbook": 2,
            "ours": 2,
            "floor": 2,
        }
        median = result[task]["median"]
        assert result[task]["times_the_floor"] == pytest.approx(median["ours"] / median["floor"])
