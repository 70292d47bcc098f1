"""One's own numbers beside the published ones: what is compared, what is said of it, and the report of it."""

import json
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader

from experiments.options import Options
from lab.estimates import spread
from lab.options import parse
from report import build, comparison

ENVIRONMENT = {"python": "3.11.7", "torch": "2.14.1", "device": "CPU", "cores": 2}
numbers = st.floats(-1e3, 1e3)


@given(st.lists(numbers, min_size=2, max_size=5), st.lists(numbers, min_size=1, max_size=3))
def test_a_number_is_as_expected_if_it_is_within_three_deviations(published, values):
    ours, yours = spread(published), spread(values)
    judged = comparison.compare("ELBO", yours, ours, "nats")["judged"]
    if not ours["deviation"]:
        assert judged == "no"
    else:
        assert judged == ("expected" if abs(yours["mean"] - ours["mean"]) <= 3 * ours["deviation"] else "differs")


def test_a_line_says_what_differs_and_by_how_much():
    ours = {"mean": -101.27, "deviation": 0.17, "values": [0] * 5}
    said = comparison.compare("ELBO", spread([-101.12]), ours, "nats")["sentence"]
    assert said == "ELBO (nats): −101.12, published −101.27 ± 0.17 over 5 seeds: as expected"
    assert comparison.compare("", -104.67, ours, "nats")["verdict"] == "3.40 nats below, 20.0 deviations"
    assert comparison.compare("", -0.001, 0.5)["yours"] == "0.00"
    judged = [comparison.compare("", word, "circles")["judged"] for word in ("circles", "converges")]
    assert judged == ["expected", "differs"]


@pytest.mark.parametrize("ours", [None, 1.0, spread([1.0]), {"mean": 1.0, "standard_error": 0.1}])
def test_what_has_no_known_spread_is_not_judged(ours):
    assert comparison.compare("", 100.0, ours)["judged"] == "no"


def test_every_published_experiment_shows_numbers_that_are_told_apart():
    for name in build.names(build.HERE):
        labels = [label for label, *_ in comparison.numbers(build.result(name))]
        assert labels and len(set(labels)) == len(labels), name
        assert re.search(r"[Qq]uestion", comparison.about(name)), name


def test_experiments_are_in_the_order_of_their_questions():
    names = {"flow_posterior", "gan", "vae", "dirac", "flow", "vae_speed"}
    assert comparison.in_order(names) == ["vae", "vae_speed", "dirac", "gan", "flow", "flow_posterior"]


@pytest.fixture
def runs(tmp_path):
    """A folder of runs that came out like the published ones."""

    def make(*names, **changes):
        for name in names:
            asked = {"profile": "assignment", "seed": None, "device": "cpu"}
            frame = {"profile": "assignment", "asked": asked, "environment": ENVIRONMENT, "minutes": 1.0}
            (tmp_path / "results").mkdir(exist_ok=True)
            result = build.result(name) | frame | changes
            (tmp_path / "results" / f"{name}.json").write_text(json.dumps(result))
        return tmp_path

    return make


def test_runs_like_the_published_ones_are_as_expected(runs):
    sections = comparison.comparison(runs("vae", "dirac", "flow", "gan_small"))["sections"]
    assert [section["name"] for section in sections] == ["vae", "dirac", "gan_small", "flow"]
    judged = {section["name"]: {row["judged"] for row in section["rows"]} for section in sections}
    assert judged == {"vae": {"expected"}, "dirac": {"expected"}, "gan_small": {"no"}, "flow": {"expected"}}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("vae", {"dataset": "/somewhere/mine.npz"}, "mine.npz; the published numbers are for the static"),
        ("vae", {"dataset": "digits"}, "stand-in"),
        ("flow", {"profile": "quick"}, "quick profile"),
        ("gan", {"scale": "full"}, "The study is full, the published one reduced"),
    ],
)
def test_what_cannot_be_compared_is_not(runs, name, changes, reason):
    (section,) = comparison.comparison(runs(name, **changes))["sections"]
    assert reason in section["obstacle"] and section["rows"]
    assert {row["published"] for row in section["rows"]} == {"–"}


def test_likely_causes_are_options_and_versions(runs):
    options = build.result("vae")["options"] | {"epochs": 3, "seed": 9}
    (section,) = comparison.comparison(runs("vae", options=options))["sections"]
    assert section["causes"][0] == "epochs 3 (published 20)"
    assert all(cause.startswith(("epochs", "torch")) for cause in section["causes"])


def test_a_command_asks_for_what_was_asked_for(runs):
    asked = {"profile": "full", "seed": 7, "dataset": "my data.npz", "gan_seeds": 3}
    folder = runs("vae", profile="full", asked=asked)
    found = comparison.comparison(folder)
    for said in (found["sections"][0], *found["missing"]):
        python, _, program, *arguments = shlex.split(said["command"])
        options = parse(Options, "", arguments)
        assert (python, program, options.folder) == ("python", "experiments", folder)
        assert {key: getattr(options, key) for key in asked} == asked
    missing = {shlex.split(one["command"])[6] for one in found["missing"]}
    assert missing == set(build.names(build.HERE)) - {"vae"}


def test_the_report_shows_numbers_figures_and_what_was_not_run(runs, tmp_path, capsys):
    folder = runs("vae", "dirac", valid_elbo=spread([-123.456]))
    (folder / "figures").mkdir()
    (folder / "figures" / "vae_bound.svg").write_bytes((build.HERE / "figures" / "vae_bound.svg").read_bytes())
    (folder / "figures" / "vae_bound.txt").write_text("A caption.\n")
    for kind in ("pdf", "html"):
        build.main(["--runs", str(folder), "--out", str(tmp_path / f"report.{kind}")])
    page = re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    pdf = " ".join(page.extract_text() for page in PdfReader(tmp_path / "report.pdf").pages)
    for text in (re.sub(r"\s+", " ", page), re.sub(r"\s+", " ", pdf)):
        for said in ("−123.46", "−101.27 ± 0.17 over 5 seeds", "A caption.", "--only flow", "torch 2.14.1"):
            assert said in text, said
    printed = capsys.readouterr().out
    assert "vae: 1 of 2 numbers are as expected\n  validation ELBO (nats): −123.46, published" in printed
    assert "dirac: 20 of 20 numbers are as expected\n" in printed


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--runs", "nowhere"], "no results in nowhere"),
        (["--publish", "--runs", "nowhere"], "no results in nowhere"),
        (["--out", "report.docx"], "out must be a .pdf or .html file"),
        (["--document", "thesis"], "document must be one of|invalid choice"),
    ],
)
def test_bad_input_is_one_line(arguments, problem, capsys):
    with pytest.raises(SystemExit) as stop:
        build.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and re.search(problem, error) and error.count("\n") == 1


def test_results_that_are_all_damaged_are_refused(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "vae.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        build.main(["--runs", str(tmp_path), "--out", str(tmp_path / "report.pdf")])
    assert stop.value.code == 2 and "can be read" in capsys.readouterr().err.splitlines()[-1]
