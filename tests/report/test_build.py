"""The report, the README's table and the published JSON agree; figures and sections go where they should."""

import json
import re
import shutil

import pytest
from pypdf import PdfReader

from report import build


def text(path) -> str:
    return " ".join(page.extract_text() for page in PdfReader(path).pages)


@pytest.mark.slow
def test_published_pdf_says_what_the_published_json_says(tmp_path):
    build.build(tmp_path / "report.pdf")
    assert text(tmp_path / "report.pdf") == text(build.HERE / "report.pdf")


def test_readme_table_says_what_the_published_json_says():
    readme = build.README.read_text()
    previous = readme.split(build.BEGIN)[1].split(build.END)[0]
    assert previous.strip() == build.readme_table()


def test_published_results_are_of_full_runs_on_the_real_data():
    images = {"gan": "cifar10", "gan_fast": "cifar10", "gan_update": "cifar10", "gan_small": "digits"}
    none = ("dirac", "dirac_long", "gan_speed", "flow", "flow_tuned", "flow_directions", "flow_speed")
    for section in build.SECTIONS:
        result = build.results(section)
        dataset = "none" if section in none else images.get(section, "binarized_mnist")
        assert (result["profile"], result["dataset"]) == ("full", dataset), section


def test_published_summaries_follow_from_their_runs():
    for setting in [build.results("vae"), *build.results("vae_tuned")["settings"].values()]:
        values = [run["valid_elbo"]["mean"] for run in setting["runs"]]
        assert setting["valid_elbo"]["values"] == values
        assert setting["valid_elbo"]["mean"] == pytest.approx(sum(values) / len(values))
        assert all(
            run["history"][-1]["valid_elbo"] == pytest.approx(run["valid_elbo"]["mean"]) for run in setting["runs"]
        )
        assert all(len(run["history"]) == setting["options"]["epochs"] for run in setting["runs"])


def test_published_theory_of_the_dirac_game_is_within_half_a_percent():
    rows = build.results("dirac")["rows"]
    assert len(rows) == 20
    for row in rows:
        predicted, measured = row["predicted"], row["measured"]
        for key, floor in (("period", 0), ("rate", 1e-7), ("amplitude", 0)):
            if measured[key] is not None:
                assert measured[key] == pytest.approx(predicted[key], rel=0.005, abs=floor), (row["name"], key)
        if row["ema"] is not None:
            averages = [side["averaged"]["amplitude"] for side in (measured, predicted)]
            assert averages[0] == pytest.approx(averages[1], rel=0.005), row["name"]


def test_report_reads_its_numbers_from_the_json(tmp_path):
    """Another number in this machine's results is another number in the PDF."""
    runs = tmp_path / "runs"
    (runs / "results").mkdir(parents=True)
    result = build.results("vae")
    result["runs"][0]["valid_elbo"]["mean"] = -123.456
    result["profile"] = "quick"
    (runs / "results" / "vae.json").write_text(json.dumps(result))
    shutil.copytree(build.HERE / "figures", runs / "figures")
    sources = build.build(tmp_path / "report.pdf", runs)
    pdf = text(tmp_path / "report.pdf")
    assert sources == {section: "runs" if section == "vae" else "reference" for section in build.SECTIONS}
    assert "123.46" in pdf and "Quick profile" in pdf and "did not run on the machine" in pdf
    assert "123.46" not in text(build.HERE / "report.pdf")


def test_no_result_is_typed_into_the_report():
    """The answers have no decimal number of their own; headings, lengths and shares of the page do not count."""
    for path in build.HERE.glob("question*.typ"):
        answers = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("="))
        assert not re.findall(r"(?<![\w.])\d+\.\d+(?!em|pt|cm|%|\d)", answers), path


def test_quick_results_cannot_be_published(tmp_path):
    (tmp_path / "results").mkdir()
    result = {**build.results("vae"), "profile": "quick"}
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
