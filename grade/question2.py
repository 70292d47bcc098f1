"""Question 2: metrics, gradient penalties, losses, the moving average. The training step is in ``training.py``."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import gan
from grade import training
from grade.question import Json, Question, Results, Trial, of_trials, remarks
from grade.scenarios import Critic, decode
from grade.verdict import Finding, Known, close, compare, failure, wrong

FILE = "gan"
SIGMAS = 6.0


def questions() -> list[Question]:
    return [_metrics(), _penalties(), _losses(), _average(), training.question()]


def source() -> Json:
    """Our functions, to stand in for the submission's."""
    names = ["jsd", "w1", "ogp", "r1gp", "make_losses", "apply_exponential_moving_average"]
    return {"source": Path(gan.__file__).read_text(encoding="utf-8"), "names": names}


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _metrics() -> Question:
    trials = []
    for seed, shape, other in ((201, (7,), (7,)), (203, (5,), (5,)), (205, (1,), (1,)), (207, (6, 1), (6, 1))):
        cp, cq = 2 * _random(seed, *shape), 2 * _random(seed + 1, *other)
        p, q = cp.double(), cq.double()
        real, fake = F.logsigmoid(p).mean(), F.logsigmoid(-q).mean()
        log2 = math.log(2)
        half = (real + fake) / 2
        known_jsd = [
            (half, "log 2 is missing"),
            (half + 2 * log2, "log 4 is added where log 2 is asked"),
            (real + fake, "the factor 1/2 and log 2 are missing"),
            (real + fake + log2, "the factor 1/2 is missing"),
            (real + fake + 2 * log2, "twice the divergence: the factor 1/2 is missing"),
            (-half - log2, "the sign is turned: this is a loss for the critic, not the divergence"),
            (-half + log2, "the sign of the expectations is turned"),
            ((real + F.logsigmoid(q).mean()) / 2 + log2, "log(1 - sigmoid(cq)) is asked, not log sigmoid(cq)"),
            ((F.logsigmoid(-p).mean() + F.logsigmoid(q).mean()) / 2 + log2, "real and generated values are swapped"),
            (
                (F.logsigmoid(p).sum() + F.logsigmoid(-q).sum()) / 2 + log2,
                "the sum over the batch is taken, not the mean",
            ),
            (
                (torch.sigmoid(p).mean().log() + torch.sigmoid(-q).mean().log()) / 2 + log2,
                "the logarithm of the mean: the mean of the logarithms is asked",
            ),
            (half + log2 / 2, "log 2 is halved"),
            ((torch.sigmoid(p).mean() + torch.sigmoid(-q).mean()) / 2 + log2, "the logarithm is missing"),
            ((F.logsigmoid(p) + F.logsigmoid(-q)) / 2 + log2, "the mean over the batch is missing"),
        ]
        known_w1 = [
            (q.mean() - p.mean(), "the sign is turned: E[cp] - E[cq] is asked"),
            ((q.mean() - p.mean()).abs(), "the absolute value is taken"),
            (p.sum() - q.sum(), "the sum over the batch is taken, not the mean"),
            ((p - q).abs().mean(), "the absolute value of each difference is taken"),
            (p.mean() + q.mean(), "the means are added, not subtracted"),
            (p - q, "the mean over the batch is missing"),
            (
                torch.sigmoid(p).mean() - torch.sigmoid(q).mean(),
                "the critic's values are used as they are, without a sigmoid",
            ),
        ]
        for name, known in (("jsd", known_jsd), ("w1", known_w1)):
            right = getattr(gan, name)(p, q)
            trials.append(Trial(name, {"function": name, "args": [cp, cq]}, right, [Known(*other) for other in known]))
    return of_trials("2.1", FILE, ("jsd", "w1"), "call", trials)


# --- penalties ---------------------------------------------------------------------------------------------------------


def _linear(seed: int, size: int) -> Json:
    """A linear critic's parameters."""
    return {"v": _random(seed, size) + 0.3, "bias": _random(seed + 1, 1)[0]}


def _bent(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Json]:
    """Real and generated samples, and a quadratic critic whose slope tells where between them it is taken.

    Each real sample lies in one direction from its generated one. The slope changes along that direction, and
    more so beside it, where epsilons of their own for each component lead.
    """
    size = math.prod(shape[1:])
    direction = torch.nn.functional.normalize(_random(seed, size).sign() + 0.3 * _random(seed + 1, size), dim=0)
    noise = 0.25 / math.sqrt(size)
    q = noise * _random(seed + 2, shape[0], size) + 0.4 * direction
    p = q + 2 * direction + noise * _random(seed + 3, shape[0], size)
    along = torch.outer(direction, direction)
    critic = {"m": 1.5 * along + 5 * (torch.eye(size) - along), "v": -0.5 * direction, "bias": torch.tensor(0.3)}
    return p.reshape(shape), q.reshape(shape), critic


def exact_critic(spec: Json) -> Critic:
    return Critic({name: value.double() for name, value in spec.items()})


def _slopes(critic: Critic, x: Tensor) -> Tensor:
    x = x.double().detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return slopes


class Penalty:
    """What a penalty of one kind should be, for one critic and batch of real and generated samples."""

    def __init__(
        self, name: str, check: str, shape: tuple[int, ...], seed: int, repeats: int, backward: bool = False
    ) -> None:
        self.name, self.check = f"{name}", check
        p, q, spec = _bent(seed, shape)
        if backward and name == "ogp":
            spec = _linear(seed, shape[1])  # whose penalty and gradient do not depend on epsilon
        self.cases: list[Json] = [
            {
                "function": name,
                "critic": spec,
                "p": p,
                "q": q,
                "repeats": repeats,
                "backward": backward,
                "leaves": leaves,
            }
            for leaves in (True, False)  # public tests pass samples that require a gradient already; training does not
        ]
        critic = exact_critic(spec)
        self.gradients: list[Tensor] = []
        if name == "r1gp":
            square = _slopes(critic, p).flatten(1).square().sum(1)
            self.right, self.spread = square.mean(), torch.tensor(0.0)
            if backward:
                self.gradients = _gradients(self.right, critic)
            self.known = _known_r1(critic, p, q)
            return
        grid = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
        along = [_slopes(critic, q.double() + e * (p.double() - q.double())) for e in grid]
        norms = torch.stack([slopes.flatten(1).norm(dim=1) for slopes in along])
        terms = (norms - 1).square()
        self.right, self.spread = terms.mean(), terms.mean(1).std().detach()
        if backward:
            self.gradients = _gradients(self.right, critic)
        self.known = _known_gp(critic, p, q, norms, along)


def _gradients(value: Tensor, critic: Critic) -> list[Tensor]:
    parameters = list(critic.parameters())
    grads = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]


def _known_r1(critic: Critic, p: Tensor, q: Tensor) -> list[Known]:
    slopes, count = _slopes(critic, p), len(p)
    square = slopes.flatten(1).square().sum(1)
    found = [
        (square.sqrt().mean(), "the norm is not squared"),
        (square.sum(), "the sum over the batch is taken, not the mean"),
        (square.mean() / 2, "the factor 1/2 is not in this penalty"),
        ((square.sqrt() - 1).square().mean(), "this is the one-centred penalty: R1 is centred at zero"),
        (
            _slopes(critic, q).flatten(1).square().sum(1).mean(),
            "the gradient is taken at generated samples: R1 takes it at real ones",
        ),
        (
            square.mean() / count**2,
            "the mean of the critic's values is differentiated: each sample's gradient is divided by the batch size",
        ),
        (slopes.square().mean(), "the mean over the dimensions is taken, not the sum"),
        (square.mean().sqrt(), "the root of the mean square: the mean square is asked"),
        (square.mean().square(), "the square of the squared norm"),
        (square.square().mean(), "the norm is raised to the fourth power"),
        (slopes.flatten(1).sum(1).square().mean(), "the gradient's components are added before they are squared"),
        (slopes.flatten(1).sum(1).mean(), "the gradient's components are not squared"),
    ]
    if slopes.dim() > 2:
        found += [
            (slopes.square().sum(1).mean(), "the norm runs over the channels only: over all dimensions but the batch"),
            (
                slopes.square().sum(-1).mean(),
                "the norm runs over the last dimension only: over all dimensions but the batch",
            ),
            (
                slopes.square().sum((-1, -2)).mean(),
                "the norm runs over the last two dimensions only: over all dimensions but the batch",
            ),
        ]
    return [Known(value.detach(), hint) for value, hint in found]


def _known_gp(critic: Critic, p: Tensor, q: Tensor, norms: Tensor, along: list[Tensor]) -> list[Known]:
    at = {
        name: _slopes(critic, x).flatten(1).norm(dim=1)
        for name, x in (("real", p), ("generated", q), ("middle", (p + q) / 2))
    }
    shape, seed = p.shape, torch.Generator().manual_seed(5)
    anywhere = [q + torch.rand(shape, generator=seed) * (p - q) for _ in range(300)]
    elementwise = torch.stack(
        [(_slopes(critic, x).flatten(1).norm(dim=1) - 1).square().mean().detach() for x in anywhere]
    )
    count = len(p)
    whole = torch.stack([(slopes.norm() - 1).square() for slopes in along])
    found = [
        (norms.square().mean(), "this is the zero-centred penalty: the 1 is missing"),
        ((norms - 1).mean(), "the difference from 1 is not squared"),
        ((norms - 1).abs().mean(), "the difference from 1 is not squared"),
        ((norms - 1).square().sum(1).mean(), "the sum over the batch is taken, not the mean"),
        ((norms - 1).square().mean() / 2, "the factor 1/2 is not in this penalty"),
        ((norms.square() - 1).square().mean(), "the norm is squared before 1 is subtracted"),
        (
            (at["real"] - 1).square().mean(),
            "the gradient is taken at real samples: between real and generated ones is asked",
        ),
        (
            (at["generated"] - 1).square().mean(),
            "the gradient is taken at generated samples: between real and generated ones is asked",
        ),
        (
            (at["middle"] - 1).square().mean(),
            "the gradient is always taken in the middle: epsilon is uniform between 0 and 1",
        ),
        ((norms.mean(1) - 1).square().mean(), "the mean of the norms is taken before 1 is subtracted"),
        (whole.mean(), "the norm of the whole batch is taken: one norm for each sample"),
        (
            (norms / count - 1).square().mean(),
            "the mean of the critic's values is differentiated: each sample's gradient is divided by the batch size",
        ),
        ((norms - 1).clamp(min=0).square().mean(), "norms below 1 count too: the penalty is two-sided"),
        (elementwise.mean(), "epsilon is drawn for each component: draw one for each sample"),
    ]
    if p.dim() > 2:
        for dims, where in ((1, "the channels"), (-1, "the last dimension"), ((-2, -1), "the last two dimensions")):
            part = torch.stack([(torch.linalg.vector_norm(slopes, dim=dims) - 1).square().mean() for slopes in along])
            found.append((part.mean(), f"the norm runs over {where} only: over all dimensions but the batch"))
    return [Known(value.detach(), hint) for value, hint in found]


def _penalties() -> Question:
    penalties = []
    for name, seed in (("ogp", 220), ("r1gp", 240)):
        many = 24 if name == "ogp" else 1
        penalties += [
            Penalty(name, f"{name} of vectors", (64, 3), seed, many),
            Penalty(name, f"{name} of vectors", (1, 2), seed + 4, 200 if name == "ogp" else 1),
            Penalty(name, f"{name} of images", (32, 3, 4, 5), seed + 8, many),
            Penalty(name, f"{name}'s gradient", (8, 3), seed + 12, 1, backward=True),
        ]

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        checks: dict[str, list[Finding]] = {}
        notes: list[str] = []
        for number, penalty in enumerate(penalties):
            pair = results[2 * number : 2 * number + 2]
            found = [_judge_penalty(penalty, result, reason) for result in pair]
            best = max(found, key=lambda finding: finding.score)
            checks.setdefault(penalty.check, []).append(best)
            if found[0].score != found[1].score and best.score:
                notes.append(
                    f"{penalty.name} works only where the samples {'' if found[0].score else 'do not '}require a gradient already"
                )
        findings = []
        for check, found in checks.items():
            least = min(found, key=lambda finding: finding.score)
            findings.append(Finding(check, least.score, least.hint, any(f.attempted for f in found)))
        for name in ("ogp", "r1gp"):
            mine = [finding for finding in findings if finding.check.startswith(name)]
            if not any(finding.score for finding in mine[:2]):
                mine[2].score = 0.0
            for finding in mine:
                finding.hint = f"{name}: {finding.hint}" if finding.hint else ""
        return findings, [*dict.fromkeys(notes), *remarks(results)]

    return Question(
        "2.2", FILE, ("ogp", "r1gp"), "penalty", [case for penalty in penalties for case in penalty.cases], judge
    )


def _judge_penalty(penalty: Penalty, result: Json | None, reason: str) -> Finding:
    failed = failure(result, reason)
    if failed or result is None:
        return failed or Finding("", 0, reason)
    answers = result["values"]
    for answer in answers:
        if "tensor" not in answer or math.prod(answer["shape"]) != 1:
            return compare(answer, penalty.right.detach())
    values = torch.tensor([answer["tensor"][0] for answer in answers], dtype=torch.float64)
    if penalty.gradients:
        return _judge_gradient(penalty, result["grads"][0], values[0])
    right, mean, error = penalty.right.detach(), values.mean(), penalty.spread
    varies = len(values) > 1 and bool(values.std() > 1e-6 * right.abs())
    if varies:
        error = values.std() / math.sqrt(len(values))
    distances = sorted(((mean - known.values).abs().item(), number) for number, known in enumerate(penalty.known))
    nearest = penalty.known[distances[0][1]]
    # Without a draw, or with a seed inside, the estimate may be far off; but not where it is a known wrong answer.
    exact = (
        not varies
        and close(mean.reshape(1), nearest.values.reshape(1))
        and not close(nearest.values.reshape(1), right.reshape(1))
    )
    if (mean - right).abs() <= SIGMAS * error + 1e-3 * right.abs() + 1e-6 and not exact:
        return Finding("", 1)
    known = distances[0][0] <= SIGMAS * error + 5e-3 * nearest.values.abs()
    return Finding("", 0, nearest.hint if known else wrong(mean.reshape(()), right, []))


def _judge_gradient(penalty: Penalty, grads: list[Json], value: Tensor) -> Finding:
    """Whether training the critic can lower the penalty."""
    given = [decode({**grad, "dtype": "float64"}) for grad in grads]
    if all(close(mine.flatten(), right.flatten()) for mine, right in zip(given, penalty.gradients, strict=True)):
        return Finding("", 1)
    if all(not grad.any() for grad in given):
        return Finding("", 0, "it has no gradient in the critic's parameters: create_graph=True is missing")
    if not close(value.reshape(1), penalty.right.detach().reshape(1)):
        return Finding("", 0, "its gradient in the critic's parameters is wrong, as its value is")
    return Finding("", 0, "its value is right, and its gradient in the critic's parameters is wrong")


# --- losses and the average --------------------------------------------------------------------------------------------


def _losses() -> Question:
    trials = []
    spec = _linear(260, 2)
    spec["v"] = 1.7 * spec["v"] / spec["v"].norm()  # linear, of slope 1.7: the same penalty wherever epsilon falls
    p, q = _random(263, 6, 2), _random(264, 6, 2) + 0.7
    critic = exact_critic(spec)
    slope = spec["v"].double().norm()
    for loss_type in ("JSD", "W1"):
        of_values = gan.METRICS[loss_type]
        value = of_values(critic(p.double()), critic(q.double())).detach()
        swapped = of_values(critic(q.double()), critic(p.double())).detach()
        general = [
            (-value, "the sign is turned"),
            (swapped, "real and generated samples are swapped"),
            (-swapped, "real and generated samples are swapped"),
            (
                gan.METRICS["W1" if loss_type == "JSD" else "JSD"](critic(p.double()), critic(q.double())).detach(),
                "this is the other metric",
            ),
        ]
        base = {"p": p, "q": q, "critic": spec, "leaves": False}
        known = [Known(v, f"metric of {loss_type}: {hint}") for v, hint in general]
        trials.append(Trial("metric", base | {"args": [loss_type, None, 1.0], "which": 0}, value, known))
        loss = [Known(-v, f"critic's loss of {loss_type}: {hint}, -metric is asked") for v, hint in general]
        trials.append(Trial("critic loss", base | {"args": [loss_type, None, 1.0], "which": 1}, -value, loss))
        for reg_type, penalty in (("GP", (slope - 1) ** 2), ("R1", slope**2)):
            right = -value + 2.5 * penalty
            known = [
                Known(-value + penalty, "reg_cf is missing: the penalty must be multiplied by it"),
                Known(-value, "the penalty is missing"),
                Known(-value - 2.5 * penalty, "the penalty is subtracted, not added"),
                Known(value + 2.5 * penalty, "the sign of the metric is turned: the critic maximises it"),
                Known(value - 2.5 * penalty, "the sign is turned"),
                Known(-value + 1.25 * penalty, "half of the penalty is added"),
                Known(2.5 * (penalty - value), "reg_cf multiplies the metric too"),
                Known(-value + 2.5 * (slope**2 if reg_type == "GP" else (slope - 1) ** 2), "GP and R1 are swapped"),
            ]
            trials.append(
                Trial("with a penalty", base | {"args": [loss_type, reg_type, 2.5], "which": 1}, right, known)
            )
    simple = of_trials("2.3", FILE, ("make_losses",), "losses", trials)
    # A penalty may rely on samples that require a gradient already: then both kinds count, and a note says so.
    cases = [case | {"leaves": leaves} for leaves in (False, True) for case in simple.cases]
    count = len(simple.cases)

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        plain, notes = simple.judge(results[:count], reason, other_shape)
        leaves, _ = simple.judge(results[count:], reason, other_shape)
        if sum(f.score for f in leaves) > sum(f.score for f in plain):
            return leaves, [*notes, "works only where the samples require a gradient already"]
        return plain, notes

    return Question(
        "2.3", FILE, ("make_losses",), "losses", cases, judge, [source() | {"names": ["jsd", "w1", "ogp", "r1gp"]}]
    )


def _average() -> Question:
    size = sum(
        parameter.numel()
        for parameter in torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
        ).parameters()
    )
    trials = []
    for seed, alpha in ((280, 0.9), (282, 0.7), (284, 0.998)):
        start, goal = _random(seed, size), _random(seed + 1, size)
        s, t = goal.double(), start.double()
        known = [
            (
                alpha * s + (1 - alpha) * t,
                "the weights are swapped: alpha belongs to the average, 1 - alpha to the source",
            ),
            (t, "the target is not changed: its parameters must be changed in place, not a loop variable rebound"),
            (s, "the source is copied: alpha is not used"),
            (alpha * t + s, "the factor 1 - alpha of the source is missing"),
            (t + (1 - alpha) * s, "the factor alpha of the average is missing"),
            (alpha * t, "the source's part is missing"),
            (alpha * t - (1 - alpha) * s, "the sign of the source's part is turned"),
            ((s + t) / 2, "alpha is not used"),
            (0.998 * t + 0.002 * s, "alpha is not used"),
        ]
        case = {"function": "apply_exponential_moving_average", "source": goal, "target": start, "alpha": [alpha]}
        trials.append(Trial("values", case, alpha * t + (1 - alpha) * s, [Known(*other) for other in known]))
    simple = of_trials("2.4", FILE, ("apply_exponential_moving_average",), "average", trials)

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        findings, notes = simple.judge(results, reason, other_shape)
        for result, trial in zip(results, trials, strict=True):
            if not result or "source" not in result:
                continue
            source, buffer = (decode({**result[name], "dtype": "float64"}) for name in ("source", "buffer"))
            if not close(source, trial.case["source"].double()):
                kept = close(decode({**result["value"], "dtype": "float64"}), trial.case["target"].double())
                text = (
                    "the source is changed, not the target"
                    if kept
                    else "the source is changed too: it must stay as it is"
                )
                return [Finding("values", 0, text)], notes
            if not close(buffer, trial.case["target"][:4].double()) and findings[0].score:
                notes.append("buffers are averaged or copied too: the formula is about parameters")
                break
        return findings, notes

    return Question("2.4", FILE, simple.functions, "average", simple.cases, judge)
