"""What a question consists of: the cases that the submission's functions are given, and how the answers are judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from grade.verdict import Finding, Known, judge, worst

Json = dict[str, Any]
Results = Sequence[Json | None]
SLOW = 10.0  # seconds that a case may take without a note


@dataclass
class Trial:
    """One case with one right answer."""

    check: str
    case: Json
    right: Tensor
    known: list[Known] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)  # the right gradients, where more than their being there counts


@dataclass
class Question:
    """A graded question."""

    number: str
    file: str
    functions: tuple[str, ...]  # what has to be there, one of them at least
    scenario: str
    cases: list[Json]
    judge: Callable[[Results, str, float], tuple[list[Finding], list[str]]]
    stand_ins: list[Json] = field(default_factory=list)  # our parts for those that it builds on: sources and names


def question_from(number: str, file: str, functions: tuple[str, ...], scenario: str, trials: list[Trial]) -> Question:
    """A question whose checks are trials; a check of several trials is as good as the worst of them."""

    def judge_all(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        checks: dict[str, list[Finding]] = {}
        for result, trial in zip(results, trials, strict=True):
            found = judge(result, trial.right, trial.known, reason, other_shape, trial.grads)
            checks.setdefault(trial.check, []).append(found)
        return [worst(check, found) for check, found in checks.items()], remarks(results)

    return Question(number, file, functions, scenario, [trial.case for trial in trials], judge_all)


def remarks(results: Results) -> list[str]:
    """Notes that cost nothing."""
    given = [result for result in results if result]
    values = [value for result in given if isinstance(value := result.get("value"), dict)]
    dtypes = {str(value["dtype"]) for value in values if "dtype" in value and not value.get("array")}
    slowest = max((float(result.get("seconds", 0)) for result in given), default=0.0)
    notes = {
        "an input is changed": any(result.get("changed") for result in given),
        "a number or array is returned, not a tensor": any(value.get("array") for value in values),
        f"the result is {', '.join(sorted(dtypes - {'float32'}))} where the inputs are float32": bool(
            dtypes - {"float32"}
        ),
        f"slow: {slowest:.0f} seconds for a call": slowest > SLOW,
    }
    return [note for note, holds in notes.items() if holds]
