"""Question 3: the planar transformation, its log-determinant, and the two losses of a flow."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import solution
from grade.penalties import random
from grade.question import Json, Question, Results, Trial, question_from, remarks
from grade.verdict import NO_GRADIENT, Finding, Known, compare, failure, flows, judge, known, worst

FILE = "solution"


def questions() -> list[Question]:
    return [
        _forms("3.1", "planar_transformation", ["planar_transformation", "forward"]),
        _forms("3.4", "get_logdet", ["get_logdet"]),
        _loss1(),
        _loss2(),
    ]


def _layer(seed: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters with w·u > 0, where no layer needs an adjustment."""
    u, w = random(seed, 1, dim), random(seed + 1, 1, dim)
    return u * (u * w).sum().sign(), w, 0.5 * random(seed + 2, 1)


def _forms(number: str, name: str, methods: list[str]) -> Question:
    """A question that a function of the module answers, or a method of ``PlanarTransformation``: the better one counts.

    A function may take u and w as ``(1, d)`` and b as ``(1,)``, or as ``(d,)`` and a scalar.
    """
    forms = []
    for trial in _planar_trials(name):
        flat = {key: trial.case[key].reshape(-1) for key in "uw"} | {"b": trial.case["b"].reshape(())}
        for form, changes in (("function", {}), ("function", flat), ("method", {})):
            case = trial.case | changes | {"form": form, "function": name, "methods": methods}
            forms.append(Trial(trial.check, case, trial.right, trial.known))

    def judge_best(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        judged = []
        for form in range(3):
            checks: dict[str, list[Finding]] = {}
            for trial, result in zip(forms[form::3], results[form::3], strict=True):
                right = _of_layer(name, trial, result) if form == 2 else trial.right
                found = judge(result, right, trial.known, reason, other_shape)
                checks.setdefault(trial.check, []).append(found)
            judged.append([worst(check, found) for check, found in checks.items()])
        there = [found for found in judged if not found[0].hint.startswith("there is no ")] or judged[:1]
        best = max(there, key=lambda found: (sum(f.score for f in found), any(f.attempted for f in found)))
        return best, remarks(results)

    return Question(
        number,
        FILE,
        (name, *(f"PlanarTransformation.{m}" for m in methods)),
        "planar",
        [t.case for t in forms],
        judge_best,
    )


def _of_layer(name: str, trial: Trial, result: Json | None) -> Tensor:
    """What is right for the parameters that a layer has after the call, since it may have adjusted u."""
    layer = (result or {}).get("layer")
    if not layer:
        return trial.right
    u, w, b = (torch.tensor(layer[key]["tensor"], dtype=torch.float64) for key in "uwb")
    x = trial.case["x"].double()
    function = getattr(solution, name)
    given = function(x, u, w, b.reshape(()))
    adjusted = function(x, u + _always(u, w), w, b.reshape(()))
    values = result["value"].get("tensor") if isinstance(result, dict) else None
    if values and len(values) == adjusted.numel():
        returned = torch.tensor(values, dtype=torch.float64)
        if (returned - adjusted.flatten()).abs().max() < (returned - given.flatten()).abs().max():
            return adjusted
    return given


def _always(u: Tensor, w: Tensor) -> Tensor:
    """The change of u where it is made for every w·u, as the article has it."""
    wu = (w * u).sum()
    return (torch.nn.functional.softplus(wu) - 1 - wu) * w / w.square().sum()


def _planar_trials(name: str) -> list[Trial]:
    trials = []
    for check, count, dim in (("values", 6, 2), ("values", 4, 3), ("B = 1", 1, 2)):
        x, (u, w, b) = random(70 + count, count, dim), _layer(80 + count, dim)
        exact = {"x": x.double(), "u": u.double(), "w": w.double(), "b": b.double()}
        a = (exact["x"] * exact["w"]).sum(1, keepdim=True) + exact["b"]
        output = (solution.planar_transformation(**exact) * exact["w"]).sum(1, keepdim=True) + exact["b"]
        slopes = {"h": 1 - torch.tanh(a) ** 2, "moved": 1 - torch.tanh(output) ** 2}
        wrong = known(name, a=a, wu=(exact["u"] * exact["w"]).sum(), **slopes, **exact)
        trials.append(Trial(check, {"x": x, "u": u, "w": w, "b": b}, getattr(solution, name)(**exact), wrong))
    return trials


def _loss_trials(name: str) -> list[Trial]:
    trials = []
    for check, count, dim in (("values", 6, 2), ("values", 4, 3), ("B = 1", 1, 2)):
        z0, logdet, energy = random(110 + count, count, dim), random(120 + count, count, 1), random(130 + count, count)
        energy = energy + 1
        z, ld, e = z0.double(), logdet.double(), energy.double()[:, None]
        n, s = -solution.loss1(z, 0 * ld), z.square().sum(1, keepdim=True) / 2
        first = name == "loss1"
        # The second loss's z0 is noise, which nothing trains.
        arguments, leaves = ([z0, logdet], [0, 1]) if first else ([energy, z0, logdet], [0, 2])
        case = {"function": name, "args": arguments, "leaves": leaves}
        wrong = known(name, z=z, ld=ld, e=e, n=n, s=s, D=dim)
        trials.append(Trial(check, case, -n - ld if first else n + e - ld, wrong))
    return trials


def _loss1() -> Question:
    simple = question_from("3.6", FILE, ("loss1",), "call", _loss_trials("loss1"))
    flow, flow_right, flow_wrong = _flow_case()

    def judge_all(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        findings, notes = simple.judge(results[:-1], reason, other_shape)
        chain = _judge_flow(results[-1], reason, other_shape, flow_right, flow_wrong)
        chain.score *= findings[0].score  # what a loss in another shape is worth, the flow that it needs is worth too
        return [*findings, chain], notes

    text = Path(solution.__file__).read_text(encoding="utf-8")
    names = ["planar_transformation", "get_logdet", "PlanarTransformation"]
    cases = [*({**case, "scenario": "call"} for case in simple.cases), flow]
    return Question("3.6", FILE, ("loss1",), "either", cases, judge_all, [{"source": text, "names": names}])


def _flow_case() -> tuple[Json, list[Known], list[tuple[Known, Known]]]:
    """A flow's case, the points and log-determinant that are right, and pairs that are known to be wrong."""
    layers = [_layer(140 + 3 * n, 2) for n in range(3)]
    xs, lds, after = [random(139, 5, 2).double()], [], []
    for u, w, b in ([part.double() for part in layer] for layer in layers):
        lds.append(solution.get_logdet(xs[-1], u, w, b))
        xs.append(solution.planar_transformation(xs[-1], u, w, b))
        after.append(solution.get_logdet(xs[-1], u, w, b))
    wrong = known("Flow", xs=xs, lds=lds, after=after)
    right = [Known(xs[-1], "points"), Known(torch.stack(lds).sum(0), "log-determinant")]
    parameters = {name: [layer[n] for layer in layers] for n, name in enumerate("uwb")}
    return (
        {"scenario": "flow", "x": xs[0].float(), **parameters},
        right,
        list(zip(wrong[::2], wrong[1::2], strict=True)),
    )


def _judge_flow(
    result: Json | None, reason: str, other_shape: float, right: list[Known], wrong: list[tuple[Known, Known]]
) -> Finding:
    """The chain of layers. A submission without a ``Flow`` loses nothing: the question asks for a loss."""
    failed = failure(result, reason)
    if failed and failed.hint.startswith("there is no Flow"):
        return Finding("flow", 1)
    if failed or result is None:
        hint = failed.hint if failed else reason
        return Finding("flow", 0, f"loss1 is right, and the flow fails: {hint}")
    items = result["value"].get("items") or []
    if len(items) != 2:
        return Finding("flow", 0, "the flow must return the points and their log-determinant")

    def fits(pair: Sequence[Known]) -> list[bool]:
        return [compare(item, part.values, (), 1.0).score == 1 for item, part in zip(items, pair, strict=True)]

    if all(fits(right)):
        if all(map(flows, result["grads"])):
            return Finding("flow", 1)
        return Finding("flow", other_shape, f"the flow gives {NO_GRADIENT}")
    hint = next((pair[0].hint for pair in wrong if all(fits(pair))), "")
    return Finding("flow", 0, hint or f"wrong in the flow's output: its {right[fits(right).index(False)].hint}")


def _loss2() -> Question:
    return question_from("3.8", FILE, ("loss2",), "call", _loss_trials("loss2"))
