"""Question 3: the planar transformation, its log-determinant, and the two losses of a flow."""

import math
from pathlib import Path

import torch
from torch import Tensor

import solution
from grade.question import Json, Question, Results, Trial, of_trials, remarks
from grade.verdict import Finding, Known, compare, failure, judge, worst

FILE = "solution"
LOG_2PI = math.log(2 * math.pi)


def questions() -> list[Question]:
    return [_planar(), _logdet(), _loss1(), _loss2()]


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _layer(seed: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters with w·u > 0, where no layer needs an adjustment."""
    u, w = _random(seed, 1, dim), _random(seed + 1, 1, dim)
    return u * (u * w).sum().sign(), w, 0.5 * _random(seed + 2, 1)


def _slope(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return 1 - torch.tanh((x * w).sum(1, keepdim=True) + b) ** 2


def _forms(number: str, name: str, methods: list[str], trials: list[Trial]) -> Question:
    """A question that a function of the module answers, or a method of ``PlanarTransformation``: the better one counts.

    A function may take u and w as ``(1, d)`` and b as ``(1,)``, or as ``(d,)`` and a scalar.
    """
    forms = []
    for trial in trials:
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
                found = judge(result, "value", right, trial.known, reason, other_shape)
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
    adjusted = function(x, solution.invertible_u(u, w) if (u * w).sum() < -1 else u + _always(u, w), w, b.reshape(()))
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


def _planar() -> Question:
    trials = []
    for check, count, dim in (("values", 5, 2), ("values", 4, 3), ("B = 1", 1, 2)):
        x, (u, w, b) = _random(70 + count, count, dim), _layer(80 + count, dim)
        exact, du, dw, db = x.double(), u.double(), w.double(), b.double()
        a = (exact * dw).sum(1, keepdim=True) + db
        known = [
            (exact + du * torch.tanh(exact * dw + db), "w·x is taken element by element: sum over the dimensions"),
            (exact + du * torch.tanh(a - db), "b is missing"),
            (exact + torch.tanh(a), "u is missing"),
            (du * torch.tanh(a), "x is missing: the map adds to it"),
            (exact + du * a, "tanh is missing"),
            (exact + du * torch.sigmoid(a), "h is tanh, not the sigmoid"),
            (exact + du * torch.relu(a), "h is tanh, not a rectifier"),
            (exact + dw * torch.tanh((exact * du).sum(1, keepdim=True) + db), "u and w are swapped"),
            (exact - du * torch.tanh(a), "the sign of u is turned"),
            (exact + du * torch.tanh(a - 2 * db), "the sign of b is turned"),
            (exact + du * (1 - torch.tanh(a) ** 2), "this is tanh's derivative, not tanh"),
        ]
        right = solution.planar_transformation(exact, du, dw, db)
        trials.append(Trial(check, {"x": x, "u": u, "w": w, "b": b}, right, [Known(*other) for other in known]))
    return _forms("3.1", "planar_transformation", ["planar_transformation", "forward"], trials)


def _logdet() -> Question:
    trials = []
    for check, count, dim in (("values", 6, 2), ("values", 4, 3), ("B = 1", 1, 2)):
        x, (u, w, b) = _random(90 + count, count, dim), _layer(100 + count, dim)
        exact, du, dw, db = x.double(), u.double(), w.double(), b.double()
        slope, wu = _slope(exact, dw, db), (du * dw).sum()
        moved = solution.planar_transformation(exact, du, dw, db)
        a = (exact * dw).sum(1, keepdim=True) + db
        known = [
            (
                torch.log((1 + _slope(moved, dw, db) * wu).abs()),
                "it is taken at the layer's output: it must be taken at its input x",
            ),
            (1 + slope * wu, "the logarithm is missing"),
            (torch.log((slope * wu).abs()), "the 1 is missing: det = 1 + u·psi"),
            (torch.log((1 - slope * wu).abs()), "the sign of u·psi is turned"),
            (-torch.log((1 + slope * wu).abs()), "the sign is turned: this is the log-determinant of the inverse"),
            (torch.log((1 + torch.tanh(a) * wu).abs()), "psi has the derivative of tanh, 1 - tanh², not tanh"),
            (torch.log((1 + slope * (du**2).sum()).abs()), "psi is (1 - tanh²) w, not (1 - tanh²) u"),
            (torch.log((1 + slope * (dw**2).sum()).abs()), "u is missing: det = 1 + u·psi"),
            (torch.log((1 + _slope(exact, dw, 0 * db) * wu).abs()), "b is missing"),
            (torch.log((1 + (1 - torch.tanh(a)) * wu).abs()), "the tanh is not squared in its derivative 1 - tanh²"),
            (torch.log1p(slope * dw * du), "u·psi is taken element by element: sum over the dimensions"),
            (
                torch.log(1 + ((1 - torch.tanh(exact * dw + db) ** 2) * dw * du).sum(1, keepdim=True)),
                "w·x is taken element by element: sum over the dimensions",
            ),
        ]
        right = solution.get_logdet(exact, du, dw, db)
        trials.append(Trial(check, {"x": x, "u": u, "w": w, "b": b}, right, [Known(*other) for other in known]))
    return _forms("3.4", "get_logdet", ["get_logdet"], trials)


def _losses(dim: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z0, logdet and energies, and the log-density of z0 under a standard normal."""
    z0, logdet, energy = (
        _random(110 + count, count, dim),
        _random(120 + count, count, 1),
        _random(130 + count, count) + 1,
    )
    return z0, logdet, energy, solution.log_standard_normal(z0.double())


def _loss1() -> Question:
    trials = []
    for check, count, dim in (("values", 6, 2), ("values", 4, 3), ("B = 1", 1, 2)):
        z0, logdet, _, density = _losses(dim, count)
        exact = logdet.double()
        half_square = 0.5 * z0.double().square().sum(1, keepdim=True)
        known = [
            (-density + exact, "the sign of the log-determinant is turned"),
            (density + exact, "this is the log-likelihood: the loss is its negative"),
            (density - exact, "the sign of log N(z0; 0, I) is turned"),
            (-density, "the log-determinant is missing"),
            (half_square - exact, "the constant D/2 log 2π is missing"),
            (half_square - exact + 0.5 * LOG_2PI, "the constant is D/2 log 2π, not 1/2 log 2π"),
            (2 * half_square + 0.5 * dim * LOG_2PI - exact, "the factor 1/2 before the square is missing"),
            (-density / dim - exact, "the mean over the dimensions is taken, not the sum"),
            ((-density - exact).mean(), "one number for the whole batch, its mean: return one for each point, (B, 1)"),
            (-density.squeeze(1) - exact, "a (B, B) matrix: keep the sum's dimension, since logdet is (B, 1)"),
            (-density - exact.squeeze(1), "a (B, B) matrix: keep the dimension of logdet, which is (B, 1)"),
            (0.5 * (z0.double() ** 2 + LOG_2PI) - exact, "the sum over the dimensions is missing"),
            (-density.exp() - exact, "the logarithm of the density is missing"),
        ]
        case = {"function": "loss1", "args": [z0, logdet]}
        trials.append(Trial(check, case, -density - exact, [Known(*other) for other in known]))
    simple = of_trials("3.6", FILE, ("loss1",), "call", trials)
    flow, flow_right, flow_known = _flow_case()

    def judge_all(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        findings, notes = simple.judge(results[:-1], reason, other_shape)
        chain = _judge_flow(results[-1], reason, flow_right, flow_known)
        chain.score *= findings[0].score  # what a loss in another shape is worth, the flow that it needs is worth too
        return [*findings, chain], notes

    text = Path(solution.__file__).read_text(encoding="utf-8")
    names = ["planar_transformation", "get_logdet", "PlanarTransformation"]
    cases = [*({**case, "scenario": "call"} for case in simple.cases), flow]
    return Question("3.6", FILE, ("loss1",), "either", cases, judge_all, [{"source": text, "names": names}])


def _flow_case() -> tuple[Json, tuple[Tensor, Tensor], list[tuple[Tensor, Tensor, str]]]:
    layers = [_layer(140 + 3 * n, 2) for n in range(3)]
    x = _random(139, 5, 2)
    exact = [[part.double() for part in layer] for layer in layers]
    right = solution.chain(x.double(), [tuple(layer) for layer in exact])
    first = solution.chain(x.double(), [tuple(exact[0])])
    backwards = solution.chain(x.double(), [tuple(layer) for layer in exact[::-1]])
    at_outputs, y = torch.zeros(5, 1, dtype=torch.float64), x.double()
    for layer in exact:
        y = solution.planar_transformation(y, *layer)
        at_outputs = at_outputs + solution.get_logdet(y, *layer)
    last = solution.get_logdet(solution.chain(x.double(), [tuple(layer) for layer in exact[:-1]])[0], *exact[-1])
    at_input = sum(solution.get_logdet(x.double(), *layer) for layer in exact)
    known = [
        (x.double(), 0 * right[1], "the flow's loop does nothing: apply each layer and add its log-determinant"),
        (*first, "only the first layer is applied"),
        (*backwards, "the layers are applied in the reverse order"),
        (right[0], at_outputs, "the log-determinant is taken after the layer is applied: take it at the layer's input"),
        (right[0], 0 * right[1], "the log-determinants are not added"),
        (right[0], last, "the log-determinant is the last layer's: add those of all layers"),
        (right[0], -right[1], "the log-determinants are subtracted"),
        (x.double(), torch.as_tensor(at_input), "the layers are not applied, only their log-determinants are added"),
        (
            right[0],
            torch.as_tensor(at_input),
            "each layer's log-determinant is taken at the flow's input, not at the layer's",
        ),
    ]
    case = {"scenario": "flow", "x": x, **{key: [layer[n] for layer in layers] for n, key in enumerate("uwb")}}
    return case, right, known


def _judge_flow(
    result: Json | None, reason: str, right: tuple[Tensor, Tensor], known: list[tuple[Tensor, Tensor, str]]
) -> Finding:
    """The chain of layers. A submission without a ``Flow`` loses nothing: the question asks for a loss."""
    failed = failure(result, reason)
    if failed and failed.hint.startswith("there is no Flow"):
        return Finding("flow", 1)
    if failed or result is None:
        hint = failed.hint if failed else reason
        return Finding("flow", 0, f"loss1 is right, and the flow fails: {hint}", failed.attempted if failed else True)
    items = result["value"].get("items") or []
    if len(items) != 2:
        return Finding(
            "flow",
            0,
            "the flow must return the points and their log-determinant",
            attempted=result["value"].get("object") is not None,
        )
    found = [compare(item, value, other_shape=1.0) for item, value in zip(items, right, strict=True)]
    if all(f.score for f in found):
        return Finding("flow", 1)
    matches = (
        hint
        for x, logdet, hint in known
        if compare(items[0], x, (), 1.0).score and compare(items[1], logdet, (), 1.0).score
    )
    return Finding(
        "flow",
        0,
        next(
            matches,
            f"the flow's {'points' if not found[0].score else 'log-determinant'}: {max(found, key=lambda f: f.hint).hint}",
        ),
    )


def _loss2() -> Question:
    trials = []
    for check, count, dim in (("values", 6, 2), ("values", 4, 3), ("B = 1", 1, 2)):
        z0, logdet, energy, density = _losses(dim, count)
        exact, column = logdet.double(), energy.double()[:, None]
        half_square = -0.5 * z0.double().square().sum(1, keepdim=True)
        right = density + column - exact
        known = [
            (density - column - exact, "the energy's sign is turned: target_density is -log p already"),
            (density - column + exact, "the signs of the energy and the log-determinant are turned"),
            (density + column + exact, "the sign of the log-determinant is turned"),
            (-density + column - exact, "the sign of log N(z0; 0, I) is turned"),
            (-density - exact - column, "the signs of log N(z0; 0, I) and of the energy are turned"),
            (column - exact, "log N(z0; 0, I) is missing"),
            (density - exact, "the target is missing"),
            (density + column, "the log-determinant is missing"),
            (half_square + column - exact, "the constant D/2 log 2π is missing"),
            (density - column.abs().log() - exact, "the logarithm of target_density is taken: it is -log p already"),
            (density + column.abs().log() - exact, "the logarithm of target_density is taken: it is -log p already"),
            (density + energy.double() - exact, "a (B, B) matrix: target_density is (B,), make it (B, 1)"),
            (right.squeeze(1) * torch.ones(count, 1), "a (B, B) matrix: (B,) and (B, 1) are added"),
            (
                density.squeeze(1) + energy.double() - exact,
                "a (B, B) matrix: logdet is (B, 1), what it is subtracted from (B,)",
            ),
            (density.squeeze(1) + column - exact, "a (B, B) matrix: the density of z0 is (B,), make it (B, 1)"),
            (right.mean(), "one number for the whole batch, its mean: return one for each point, (B, 1)"),
            (-right, "the sign is turned: the loss is log q - log p"),
        ]
        case = {"function": "loss2", "args": [energy, z0, logdet]}
        trials.append(Trial(check, case, right, [Known(*other) for other in known]))
    return of_trials("3.8", FILE, ("loss2",), "call", trials)
