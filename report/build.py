"""From results to the PDF and to the README's table.

A section of the report takes the results that this machine's experiments left in ``runs/``; where an
experiment did not run here, it takes the published reference in ``report/`` and says so.
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
SECTIONS = (
    "vae",
    "vae_tuned",
    "vae_ablation",
    "dirac",
    "dirac_long",
    "gan",
    "gan_fast",
    "gan_small",
    "gan_update",
    "flow",
    "flow_tuned",
    "flow_directions",
    "flow_posterior",
    "posterior_controls",
    "inference_gap",
    "vae_speed",
    "gan_speed",
    "flow_speed",
)
# The parts of the README that programs write, each between two marks.
BEGIN, END = "<!-- results: written by python -m report, from report/results -->", "<!-- end of results -->"
# A fixed date makes the same numbers the same file.
DATE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


Results = dict[str, dict[str, Any]]  # by section


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
        Where each section's numbers are from: ``runs``; ``reference`` where the experiment did not run here;
        ``published`` if no runs were asked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        for source in [*HERE.glob("*.typ"), HERE / "references.bib", HERE / "screen.css"]:
            shutil.copy(source, stage)
        sources = {section: _stage(section, stage, Path(runs) if runs else None) for section in SECTIONS}
        (stage / "sources.json").write_text(json.dumps(sources))
        with atomic_write(out) as temporary:
            kind = Path(out).suffix[1:]
            options: Any = {"format": kind, "root": stage, "timestamp": DATE, "ignore_system_fonts": True}
            temporary.write_bytes(typst.compile(stage / "report.typ", **options))
    return sources


def _stage(section: str, stage: Path, runs: Path | None) -> str:
    source = runs if runs and (runs / "results" / f"{section}.json").exists() else HERE
    (stage / "results").mkdir(exist_ok=True)
    (stage / "figures").mkdir(exist_ok=True)
    shutil.copy(source / "results" / f"{section}.json", stage / "results")
    for figure in (source / "figures").glob(f"{section}_*"):
        shutil.copy(figure, stage / "figures")
    return "runs" if source is runs else "reference" if runs else "published"


def results(section: str, runs: Path | None = None) -> dict[str, Any]:
    """The results of a section: of some runs, where they have it, else the published reference."""
    path = runs / "results" / f"{section}.json" if runs else None
    path = path if path and path.exists() else HERE / "results" / f"{section}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def readme_table(runs: Path | None = None) -> str:
    """The README's table of results: of the published reference, or as some runs would make it."""
    of = {section: results(section, runs) for section in SECTIONS}
    parts = (_vae_rows(of), _dirac_rows(of), _gan_rows(of), _flow_rows(of), _posterior_rows(of), _printed(of))
    return "\n\n".join("\n".join(rows) for rows in parts)


def _printed(of: Results) -> list[str]:
    """What a run of the first seed printed."""
    return [
        "`python vae.py`, with its defaults, ends with lines like these; standard errors are over the images:",
        "",
        "```",
        of["vae"]["printed"],
        "```",
    ]


def _vae_rows(of: Results) -> list[str]:
    vae, speed = of["vae"], of["vae_speed"]
    rows = [
        "| question 1: VAE, static binarised MNIST | validation ELBO | test log p(x), K = 200 | minutes a run |",
        "|---|---|---|---|",
    ]
    for name, setting in ({"assignment": vae} | of["vae_tuned"]["settings"]).items():
        rows.append(
            f"| {name}: {setting['options']['epochs']} epochs, {len(setting['runs'])} seeds"
            f" | {format_spread(setting['valid_elbo'])} | {format_spread(setting['test_log_px'])}"
            f" | {setting['train_minutes']['mean']:.1f} |"
        )
    epoch, estimate = speed["epoch"], speed["estimate"]
    return [
        *rows,
        "",
        f"In nats, mean ± standard deviation over seeds; minutes on {vae['environment']['cores']} CPU cores that runs"
        f" had to share at times. An epoch takes"
        f" {epoch['median']['ours']:.1f} s, {epoch['times_faster_than_textbook']:.1f} times as fast as the textbook"
        f" loop; the log-likelihood of the test set {estimate['median']['ours']:.1f} s,"
        f" {estimate['times_faster_than_textbook']:.1f} times as fast.",
    ]


def _dirac_rows(of: Results) -> list[str]:
    dirac = of["dirac"]
    rows = [
        "| question 2.6: the dirac game | verdict | updates a turn | decay of the distance an update |",
        "|---|---|---|---|",
    ]
    plain = [row for row in dirac["rows"] if row["ema"] is None]
    heaviest = max(row["weight"] for row in plain if row["penalty"])
    for row in plain:
        if row["penalty"] and row["weight"] < heaviest:
            continue  # the report has them all
        predicted, measured = row["predicted"], row["measured"]
        penalty = f"{row['penalty']} {row['weight']:g}" if row["penalty"] else "no penalty"
        cells = [_pair(predicted[key], measured[key]) for key in ("period", "rate")]
        rows.append(f"| {row['loss']}, {penalty} | {measured['verdict']} | {' | '.join(cells)} |")
    agree = sum(row["predicted"]["verdict"] == row["measured"]["verdict"] for row in dirac["rows"])
    return [
        *rows,
        "",
        f"Theory / measured, medians over {dirac['options']['games']} starts; a decay below 1e-7 counts as none. The"
        f" verdicts agree in {agree} of {len(dirac['rows'])} configurations, weaker penalties and averages included;"
        f" all of them take {dirac['seconds']:.0f} s.",
    ]


def _pair(predicted: float | None, measured: float | None) -> str:
    if predicted is None or measured is None:
        return ""
    return " / ".join(f"{0 if abs(value) < 1e-7 else value:.3g}" for value in (predicted, measured))


def _gan_rows(of: Results) -> list[str]:
    gan = of["gan"]
    inception, fid = gan["scores"]["is"], gan["scores"]["fid"]
    scale = "" if gan["scale"] == "full" else f" ({gan['scale']} study: width {gan['options']['generator_dimh']})"
    rows = [
        f"| question 2.7: CIFAR-10, {gan['options']['max_iters']:,} updates{scale} | {fid} | {inception}"
        f" | rank correlation of metric and {fid} |",
        "|---|---|---|---|",
    ]
    for row in gan["configurations"]:
        values = row["final"][fid], row["final"][inception], row["rank_correlation"]
        critic = "spectral norm" if row["spectral_norm"] else row["penalty"] or "free critic"
        cells = " | ".join(format_spread(value) if value else "" for value in values)
        rows.append(f"| {row['name']}: {row['loss']}, {critic} | {cells} |")
    own = f" {fid} and {inception} are from the project's own classifier, not Inception." if fid != "FID" else ""
    count = len(gan["seeds"])
    seeds = "One seed" if count == 1 else f"Mean ± standard deviation over {count} seeds"
    anchors = ", ".join(
        f"{anchor['name']} {anchor['FID']:.2f}" for anchor in gan["anchors"] if anchor["name"] != "training images"
    )
    full = gan["full_options"]
    missing = f" The assignment's width {full['generator_dimh']} and {full['max_iters']:,} updates were not run."
    return [
        *rows,
        "",
        f"{seeds}, {gan['options']['final_samples']:,} samples of the averaged generator. Lower {fid} is better:"
        f" {anchors}.{own}{missing if scale else ''} A rank correlation of 1: the metric falls as {fid} falls.",
    ]


def _flow_rows(of: Results) -> list[str]:
    flow, speed = of["flow"], of["flow_speed"]
    names = list(dict.fromkeys(setting["data"] for setting in flow["settings"]))
    rows = [
        f"| question 3: planar flows, {flow['options']['seeds']} seeds | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for source, key, label in (("samples", "gap", "NLL above the entropy"), ("density", "kl", "KL(q‖p)")):
        for k in dict.fromkeys(setting["num_layers"] for setting in flow["settings"]):
            found = {s["data"]: s for s in flow["settings"] if (s["source"], s["num_layers"]) == (source, k)}
            cells = [format_spread(found[n][key], ".3f") if key in found[n] else "not available" for n in names]
            rows.append(f"| from {source}, k = {k}: {label} | {' | '.join(cells)} |")
    total = speed["all_runs"]
    return [
        *rows,
        "",
        f"In nats. The twelve runs of one seed take {total['ours_seconds']:.0f} s, compilation included, where the"
        f" textbook loop takes {total['textbook_seconds'] / 60:.0f} minutes.",
    ]


def _posterior_rows(of: Results) -> list[str]:
    settings = of["posterior_controls"]["settings"]
    rows = [
        "| question 3.10: posterior and training | validation ELBO | test log p(x), K = 200 |",
        "|---|---|---|",
    ]
    shown = [("prescribed", setting) for setting in of["flow_posterior"]["settings"].values()]
    shown += [("tuned", settings[name]) for name in ("tuned", "tuned-planar-4", "tuned-planar-16")]
    for training, setting in shown:
        k = setting["options"]["num_layers"]
        label = f"{k} planar layers" if k else "normal"
        rows.append(
            f"| {label}, {training}: {setting['options']['epochs']} epochs, {len(setting['runs'])} seeds"
            f" | {format_spread(setting['valid_elbo'])} | {format_spread(setting['test_log_px'])} |"
        )
    return [*rows, "", "In nats, mean ± standard deviation over seeds."]


def update_readme() -> None:
    """Write the README's table of the published results between its marks."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    with atomic_write(README) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{readme_table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def publish(runs: str | Path) -> None:
    """Make the results of full runs the reference: JSON, figures, PDF and the README's table.

    Everything is checked and built beside the reference first, and replaces it only then.

    Raises:
        InputError: A result is damaged or not of the full profile, or there is none.
    """
    runs = Path(runs)
    found = {name: runs / "results" / f"{name}.json" for name in SECTIONS}
    found = {name: path for name, path in found.items() if path.exists()}
    if not found:
        raise InputError(f"there are no results in {runs}")
    for path in found.values():
        result = read_json(path)
        if result is None or result.get("profile") != "full":
            raise InputError(f"{path} is damaged, or not of the full profile: nothing was published")
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "report.pdf"
        try:
            build(trial, runs)
            readme_table(runs)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"the results in {runs} make no report ({error}): nothing was published") from None
        for name, path in found.items():
            shutil.copy(path, HERE / "results")
            for figure in (runs / "figures").glob(f"{name}_*"):
                shutil.copy(figure, HERE / "figures")
    build(HERE / "report.pdf")
    update_readme()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(Options, "Build the report from the experiments' results.", argv, program="python -m report")
    with interruption.one_line_errors():
        if options.publish:
            publish(options.runs)
        for section, source in build(options.out, options.runs).items():
            where = f"from {options.runs}" if source == "runs" else "the published reference, not run here"
            print(f"{section}: {where}")
        print(f"written: {options.out}")
