"""The published documents, the README's table and the published JSON agree; figures go where they should."""

import functools
import json
import re

import pytest
from pypdf import PdfReader

from experiments.__main__ import listed
from report import build


@functools.cache
def text(path) -> str:
    return " ".join(page.extract_text() for page in PdfReader(path).pages)


DOCUMENTS = [name for name in build.PUBLISHED if (build.HERE / f"{name}.pdf").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_published_pdf_says_what_the_published_json_says(document, tmp_path):
    build.build(tmp_path / "new.pdf", document)
    assert text(tmp_path / "new.pdf") == text(build.HERE / f"{document}.pdf")


def test_readme_table_says_what_the_published_json_says():
    written = build.README.read_text().split(build.BEGIN)[1].split(build.END)[0]
    assert written.strip() == build.readme_table()
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) <= 2 + 12 and len({row.count("|") for row in rows}) == 1


def test_published_results_are_of_full_runs_on_the_real_data():
    images = {"gan": "cifar10", "gan_small": "digits"}
    names = set(build.names(build.HERE))
    assert {"vae", "dirac", "gan", "flow", "vae_speed"} <= names <= set(listed())
    for name in names:
        result = build.result(name)
        allowed = (images.get(name, "binarized_mnist"), "none")
        assert result["profile"] == "full" and result["dataset"] in allowed, name


def test_report_reads_its_numbers_from_the_json(tmp_path):
    """Another number in the results that are to be published is another number in the report."""
    (tmp_path / "results").mkdir()
    result = build.result("vae")
    result["valid_elbo"]["mean"] = -123.456
    (tmp_path / "results" / "vae.json").write_text(json.dumps(result))
    build.build(tmp_path / "report.html", "report", tmp_path)
    assert "123.46" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_figures_go_with_the_longest_name_that_is_an_experiments_each_in_one_format(tmp_path):
    runs, stage = tmp_path / "runs", tmp_path / "stage"
    for folder in (runs, stage):
        (folder / "results").mkdir(parents=True)
        (folder / "figures").mkdir()
    for name in ("vae", "new"):
        (runs / "results" / f"{name}.json").write_text("{}")
    # A tuned run that has drawn, and has no result yet.
    drawn = ("vae_bound.svg", "vae_bound.png", "vae_bound.pdf", "vae_bound.txt", "vae_tuned_training.svg", "other.png")
    for name in (*drawn, "new_game-10.png", "new_game-2.png"):
        (runs / "figures" / name).write_text(name)
    assert build.names(runs) == ["new", "vae"]
    assert [path.name for path in build.figures(runs, "new")] == ["new_game-2.png", "new_game-10.png"]
    build.copy(runs, stage)
    copied = {path.name for path in stage.glob("*/*")}
    assert copied == {"vae.json", "new.json", "vae_bound.svg", "new_game-2.png", "new_game-10.png"}


def test_no_result_is_typed_into_the_report():
    """The answers have no decimal number of their own; names of questions, code, lengths and shares do not count."""
    for path in [*build.HERE.glob("question*.typ"), *build.HERE.glob("beyond_*.typ")]:
        answers = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        found = re.findall(r"(?<![\w.])\d+\.\d+(?!em|pt|cm|fr|%|\d)", answers)
        assert all(re.fullmatch(r"[1-3]\.(\d|10)", number) for number in found), path


def test_quick_results_cannot_be_published(tmp_path):
    (tmp_path / "results").mkdir()
    result = {**build.result("vae"), "profile": "quick"}
    (tmp_path / "results" / "vae.json").write_text(json.dumps(result))
    before = {path: path.read_bytes() for path in (build.HERE / "results").iterdir()}
    with pytest.raises(ValueError, match="not of the full profile"):
        build.publish(tmp_path)
    assert {path: path.read_bytes() for path in (build.HERE / "results").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_page_for_a_screen_says_what_the_pdf_says_and_holds_all_it_shows(document, tmp_path):
    build.build(tmp_path / "page.html", document)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert set(re.findall(r'<img src="([^"]{11})', page)) == {"data:image/"}
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    pdf = re.sub(r"\s+", " ", text(build.HERE / f"{document}.pdf"))
    for number in re.findall(r"\d+\.\d\d\d", pdf)[:200]:
        assert number in plain
    contents = re.search(r"<nav.*?</nav>", page, re.DOTALL)[0]
    places = re.findall(r'href="#([^"]+)"', contents)
    assert len(places) > 5 and all(f'id="{place}"' in page for place in places)
