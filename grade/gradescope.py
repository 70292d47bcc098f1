"""The Gradescope autograder: the package that is uploaded, and what runs in its container.

Source: https://gradescope-autograders.readthedocs.io/en/latest/specs/
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grade.verdict import Report, Shares

FOLDER = Path(__file__).resolve().parent
REFERENCES = ("q1_solution.py", "gan.py", "solution.py")
SECONDS = 20  # for each question: even if none ends by itself, about ten minutes, Gradescope's default
LONGEST = 1000  # characters that are shown of a question

SETUP = """#!/usr/bin/env bash
# Installs Python 3.11 or newer and torch: its build for CPUs where that index can be reached, else the ordinary one.
set -e
root="${AUTOGRADER_ROOT:-/autograder}"
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
apt-get update
apt-get install -y python3 python3-venv
if python3 -c "$new_enough"; then python=python3; else
    apt-get install -y python3.11 python3.11-venv
    python=python3.11
fi
"$python" -m venv "$root/venv"
"$root/venv/bin/pip" install --no-cache-dir torch numpy --index-url https://download.pytorch.org/whl/cpu ||
    "$root/venv/bin/pip" install --no-cache-dir torch numpy
# What submissions often import, though no question needs it.
"$root/venv/bin/pip" install --no-cache-dir matplotlib scipy tqdm || true
"""
RUN = """#!/usr/bin/env bash
# Zero points first, so that there is a result whatever happens; the grader replaces it at its end.
root="${AUTOGRADER_ROOT:-/autograder}"
mkdir -p "$root/results"
cat > "$root/results/results.json" <<'END'
%s
END
python="$root/venv/bin/python"
[ -x "$python" ] || python=python3
cd "$root/source" && "$python" -m grade.gradescope "$root"
exit 0
"""


def write_package(path: Path, points: "Shares", file: Path) -> str:
    """Write the zip that is uploaded as an autograder.

    Args:
        path: The zip.
        points: The points of each question.
        file: The file that they were read from, which goes with the package.
    """
    from grade.grading import questions
    from grade.verdict import Report, Verdict

    text = "the autograder did not finish: please tell the teaching staff"
    zeros = [Verdict(q.number, 0.0, float(points[q.number]["points"]), text) for q in questions()]
    zero = json.dumps(results(Report("", zeros), []), indent=1)
    parts = {"setup.sh": SETUP, "run_autograder": RUN % zero}
    for module in sorted([*FOLDER.glob("*.py"), *FOLDER.glob("*.toml")]):
        if module.name != "handout.py":
            parts[f"grade/{module.name}"] = module.read_text(encoding="utf-8")
    parts["grade/points.toml"] = file.read_text(encoding="utf-8")
    parts |= {name: (FOLDER.parent / name).read_text(encoding="utf-8") for name in REFERENCES}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whose permissions these are
            entry.external_attr = (0o755 if name in ("setup.sh", "run_autograder") else 0o644) << 16
            package.writestr(entry, content)
    return f"{path}: upload it as the autograder, and choose a container of 1 CPU and 1.5 GB or more"


def results(report: "Report", lines: list[str]) -> dict[str, Any]:
    """A report in Gradescope's format.

    What a submission printed and the texts of its errors are left out: they may be the hidden checks' inputs.
    """
    from grade.verdict import without_text

    tests = []
    for question in report.questions:
        notes = ["note: it prints" if note.startswith("it prints") else f"note: {note}" for note in question.notes]
        output = "\n".join(filter(None, [question.verdict, without_text(question.hint), *notes]))
        tests.append(
            {
                "number": question.number,
                "name": f"question {question.number}",
                "score": question.points,
                "max_score": question.max,
                "status": "passed" if question.points == question.max else "failed",
                "output": output[:LONGEST],
                "output_format": "text",
                "visibility": "visible",
            }
        )
    return {
        "score": report.total,
        "output": "\n".join([f"{report.total:g} of {report.max:g} points", *lines]),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def run(root: Path) -> None:
    """Grade what was submitted, and replace the results."""
    from grade.grading import grade
    from grade.verdict import read_points

    report, lines = grade("submission", [root / "submission"], read_points(), SECONDS)
    out = root / "results" / "results.json"
    unfinished = out.with_suffix(".part")
    unfinished.write_text(json.dumps(results(report, lines), indent=1), encoding="utf-8")
    unfinished.replace(out)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
