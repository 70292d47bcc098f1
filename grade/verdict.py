"""From what a submission's functions returned to points, a verdict and a hint."""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grade.scenarios import decode

POINTS = Path(__file__).with_name("points.toml")
HINTS = tomllib.loads(Path(__file__).with_name("hints.toml").read_text(encoding="utf-8"))
FUNCTIONS = {name: getattr(torch, name) for name in ("abs", "exp", "log", "sigmoid", "sqrt", "tanh")}
TOLERANCE = 1e-3
Json = dict[str, Any]
Shares = Mapping[str, Any]
NOT_ATTEMPTED = "not attempted"
NO_GRADIENT = "no gradient: do not detach, and keep to torch"


class PointsError(Exception):
    """A file of points cannot be used."""


@dataclass
class Finding:
    """What one check found: the share of it that is right, and what is probably wrong."""

    check: str
    score: float
    hint: str = ""
    attempted: bool = True


@dataclass
class Verdict:
    """One question's result, as it is printed and written."""

    number: str
    points: float
    max: float
    verdict: str
    hint: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Report:
    """A submission's result."""

    submission: str
    questions: list[Verdict]

    @property
    def total(self) -> float:
        return round(sum(question.points for question in self.questions), 2)

    @property
    def max(self) -> float:
        return round(sum(question.max for question in self.questions), 2)

    def as_json(self) -> Json:
        questions = [asdict(question) for question in self.questions]
        return {"submission": self.submission, "total": self.total, "max": self.max, "questions": questions}


def read_points(path: Path = POINTS) -> Shares:
    """The points of each question and the shares of its checks.

    Raises:
        PointsError: The file cannot be read, or a question or check is missing.
    """
    try:
        with path.open("rb") as file:
            points = tomllib.load(file)
        with POINTS.open("rb") as file:
            ours = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PointsError(f"{path} cannot be read: {error}") from error
    for number, shares in ours.items():
        missing = [key for key in shares if key not in points.get(number, {})] if isinstance(shares, dict) else []
        if number not in points or missing:
            what = f"{', '.join(missing) or 'an entry'} of {number}"
            raise PointsError(f"{path} lacks {what}: change numbers in a whole copy of {POINTS.name}")
        values = list(points[number].values()) if isinstance(shares, dict) else [points[number]]
        if not all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values):
            raise PointsError(f"{path}: the numbers of {number} must be numbers of at least 0, without quotes")
        if isinstance(shares, dict) and not math.isclose(sum(values) - points[number]["points"], 1, abs_tol=1e-6):
            raise PointsError(f"{path}: the shares of {number} must add up to 1")
    return points


def combine(number: str, findings: Sequence[Finding], points: Shares, notes: Sequence[str] = ()) -> Verdict:
    """A question's verdict from its findings.

    The check called ``values`` is what the others build on: without it they count nothing.
    """
    shares, most = points[number], float(points[number]["points"])
    scores = {finding.check: finding.score for finding in findings}
    share = sum(shares[finding.check] * finding.score for finding in findings)
    if scores.get("values", 1) == 0:
        share = 0.0
    hints: dict[str, str] = {}  # and the check that each is about
    for finding in findings:
        if finding.hint and finding.score < 1:
            hints.setdefault(finding.hint, finding.check)
    hint, *others = hints or [""]
    others = [other for other in others if not other.startswith("the values are wrong")]
    hint = "; ".join([hint, *(f"{hints[other]}: {other}" for other in others)])
    if share > 1 - 1e-9:
        return Verdict(number, most, most, "right", "", list(notes))
    if not any(finding.attempted for finding in findings):
        return Verdict(number, 0.0, most, NOT_ATTEMPTED, hint or "the function does nothing yet", list(notes))
    if share == 0:
        return Verdict(number, 0.0, most, "wrong", hint, list(notes))
    right = [finding.check for finding in findings if finding.score == 1]
    partly = [finding.check for finding in findings if 0 < finding.score < 1]
    wrong = [finding.check for finding in findings if finding.score == 0]
    named = [("right", right), ("half right", partly), ("wrong", wrong)]
    verdict = "; ".join(f"{word}: {', '.join(checks)}" for word, checks in named if checks)
    return Verdict(number, round(most * share, 2), most, f"partly right ({verdict})", hint, list(notes))


@dataclass
class Known:
    """A known wrong answer: its values, and the hint that belongs to it."""

    values: Tensor
    hint: str


def known(section: str, **names: Any) -> list[Known]:
    """The known wrong answers of a section of ``hints.toml``, computed from the names that it uses."""
    space = {"torch": torch, "F": torch.nn.functional, "math": math, **FUNCTIONS, **names}
    found = []
    for hint, expressions in HINTS[section].items():
        for expression in [expressions] if isinstance(expressions, str) else expressions:
            found.append(Known(torch.as_tensor(eval(expression, space)).detach(), hint))
    return found


def judge(
    result: Json | None,
    right: Tensor,
    known: Sequence[Known],
    reason: str,
    other_shape: float,
    grads: Sequence[Tensor] = (),
) -> Finding:
    """Compare one returned value with the right one, then with known wrong ones. The finding's check is left empty.

    Right values without a gradient, where the case asks for it, count as much as those of another shape. So do those
    with another gradient than ``grads``.
    """
    failed = failure(result, reason)
    if failed:
        return failed
    assert result is not None
    found = compare(result.get("value"), right, known, other_shape)
    if not found.score:
        return found
    given = result.get("grads", [])
    if grads and given:
        zero = {"tensor": [0.0], "shape": []}
        exact = [decode({**(grad or zero), "dtype": "float64"}) for grad in given]
        if all(close(mine.expand_as(g).flatten(), g.flatten()) for mine, g in zip(exact, grads, strict=True)):
            return found
        fault = "its gradient is wrong: is a part detached?" if any(map(flows, given)) else NO_GRADIENT
    elif all(map(flows, given)):
        return found
    else:
        fault = NO_GRADIENT
    return Finding("", found.score * other_shape, "; ".join(filter(None, [found.hint, fault])))


def flows(grad: Any) -> bool:
    """Whether a gradient that was sent is there, and is not zero."""
    return isinstance(grad, dict) and isinstance(grad.get("tensor"), list) and any(grad["tensor"])


def failure(result: Json | None, reason: str) -> Finding | None:
    """The finding where a case gave an error or nothing at all; None where it gave something."""
    if result is None:
        return Finding("", 0, reason or "no answer came back")
    if "says" in result:
        return Finding("", 0, str(result["says"]))
    if "error" not in result:
        return None
    if result["kind"] == "LookupError" and result.get("line") is None:
        return Finding("", 0, f"there is no {result['error'].split(': ')[-1]}")
    if result["not_implemented"]:
        return Finding("", 0, "it is marked as not implemented", attempted=False)
    return Finding("", 0, explain(result))


def explain(result: Json) -> str:
    """What an error probably means, its type and line, and last its text, which :func:`without_text` cuts."""
    error, line = str(result["error"]), result.get("line")
    where = f" (line {line})" if line else ""
    kind, _, text = error.partition(": ")
    end = f"{where}: {text}" if text else where
    if result["kind"] in ("SystemExit", "KeyboardInterrupt"):
        return f"it leaves the program by {kind}{end}"
    known = {
        "bitwise_xor": "^ is exclusive or in Python: the power is **",
        "for ^:": "^ is exclusive or in Python: the power is **",
        "CUDA": "it asks for a GPU, and there is none here: use the device of the inputs",
        "NVIDIA": "it asks for a GPU, and there is none here: use the device of the inputs",
        "allocate memory": "it asks for too much memory",
        "Unable to allocate": "it asks for too much memory",
        "MemoryError": "it asks for too much memory",
        "view size is not compatible": "view does not work on an expanded tensor: use reshape",
        "does not require grad": "a gradient is asked of something that does not require one",
        "StopIteration": "it draws more batches than a step needs: does its loop end?",
        "backward through the graph a second time": "a graph is used twice: draw again, or detach",
    }
    meaning = next((text for sign, text in known.items() if sign.lower() in error.lower()), "")
    return f"{meaning}: it raises {kind}{end}" if meaning else f"it raises {kind}{end}"


def without_text(hint: str) -> str:
    """A hint without the text of an error, which is the submission's and may name the hidden checks' inputs."""
    return re.sub(
        r"(it raises|it leaves the program by) (\w{1,40})\w*( \(line \d+\))?.*", r"\1 \2\3", hint, flags=re.DOTALL
    )


def compare(answer: Any, right: Tensor, known: Sequence[Known] = (), other_shape: float = 0.5) -> Finding:
    """Compare an encoded value with the right one, by values and shape; a scalar may have any shape of one element."""
    if not isinstance(answer, dict):
        return Finding("", 0, "what came back cannot be read")
    if "tensor" not in answer:
        if answer.get("object") is None:
            return Finding("", 0, "nothing is returned", attempted=False)
        return Finding("", 0, f"a {answer['object']} is returned, not a tensor")
    shape, right = tuple(answer["shape"]), right.double()
    if answer["tensor"] is None:
        return Finding("", 0, f"the shape is {shape}, not {tuple(right.shape)}")
    values = decode({**answer, "dtype": "float64"})
    if values.numel() == right.numel() and close(values.flatten(), right.flatten()):
        if shape == tuple(right.shape) or right.dim() == 0:
            return Finding("", 1)
        return Finding("", other_shape, f"the values are right, the shape is {shape} and not {tuple(right.shape)}")
    return Finding("", 0, wrong(values, right, known))


def wrong(values: Tensor, right: Tensor, known: Sequence[Known]) -> str:
    """What is probably wrong with values."""
    if values.numel() == right.numel() and values.isnan().any() and not right.isnan().any():
        return "not a number (NaN): a logarithm or root of something negative, or infinity minus infinity"
    flat = values.flatten()
    for candidate in known:
        other = candidate.values.double().flatten()
        if other.numel() == flat.numel() and close(flat, other) and not close(other, right.flatten()[: other.numel()]):
            return candidate.hint
    general = _general(flat, right.flatten())
    if general:
        return general
    if values.shape != right.shape:
        batch = len(right) if right.dim() else 0
        if batch > 1 and values.dim() >= 2 and list(values.shape).count(batch) >= 2:
            return f"a {_shape(values)} matrix, not {_shape(right)}: (B,) and (B, 1) are broadcast against each other"
        if values.numel() == 1 and right.numel() > 1:
            return "one number for the whole batch: return one for each sample"
        return f"the shape is {_shape(values)}, not {_shape(right)}"
    if not values.isfinite().all() and right.isfinite().all():
        return "infinite: an overflow, or the logarithm of zero"
    worst = (values - right).abs().argmax()
    return f"the values are wrong: {flat[worst].item():.5g} where {right.flatten()[worst].item():.5g} is right"


def _general(flat: Tensor, right: Tensor) -> str:
    """Mistakes that every formula can have."""
    if flat.numel() == 1 and right.numel() > 1:
        for value, hint in ((right.sum(), "sum"), (right.mean(), "mean")):
            if close(flat, value.reshape(1)):
                return f"one number for the whole batch, the {hint} over it: return one for each sample"
    if flat.numel() != right.numel():
        return ""
    for factor, hint in (
        (-1, "the sign is turned"),
        (2, "twice the right value: a factor 1/2 is missing"),
        (0.5, "half the right value: a factor 1/2 too much"),
    ):
        if close(flat, factor * right):
            return hint
    if close(flat, right.abs()):
        return "the absolute value is taken"
    return ""


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def close(values: Tensor, right: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Equal up to the relative tolerance, of each value and of their common size."""
    if values.shape != right.shape:
        return False
    if right.isfinite().all() and not values.isfinite().all():
        return False
    finite = right[right.isfinite()]
    size = finite.abs().mean().item() if len(finite) else 0.0
    return torch.allclose(values, right, rtol=tolerance, atol=tolerance * max(size, 1e-3) * 0.5, equal_nan=True)


def worst(check: str, findings: Sequence[Finding]) -> Finding:
    """One finding of several cases: the lowest score, with its hint. It is attempted if one of them is."""
    least = min(findings, key=lambda finding: finding.score)
    hint = next((f.hint for f in findings if f.score == least.score and f.attempted and f.hint), least.hint)
    return Finding(check, least.score, hint, any(finding.attempted for finding in findings))
