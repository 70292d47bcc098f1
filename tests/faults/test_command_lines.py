"""Command lines of random values: status 0 or 2, 1 for a run that diverges, one line, nothing overwritten."""

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train
import vae
from experiments import classifier
from lab import interruption, jobs
from question2.configurations import Hyperparameters, Management
from tests.faults.conftest import LONG, TRAINERS, messages, small_cifar10

LINES = 100 if LONG else 10  # of each program
ELSEWHERE = {"out", "exp_path", "data_path", "data", "workers", "parallel", "executor", "job_minutes"}
NUMBERS = ["-1", "0", "1", "2", "3", "1e-3", "0.5", "1e30", "1e300", "inf", "nan", "-inf", str(10**12), str(10**30)]
WORDS = ["", "many", "none", "True", "no", "ψ", "x" * 300, "../..", "cpu", "meta", "cuda", "JSD", "path", "1,2"]


def fields_of(*classes: type) -> list[str]:
    return sorted({f.name for each in classes for f in dataclasses.fields(each)} - ELSEWHERE)


PROGRAMS: dict[str, tuple[Any, list[str]]] = {
    "vae": (vae.main, fields_of(vae.Hyperparameters)),
    "train": (train.main, fields_of(train.Hyperparameters)),
    "images": (TRAINERS["images"].main, fields_of(Management, Hyperparameters, jobs.Resources)),
    "classifier": (classifier.main, fields_of(classifier.Hyperparameters)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_random_command_lines(name, tmp_path_factory, monkeypatch, capsys):
    main, names = PROGRAMS[name]
    folder = tmp_path_factory.mktemp(name)
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "thesis.docx").write_text("years of work")
    if name == "classifier":
        data = small_cifar10(folder / "data")
        arguments = ["--width", "2", "--epochs", "1", "--batch_size", "40", "--device", "cpu", "--data", str(data)]
    else:
        arguments = list(TRAINERS[name].arguments)
    # A run that begins is stopped after its first step, so that one of 10**12 steps ends too.
    monkeypatch.setattr(interruption.Interruption, "requested", property(lambda self: True))
    flags = st.tuples(st.sampled_from(names), st.lists(st.sampled_from(NUMBERS + WORDS), max_size=2))
    places = st.sampled_from(["run", "foreign", "foreign/thesis.docx", "new/deep/folder"])
    count = iter(range(10**6))

    @settings(max_examples=LINES, suppress_health_check=list(HealthCheck))
    @given(st.lists(flags, min_size=1, max_size=2), places)
    def check(chosen: list[tuple[str, list[str]]], place: str) -> None:
        out = folder / place if place.startswith("foreign") else folder / str(next(count)) / place
        line = [*arguments, "--out", str(out)]
        for flag, values in chosen:
            line += [f"--{flag}", *values]
        capsys.readouterr()
        status = 0
        try:
            main(line)
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = messages(capsys.readouterr().err)
        shown = f"{' '.join(line)}\n{said}"
        assert status in (0, 1, 2, 130) and not any("Traceback" in each for each in said), shown
        assert status != 2 or (len(said) == 1 and said[0].startswith("error: ")), shown
        assert status != 1 or "finite" in said[-1] or "loss" in said[-1], shown
        # Image runs have a folder of their own in --out, which may hold other things.
        assert name == "images" or [path.name for path in foreign.iterdir()] == ["thesis.docx"], shown
        assert (foreign / "thesis.docx").read_text() == "years of work", shown

    check()
