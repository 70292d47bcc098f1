"""Grades one submission, question by question."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from grade import question1, question2, question3
from grade.question import Question
from grade.sandbox import Sandbox
from grade.submission import FILES, Source, Submission, SubmissionError, idle, open_submission
from grade.verdict import NOT_ATTEMPTED, Report, Shares, Verdict, combine


@functools.cache
def questions() -> list[Question]:
    """The graded questions in their order."""
    return [*question1.questions(), *question2.questions(), *question3.questions()]


def grade(
    paths: Sequence[Path], points: Shares, seconds: float = 60.0, progress: Callable[[str], None] = lambda _: None
) -> tuple[Report, list[str]]:
    """Grade a submission: its report, and lines on what was not found."""
    torch.set_num_threads(1)
    name = _label(paths)
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as folder:
        try:
            submission = open_submission(list(paths), Path(folder))
        except (SubmissionError, OSError) as error:
            return nothing(paths, points, str(error)), [str(error)]
        missing = [f"{file}.py" for file in FILES if file not in submission.sources]
        lines = [f"not found: {', '.join(missing)}"] if missing else []
        sandbox = Sandbox(submission, Path(folder), seconds)
        try:
            verdicts = []
            for question in questions():
                progress(f"{name}: question {question.number}")
                verdicts.append(verdict(question, submission, sandbox, points))
        finally:
            sandbox.close()
    return Report(name, verdicts), lines


def nothing(paths: Sequence[Path], points: Shares, hint: str) -> Report:
    """The report on a submission that cannot be graded."""
    return Report(_label(paths), [_nothing(question, points, hint) for question in questions()])


def _label(paths: Sequence[Path]) -> str:
    return paths[0].resolve().name if len(paths) == 1 else paths[0].resolve().parent.name


def _nothing(question: Question, points: Shares, hint: str) -> Verdict:
    return Verdict(question.number, 0.0, float(points[question.number]["points"]), "missing", hint)


def verdict(question: Question, submission: Submission, sandbox: Sandbox, points: Shares) -> Verdict:
    source = submission.sources.get(question.file)
    if source is None:
        return _nothing(question, points, f"there is no {question.file}.py")
    broken = [why for name, why in source.broken.items() if name in question.functions]
    best: Verdict | None = None
    for stand_in in (None, *question.stand_ins):
        found = _with(question, source, sandbox, points, stand_in)
        if (
            best is None
            or found.points > best.points
            or (found.points == best.points == 0 and best.verdict != NOT_ATTEMPTED)
        ):
            best = found
        if found.points == found.max or found.verdict in (NOT_ATTEMPTED, "missing") or "no answer within" in found.hint:
            break
    assert best
    if broken and best.points < best.max:
        best.hint = broken[0]
    return best


def _with(question: Question, source: Source, sandbox: Sandbox, points: Shares, stand_in: dict | None) -> Verdict:
    """The verdict with the submission's own parts, or with ours in the place of some."""
    answers = sandbox.run(question.file, question.scenario, question.cases, stand_in)
    try:
        findings, notes = question.judge(answers.results, answers.reason, float(points["other_shape"]))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        return Verdict(
            question.number,
            0.0,
            float(points[question.number]["points"]),
            "wrong",
            f"what came back cannot be read: {error}",
        )
    if not any(finding.score for finding in findings) and idle(source, question.functions):
        for finding in findings:
            finding.attempted, finding.hint = False, ""
    if "it prints" in notes and answers.printed:
        notes[notes.index("it prints")] = f"it prints: {' '.join(answers.printed.split())[:60]}"
    verdict = combine(question.number, findings, points, [*source.notes, *answers.notes, *notes])
    if verdict.points == 0 and verdict.hint.startswith("there is no "):
        verdict.verdict = "missing"
    return verdict
