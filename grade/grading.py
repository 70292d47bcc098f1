"""Grades one submission, question by question."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from grade import question1, question2, question3
from grade.question import Json, Question
from grade.sandbox import Sandbox
from grade.submission import Source, Submission, SubmissionError, idle, open_submission
from grade.verdict import NOT_ATTEMPTED, Report, Shares, Verdict, combine


@functools.cache
def questions() -> list[Question]:
    """The graded questions in their order."""
    return [*question1.questions(), *question2.questions(), *question3.questions()]


def grade(
    name: str,
    paths: Sequence[Path],
    points: Shares,
    seconds: float = 60.0,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Report, list[str]]:
    """Grade a submission: its report, and lines on what was not found."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as folder:
        try:
            submission = open_submission(list(paths), Path(folder))
        except (SubmissionError, OSError) as error:
            return nothing(name, points, str(error)), [str(error)]
        sandbox = Sandbox(submission, Path(folder), seconds)
        try:
            verdicts = []
            for question in questions():
                progress(f"{name}: question {question.number}")
                verdicts.append(verdict(question, submission, sandbox, points))
        finally:
            sandbox.close()
    return Report(name, verdicts), submission.lines


def nothing(name: str, points: Shares, hint: str) -> Report:
    """The report on a submission that cannot be graded."""
    return Report(name, [_zero(question, points, "missing", hint) for question in questions()])


def _zero(question: Question, points: Shares, verdict: str, hint: str) -> Verdict:
    return Verdict(question.number, 0.0, float(points[question.number]["points"]), verdict, hint)


def verdict(question: Question, submission: Submission, sandbox: Sandbox, points: Shares) -> Verdict:
    """The verdict on one question: with the submission's own parts, or with ours in the place of faulty ones."""
    source = submission.sources.get(question.file)
    if source is None:
        return _zero(question, points, "missing", f"there is no {question.file}.py")
    if idle(source, question.functions):
        return _zero(question, points, NOT_ATTEMPTED, "the function does nothing yet")
    best = _with(question, source, sandbox, points, None)
    for number, stand_in in enumerate(question.stand_ins):
        if best.points == best.max or best.verdict == "missing":
            break
        found = _with(question, source, sandbox, points, stand_in)
        if found.points > best.points:
            found.notes.append("judged with correct parts in the place of this file's other functions")
            best = found
        # What is wrong with our parts too is wrong with this question; LAST_DIMENSION is no reference.
        elif found.points == best.points and (number == 0 or NOT_ATTEMPTED in (best.verdict, found.verdict)):
            best = found
    heads = {function.split(".")[0] for function in question.functions}
    broken = [why for name, why in source.broken.items() if name in heads]
    if broken and best.points < best.max:
        best.verdict, best.hint = best.verdict.replace("missing", "wrong"), broken[0]
    return best


def _with(question: Question, source: Source, sandbox: Sandbox, points: Shares, stand_in: Json | None) -> Verdict:
    answers = sandbox.run(question.file, question.scenario, question.cases, stand_in)
    try:
        findings, notes = question.judge(answers.results, answers.reason, float(points["other_shape"]))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        return _zero(question, points, "wrong", f"what came back cannot be read: {error}")
    if answers.printed.strip():
        notes.append(f"it prints: {' '.join(answers.printed.split())[:60]}")
    found = combine(question.number, findings, points, [*source.notes, *answers.notes, *notes])
    if found.points == 0 and found.hint.startswith("there is no "):
        found.verdict = "missing"
    return found
