"""The experiments and benchmarks run end to end at toy size, and a finished one is not run again."""

import json

import pytest

import benchmarks.vae
import experiments
from report import build


def test_every_experiment_runs_and_the_report_takes_it(tmp_path, monkeypatch, capsys):
    for settings in ("VAE_SETTINGS", "PLANAR_SETTINGS"):
        small = [(n, 2, {**c, "epochs": 2, "latent_size": 3}) for n, _, c in getattr(experiments, settings)]
        monkeypatch.setattr(experiments, settings, small)
    monkeypatch.setattr(experiments, "FLOW_DEPTHS", [2])
    monkeypatch.setattr(experiments, "BOUND_SAMPLES", [1, 200])
    monkeypatch.setattr(benchmarks.vae, "SAMPLES", 5)
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
