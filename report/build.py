"""From results to the documents and to the README's table.

``report.typ`` is the solution and ``companion.typ`` what goes beyond the question, both of the published results in
``report/``; ``yours.typ`` sets one's own runs beside these.
"""

import contextlib
import datetime
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typst

from lab import interruption
from lab.estimates import format_spread
from lab.files import atomic_write, read_json, write_json
from lab.options import InputError, check, parse
from report.comparison import comparison

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PUBLISHED = ("report", "companion")
# The part of the README that is written here, between two marks.
BEGIN, END = "<!-- results: written by python -m report, from report/results -->", "<!-- end of results -->"
# A fixed date makes the same numbers the same file.
DATE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Options:
    """What to build."""

    # yours: the results in --runs beside the published ones; report: the solution; companion: what goes beyond it
    document: Literal["yours", "report", "companion"] = "yours"
    runs: str = "runs/assignment"  # folder that the experiments wrote to
    out: str = "report.pdf"  # where it goes: a PDF, or where the name ends so, one page of HTML
    publish: bool = False  # make the results in --runs the published ones, and build both documents of them

    def __post_init__(self) -> None:
        check(self)
        if not self.out.endswith((".pdf", ".html")):
            raise InputError(f"out must be a .pdf or .html file, got {self.out}")


def build(out: str | Path, document: str = "report", runs: str | Path | None = None) -> None:
    """Compile a document to a PDF, or to one page of HTML.

    Documents are ``report`` and ``companion``, of the published results, which those in the folder ``runs`` replace,
    and ``yours``, of those in ``runs``.
    """
    with staged(runs) as stage:
        if document == "yours":
            write_json(stage / "comparison.json", compared(Path(runs or HERE)))
        compile_document(stage, document, out)


@contextlib.contextmanager
def staged(runs: str | Path | None) -> Iterator[Path]:
    """A copy of the sources, results and figures, in which those of some runs replace the published ones."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        shutil.copytree(HERE, stage, ignore=shutil.ignore_patterns("*.py", "*.pdf", "__pycache__"), dirs_exist_ok=True)
        if runs:
            copy(Path(runs), stage)
        yield stage


def compile_document(stage: Path, document: str, out: str | Path) -> None:
    """Compile a document of a folder of sources; the file's ending says to what."""
    kind = Path(out).suffix[1:]
    # A page has a table of contents before it.
    (stage / "page.typ").write_text(f'#outline(title: none, depth: 2)\n#include "{document}.typ"')
    main = stage / ("page.typ" if kind == "html" else f"{document}.typ")
    options: Any = {"format": kind, "root": stage, "timestamp": DATE, "ignore_system_fonts": True}
    with atomic_write(out) as temporary:
        temporary.write_bytes(typst.compile(main, **options))


def names(folder: str | Path) -> list[str]:
    """The experiments whose results lie in a folder."""
    return sorted(path.stem for path in Path(folder, "results").glob("*.json"))


def figures(folder: Path, name: str) -> list[Path]:
    """The figures of an experiment in a folder, each in one format.

    The figures of ``vae`` are ``vae_*``, but not ``vae_tuned_*`` where there is an experiment ``vae_tuned``.
    """
    longer = tuple(f"{other}_" for other in {*names(HERE), *names(folder)} if other.startswith(f"{name}_"))
    found: dict[str, Path] = {}
    for suffix in (".png", ".jpg", ".svg"):  # the last that there is
        found |= {path.stem: path for path in folder.glob(f"figures/{name}_*{suffix}")}
    stems = [stem for stem in found if not stem.startswith(longer)]
    in_order = sorted(stems, key=lambda stem: re.sub(r"\d+", lambda number: number[0].zfill(9), stem))
    return [found[stem] for stem in in_order]


def copy(source: Path, target: Path) -> None:
    """Copy results and their figures into folders of these names."""
    for name in names(source):
        shutil.copy(source / "results" / f"{name}.json", target / "results")
        for figure in figures(source, name):
            shutil.copy(figure, target / "figures")


def compared(runs: Path) -> dict[str, Any]:
    """The comparison with the figures of each experiment and their captions."""
    found = comparison(runs)
    for section in found["sections"]:
        captions = {path: path.with_suffix(".txt") for path in figures(runs, section["name"])}
        section["figures"] = [
            {"file": path.name, "caption": text.read_text(encoding="utf-8").strip() if text.exists() else ""}
            for path, text in captions.items()
        ]
    return found


def result(name: str, folder: Path = HERE) -> dict[str, Any]:
    """The result of an experiment, by default the published one."""
    return json.loads((folder / "results" / f"{name}.json").read_text(encoding="utf-8"))


def readme_table(folder: Path = HERE) -> str:
    """The README's table of the results in a folder, and what ``vae.py`` prints."""
    vae = result("vae", folder)
    tuned = result("vae_tuned", folder)["settings"]
    planar = result("posterior_controls", folder)["settings"]["tuned-planar-16"]
    rows = [
        _vae_row("1.6", "VAE as prescribed", vae),
        _vae_row("1.6", "VAE, tuned", tuned["tuned"]),
        _vae_row("1.6", "VAE, tuned, long", tuned["long"]),
        *_gan_rows(result("dirac", folder), result("gan", folder)),
        *_flow_rows(result("flow", folder)["settings"]),
        _vae_row("3.10", f"VAE, tuned, {planar['options']['num_layers']} planar layers", planar),
        _speed_row(result("vae_speed", folder), result("flow_speed", folder)["all_runs"]),
    ]
    table = ["| question | what | result |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    remarks = f"""
In nats, mean ± standard deviation over seeds. FID-C is a Fréchet distance by features of the project's own classifier,
not Inception; lower is better. A rank correlation of 1 says that the metric falls as FID-C falls.

`python vae.py`, with its defaults, ends with lines like these; standard errors are over the images:

```
{vae["printed"]}
```"""
    return "\n".join([*table, remarks])


Row = tuple[str, str, str]  # question, what, result


def _vae_row(question: str, name: str, setting: dict[str, Any]) -> Row:
    what = f"{name}, {setting['options']['epochs']} epochs: validation ELBO, test log p(x)"
    return question, what, f"{format_spread(setting['valid_elbo'])}, {format_spread(setting['test_log_px'])}"


def _gan_rows(dirac: dict[str, Any], gan: dict[str, Any]) -> list[Row]:
    agree = sum(row["predicted"]["verdict"] == row["measured"]["verdict"] for row in dirac["rows"])
    rows = [("2.6", "dirac game: theory and experiment agree", f"{agree} of {len(dirac['rows'])} configurations")]
    fid, study, seeds = gan["scores"]["fid"], gan["options"], len(gan["seeds"])
    where = f"width {study['generator_dimh']}, {study['max_iters']:,} updates, {seeds} seed{'s' if seeds > 1 else ''}"
    ranked = sorted(gan["configurations"], key=lambda row: row["final"][fid]["mean"])
    scores = {f"{fid}, {where}": [row["final"][fid] for row in ranked]}
    scores[f"rank correlation of metric and {fid}"] = [row["rank_correlation"] for row in ranked]
    for what, values in scores.items():
        named = zip((row["name"].removeprefix("cifar10-") for row in ranked), values, strict=True)
        rows.append(("2.7", what, ", ".join(f"{name} {format_spread(value)}" for name, value in named if value)))
    return rows


def _flow_rows(settings: list[dict[str, Any]]) -> list[Row]:
    rows, deepest = [], max(setting["num_layers"] for setting in settings)
    for question, source, key, what in (
        ("3.7", "samples", "gap", "NLL above the entropy"),
        ("3.9", "density", "kl", "KL(q‖p)"),
    ):
        found = [s for s in settings if (s["source"], s["num_layers"]) == (source, deepest) and key in s]
        values = ", ".join(f"{setting['data']} {format_spread(setting[key], '.3f')}" for setting in found)
        rows.append((question, f"flow from {source}, {deepest} layers: {what}", values))
    return rows


def _speed_row(vae: dict[str, Any], flow: dict[str, Any]) -> Row:
    epoch, estimate = (vae[task]["times_faster_than_textbook"] for task in ("epoch", "estimate"))
    what = "times as fast as the textbook loop: an epoch of the VAE, its log p(x), all flows"
    return "speed", what, f"{epoch:.1f}, {estimate:.1f}, {flow['times_faster']:.1f}"


def publish(runs: Path) -> None:
    """Make the results of full runs the published ones: JSON, figures, PDFs and the README's table.

    Everything is checked and built beside the published results first, and replaces them only then.
    """
    for name in names(runs):
        if (read_json(runs / "results" / f"{name}.json") or {}).get("profile") != "full":
            raise InputError(f"{name} in {runs} is damaged, or not of the full profile: nothing was published")
    with staged(runs) as stage:
        try:
            for document in PUBLISHED:
                compile_document(stage, document, stage / f"{document}.pdf")
            table = readme_table(stage)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"the results in {runs} make no report ({error}): nothing was published") from None
        copy(runs, HERE)
        for document in PUBLISHED:
            shutil.copy(stage / f"{document}.pdf", HERE)
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    with atomic_write(README) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    about = "Build the report from the experiments' results."
    options = parse(Options, about, argv, program="python -m report")
    runs = Path(options.runs)
    with interruption.one_line_errors():
        if (options.publish or options.document == "yours") and not names(runs):
            raise InputError(f"there are no results in {runs}: python -m experiments makes them")
        if options.publish:
            return publish(runs)
        if options.document == "yours":
            print("\n".join(told(comparison(runs))))
        build(options.out, options.document, runs if options.document == "yours" else None)
        print(f"written: {options.out}")


def told(found: dict[str, Any]) -> Iterator[str]:
    """A comparison in a few lines: how many numbers are as expected, and those that are not."""
    for section in found["sections"]:
        rows = [row for row in section["rows"] if row["judged"] != "no"]
        good = sum(row["judged"] == "expected" for row in rows)
        judged = f"{good} of {len(rows)} numbers are as expected" if rows else "not judged, with one published run"
        yield f"{section['name']}: {section['obstacle'] or judged}"
        yield from (f"  {row['sentence']}" for row in rows if row["judged"] == "differs")
