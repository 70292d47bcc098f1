"""The report, the README's table and the published JSON agree; figures and sections go where they should."""

import json
import re
import shutil

import pytest
from pypdf import PdfReader

from experiments.__main__ import listed
from report import build


def text(path) -> str:
    return " ".join(page.extract_text() for page in PdfReader(path).pages)


@pytest.mark.slow
def test_published_pdf_says_what_the_published_json_says(tmp_path):
    build.build(tmp_path / "report.pdf")
    assert text(tmp_path / "report.pdf") == text(build.HERE / "report.pdf")


def test_readme_table_says_what_the_published_json_says():
    written = build.README.read_text().split(build.BEGIN)[1].split(build.END)[0]
    assert written.strip() == build.readme_table()
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) <= 2 + 12 and len({row.count("|") for row in rows}) == 1


def test_published_results_are_of_full_runs_on_the_real_data():
    numbers_kept = {"gan_fast", "gan_update"}  # of experiments that are gone
    images = {"gan": "cifar10", "gan_fast": "cifar10", "gan_update": "cifar10", "gan_small": "digits"}
    names = set(build.names(build.HERE))
    assert {"vae", "dirac", "gan", "flow", "vae_speed"} <= names <= {*listed(), *numbers_kept}
    for name in names:
        result = build.result(name)
        allowed = (images.get(name, "binarized_mnist"), "none")
        assert result["profile"] == "full" and result["dataset"] in allowed, name


def test_report_reads_its_numbers_from_the_json(tmp_path):
    """Another number in this machine's results is another number in the PDF."""
    runs = tmp_path / "runs"
    (runs / "results").mkdir(parents=True)
    result = build.result("vae")
    result["runs"][0]["valid_elbo"]["mean"] = -123.456
    result["profile"] = "quick"
    (runs / "results" / "vae.json").write_text(json.dumps(result))
    shutil.copytree(build.HERE / "figures", runs / "figures")
    sources = build.build(tmp_path / "report.pdf", runs)
    pdf = text(tmp_path / "report.pdf")
    assert sources == {name: "runs" if name == "vae" else "reference" for name in build.names(build.HERE)}
    assert "123.46" in pdf and "Quick profile" in pdf and "did not run on the machine" in pdf
    assert "123.46" not in text(build.HERE / "report.pdf")


def test_figures_go_with_the_longest_name_that_is_an_experiments(tmp_path):
    runs, stage = tmp_path / "runs", tmp_path / "stage"
    for folder in (runs / "results", runs / "figures", stage):
        folder.mkdir(parents=True)
    for name in ("vae", "new"):
        (runs / "results" / f"{name}.json").write_text("{}")
    # A tuned run that has drawn, and has no result yet.
    figures = ("vae_bound.svg", "vae_tuned_training.svg", "new_curve.png", "other.png")
    for name in figures:
        (runs / "figures" / name).write_text(name)
    assert build.names(runs) == ["new", "vae"]
    build.copy(runs, stage)
    assert {path.name for path in (stage / "results").iterdir()} == {"vae.json", "new.json"}
    assert {path.name for path in (stage / "figures").iterdir()} == {"vae_bound.svg", "new_curve.png"}


def test_no_result_is_typed_into_the_report():
    """The answers have no decimal number of their own; headings, lengths and shares of the page do not count."""
    for path in build.HERE.glob("question*.typ"):
        answers = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("="))
        assert not re.findall(r"(?<![\w.])\d+\.\d+(?!em|pt|cm|%|\d)", answers), path


def test_quick_results_cannot_be_published(tmp_path):
    (tmp_path / "results").mkdir()
    result = {**build.result("vae"), "profile": "quick"}
    (tmp_path / "results" / "vae.json").write_text(json.dumps(result))
    before = {path: path.read_bytes() for path in (build.HERE / "results").iterdir()}
    with pytest.raises(ValueError, match="not of the full profile"):
        build.publish(tmp_path)
    assert {path: path.read_bytes() for path in (build.HERE / "results").iterdir()} == before


@pytest.mark.slow
def test_the_page_for_a_screen_says_what_the_pdf_says_and_holds_all_it_shows(tmp_path):
    build.build(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'<img src="([^"]{11})', page)
    assert len(sources) > 30 and set(sources) == {"data:image/"}
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    pdf = re.sub(r"\s+", " ", text(build.HERE / "report.pdf"))
    for number in re.findall(r"\d+\.\d\d\d", pdf)[:200]:
        assert number in plain
    assert page.count("<math") > 100
