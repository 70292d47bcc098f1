"""A sandbox that all tests share, and submissions to grade in it."""

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from grade import grading
from grade.sandbox import Sandbox
from grade.submission import FILES, Source, Submission, read
from grade.verdict import Report, Verdict, read_points

# Without fork, signals and bash, only what the other files test is promised.
collect_ignore = ["test_accidents.py", "test_gradescope.py", "test_mutants.py"] if sys.platform == "win32" else []
RIGHT = Path(__file__).parent / "right"
STYLES = ("loops", "vectorised", "methods")
SECONDS = 60.0  # as usual: the machine may be busy


def right(style: str, file: str) -> str:
    return (RIGHT / style / f"{file}.txt").read_text(encoding="utf-8")


def changed(source: str, function: str, old: str, new: str) -> str:
    """A source with a change in one function or class; an empty ``old`` replaces its whole body."""
    parts = re.split(r"^(?=(?:def|class) )", source, flags=re.MULTILINE)
    (number,) = [n for n, part in enumerate(parts) if re.match(rf"(def|class) {function}\b", part)]
    part = parts[number]
    assert old in part, f"{old!r} is not in {function}"
    parts[number] = part.replace(old, new) if old else f"{part.splitlines()[0]}\n    {new}\n\n"
    return "".join(parts)


@pytest.fixture(scope="session")
def lay_out(tmp_path_factory) -> Callable[..., Path]:
    """Make a submission's folder: the vectorised answers, with some files replaced, added or (None) left out."""

    def make(style: str = "vectorised", **files: str | bytes | None) -> Path:
        folder = tmp_path_factory.mktemp("submission")
        texts = {f"{file}.py": right(style, file) for file in FILES} | files
        for name, text in texts.items():
            if text is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return make


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory):
    made = Sandbox(Submission({}, {}), tmp_path_factory.mktemp("sandbox"), SECONDS)
    yield made
    made.close()


@pytest.fixture(scope="session")
def verdict_of(sandbox, tmp_path_factory) -> Callable[..., Verdict]:
    """The verdict on one question of one file, given as text."""
    questions = {question.number: question for question in grading.questions()}
    points = read_points()

    def judge(number: str, text: str | bytes, seconds: float = SECONDS) -> Verdict:
        question = questions[number]
        path = tmp_path_factory.mktemp("file") / f"{question.file}.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        source: Source = read(path)
        sandbox.submission = Submission({question.file: source}, {question.file: {}})
        sandbox.parts, sandbox.seconds = {}, seconds
        return grading.verdict(question, sandbox.submission, sandbox, points)

    return judge


@pytest.fixture(scope="session")
def grade() -> Callable[..., Report]:
    """The report on a whole submission."""

    def graded(*paths: Path, seconds: float = SECONDS) -> Report:
        return grading.grade("test", paths, read_points(), seconds)[0]

    return graded


def zipped(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                opened.write(path, prefix + str(path.relative_to(folder)))
    return archive
