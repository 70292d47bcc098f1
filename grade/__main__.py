"""The command line: grade submissions, write the Gradescope package, write the hand-out."""

import argparse
import csv
import json
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from grade import grading
from grade.submission import group
from grade.verdict import POINTS, PointsError, Report, Shares, read_points

EXAMPLES = """examples:
  python -m grade submissions/* --csv points.csv --jobs 4     a line for each submission
  python -m grade alice.zip --json alice.json                 one submission
  python -m grade --gradescope autograder.zip                 the package to upload
  python -m grade --handout handout                           what students get"""


class OneLine(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = OneLine(
        "python -m grade", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "submissions",
        nargs="*",
        type=Path,
        metavar="SUBMISSION",
        help="a folder, a .zip, or files: those of one folder are one submission",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    made.add_argument(
        "--csv", type=Path, metavar="FILE", help="write a line of points for each submission; other lines are kept"
    )
    made.add_argument(
        "--points", type=Path, metavar="FILE", default=POINTS, help="points and shares, as grade/points.toml has them"
    )
    made.add_argument("--seconds", type=float, default=60.0, metavar="N", help="limit for each question (default: 60)")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="submissions graded side by side (default: 1)")
    made.add_argument("--gradescope", type=Path, metavar="FILE.zip", help="write the autograder's package")
    made.add_argument("--handout", type=Path, metavar="FOLDER", help="write what students get")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks; 0 where grading itself worked, whatever the points."""
    try:
        return _do(parser().parse_args(argv))
    except (PointsError, OSError, ValueError) as error:
        print(f"python -m grade: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m grade: stopped; the files have what was graded before", file=sys.stderr)
        return 130


def _do(options: argparse.Namespace) -> int:
    if not (options.submissions or options.gradescope or options.handout):
        raise ValueError("name a submission, --gradescope FILE.zip or --handout FOLDER; --help says more")
    if not options.seconds > 0 or options.jobs < 1:
        raise ValueError("--seconds and --jobs must be above 0")
    points = read_points(options.points)
    paths = options.submissions
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise ValueError(f"there is no {', '.join(missing)}")
    for out in (options.json, options.csv):
        if out and not out.resolve().parent.is_dir():
            raise ValueError(f"there is no folder {out.resolve().parent}")
    if options.gradescope:
        from grade import gradescope

        print(gradescope.write_package(options.gradescope, points, options.points))
    if options.handout:
        from grade import handout

        print(handout.write(options.handout, points))
    if paths:
        submissions = group(paths)
        header = ["submission", "total", *(question.number for question in grading.questions())]
        rows = read_csv(options.csv, header) if options.csv and options.csv.exists() else {}
        records = []
        for report in grade_all(submissions, points, options.seconds, options.jobs):  # written as they come
            records.append(report.as_json())
            rows[report.submission] = [report.submission, report.total, *(q.points for q in report.questions)]
            if options.json:
                text = json.dumps(records[0] if len(submissions) == 1 else records, indent=1)
                options.json.write_text(text + "\n", encoding="utf-8")
            if options.csv:
                write_csv(options.csv, [header, *rows.values()])
        if len(records) > 1:
            print(summary(records))
    return 0


def grade_all(submissions: list[list[Path]], points: Shares, seconds: float, jobs: int) -> Iterator[Report]:
    """Grade submissions, some side by side, and print each one's table as soon as those before it are printed."""
    shown, stopped = sys.stderr.isatty(), threading.Event()

    def progress(text: str) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt  # ends this thread's submission between two questions
        if shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def one(paths: list[Path], name: str) -> tuple[Report, list[str]]:
        try:
            return grading.grade(name, paths, points, seconds, progress)
        except Exception as error:  # the others are graded all the same
            traceback.print_exc()
            return grading.nothing(name, points, f"the grader itself failed: {error}"), []

    pool = ThreadPoolExecutor(jobs)
    try:
        for report, lines in pool.map(one, submissions, names(submissions)):
            progress("")
            yield report  # written before it is printed
            print(table(report, lines), flush=True)
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def names(submissions: list[list[Path]]) -> list[str]:
    """What submissions are called: the last part of their path, or where two would be the same, the path."""
    wholes = [paths[0] if len(paths) == 1 else paths[0].parent for paths in submissions]
    last = [whole.resolve().name for whole in wholes]
    return [name if last.count(name) == 1 else str(whole) for name, whole in zip(last, wholes, strict=True)]


def table(report: Report, lines: Sequence[str] = ()) -> str:
    """A report for people."""
    rows = [f"{report.submission}: {report.total:g} of {report.max:g} points", *lines, ""]
    said: set[str] = set()
    for question in report.questions:
        row = f"  {question.number}  {question.points:>5.4g} of {question.max:<4g} {question.verdict}"
        rows += textwrap.wrap(row, 120, subsequent_indent=" " * 20) or [row]
        texts = [question.hint] * bool(question.hint) + [f"note: {n}" for n in question.notes if n not in said]
        said |= set(question.notes)
        for text in texts:
            rows += textwrap.wrap(text, 100, initial_indent=" " * 20, subsequent_indent=" " * 22)
    return "\n".join([*rows, ""])


def summary(records: Sequence[dict[str, Any]]) -> str:
    """How many submissions, their mean, and those that somebody should look at because nothing was found in them."""
    mean = sum(record["total"] for record in records) / len(records)
    nothing = [r["submission"] for r in records if all(q["verdict"] == "missing" for q in r["questions"])]
    end = f"; nothing to grade in {', '.join(nothing)}" if nothing else ""
    return f"{len(records)} submissions, {mean:.2f} of {records[0]['max']:g} points on average{end}"


def read_csv(path: Path, header: list[str]) -> dict[str, list[Any]]:
    """The lines of an earlier run, by submission: those that are graded again are replaced, the others stay."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and rows[0] != header:
        raise ValueError(f"{path} has other columns than {', '.join(header[:3])}, ...: name another file")
    return {row[0]: row for row in rows[1:]}


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """A line for each submission: its name, its total, and the points of each question."""
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
