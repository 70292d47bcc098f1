"""From results to the PDF and to the README's table.

A section of the report takes the results that this machine's experiments left in ``runs/``; where an experiment did not
run here, it takes the published reference in ``report/`` and says so.
"""

import datetime
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typst

from lab import interruption
from lab.estimates import format_spread
from lab.files import atomic_write, read_json
from lab.options import InputError, parse

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
# The part of the README that is written here, between two marks.
BEGIN, END = "<!-- results: written by python -m report, from report/results -->", "<!-- end of results -->"
# A fixed date makes the same numbers the same file.
DATE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Options:
    """Where results come from and where the PDF goes."""

    runs: str = "runs/assignment"  # folder that the experiments wrote to
    out: str = "report.pdf"  # the report: a PDF, or where the name ends so, one page of HTML
    publish: bool = False  # take the results in --runs as the published reference, and build that

    def __post_init__(self) -> None:
        if not self.out.endswith((".pdf", ".html")):
            raise InputError(f"out must be a .pdf or .html file, got {self.out}")
        if not Path(self.runs).is_dir() and (self.publish or self.runs != Options.runs):
            raise InputError(f"there is no folder {self.runs}")


def build(out: str | Path, runs: str | Path | None = None) -> dict[str, str]:
    """Compile the report.

    Args:
        out: The file; its ending says whether it is a PDF or a page of HTML with everything in it.
        runs: Folder with ``results`` and ``figures`` of this machine's experiments; without it, the
            published reference alone is used.

    Returns:
        Where each experiment's numbers are from: ``runs``; ``reference`` where it did not run here;
        ``published`` if no runs were asked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        for source in [*HERE.glob("*.typ"), HERE / "references.bib", HERE / "screen.css"]:
            shutil.copy(source, stage)
        copy(HERE, stage)
        sources = dict.fromkeys(names(HERE), "reference" if runs else "published")
        if runs:
            copy(Path(runs), stage)
            sources |= dict.fromkeys(names(runs), "runs")
        (stage / "sources.json").write_text(json.dumps(sources))
        options: Any = {"format": Path(out).suffix[1:], "root": stage, "timestamp": DATE, "ignore_system_fonts": True}
        with atomic_write(out) as temporary:
            temporary.write_bytes(typst.compile(stage / "report.typ", **options))
    return sources


def names(folder: str | Path) -> list[str]:
    """The experiments whose results lie in a folder."""
    return sorted(path.stem for path in Path(folder, "results").glob("*.json"))


def copy(source: Path, target: Path) -> None:
    """Copy the results in a folder, and the figures of their experiments.

    The figures of ``vae`` are ``vae_*``, but not ``vae_tuned_*`` where there is an experiment ``vae_tuned``.
    """
    shutil.copytree(source / "results", target / "results", dirs_exist_ok=True)
    (target / "figures").mkdir(exist_ok=True)
    found, known = names(source), {*names(HERE), *names(source)}
    for figure in (source / "figures").glob("*_*"):
        if max((name for name in known if figure.name.startswith(f"{name}_")), key=len, default="") in found:
            shutil.copy(figure, target / "figures")


def result(name: str, runs: Path | None = None) -> dict[str, Any]:
    """The result of an experiment: of some runs, where they have it, else the published reference."""
    path = (runs or HERE) / "results" / f"{name}.json"
    return json.loads((path if path.exists() else HERE / "results" / path.name).read_text(encoding="utf-8"))


Row = tuple[str, str, str]  # question, what, result


def readme_table(runs: Path | None = None) -> str:
    """The README's table of results, of the published reference or of some runs, and what ``vae.py`` prints."""
    vae = result("vae", runs)
    tuned = result("vae_tuned", runs)["settings"]
    planar = result("posterior_controls", runs)["settings"]["tuned-planar-16"]
    speed, flows = result("vae_speed", runs), result("flow_speed", runs)["all_runs"]
    faster = [*(speed[task]["times_faster_than_textbook"] for task in ("epoch", "estimate")), flows["times_faster"]]
    fast = "times as fast as the textbook loop: an epoch of the VAE, its log p(x), all flows"
    rows = [
        _vae_row("1.6", "VAE as prescribed", vae),
        _vae_row("1.6", "VAE, tuned", tuned["tuned"]),
        _vae_row("1.6", "VAE, tuned, long", tuned["long"]),
        *_gan_rows(result("dirac", runs), result("gan", runs)),
        _flow_row("3.7", "samples", "NLL above the entropy", "gap", result("flow", runs)),
        _flow_row("3.9", "density", "KL(q‖p)", "kl", result("flow", runs)),
        _vae_row("3.10", f"VAE, tuned, {planar['options']['num_layers']} planar layers", planar),
        ("speed", fast, ", ".join(f"{times:.1f}" for times in faster)),
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


def _flow_row(question: str, source: str, what: str, key: str, flow: dict[str, Any]) -> Row:
    """The deepest flows of a source, by the targets of which the number is known."""
    settings = [setting for setting in flow["settings"] if setting["source"] == source]
    deepest = max(setting["num_layers"] for setting in settings)
    found = [setting for setting in settings if setting["num_layers"] == deepest and key in setting]
    values = ", ".join(f"{setting['data']} {format_spread(setting[key], '.3f')}" for setting in found)
    return question, f"flow from {source}, {deepest} layers: {what}", values


def publish(runs: Path) -> None:
    """Make the results of full runs the reference: JSON, figures, PDF and the README's table.

    Everything is checked and built beside the reference first, and replaces it only then.

    Raises:
        InputError: A result is damaged or not of the full profile, or there is none.
    """
    if not names(runs):
        raise InputError(f"there are no results in {runs}")
    for name in names(runs):
        if (read_json(runs / "results" / f"{name}.json") or {}).get("profile") != "full":
            raise InputError(f"{name} in {runs} is damaged, or not of the full profile: nothing was published")
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(Path(folder) / "report.pdf", runs)
            readme_table(runs)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"the results in {runs} make no report ({error}): nothing was published") from None
    copy(runs, HERE)
    build(HERE / "report.pdf")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    with atomic_write(README) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{readme_table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(Options, "Build the report from the experiments' results.", argv, program="python -m report")
    with interruption.one_line_errors():
        if options.publish:
            publish(Path(options.runs))
        for name, source in build(options.out, options.runs).items():
            where = f"from {options.runs}" if source == "runs" else "the published reference, not run here"
            print(f"{name}: {where}")
        print(f"written: {options.out}")
