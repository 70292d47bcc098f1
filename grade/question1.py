"""Question 1: likelihoods, log-mean-exp, and the divergence in closed form and by Monte Carlo."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import q1_solution
from grade.question import Json, Question, Results, Trial, question_from, remarks
from grade.scenarios import decode
from grade.verdict import NO_GRADIENT, Finding, Known, close, compare, failure, flows, known, worst

FILE = "q1_solution"
DIM, GROUPS = 3, 4  # of the Monte Carlo cases: size of a sample, and different ones in a batch
SIGMAS = 6.0  # standard errors that an estimate may be away
LOG_2PI = math.log(2 * math.pi)
SHAPES = (("values", (5, 3)), ("values", (4, 9)), ("B = 1", (1, 6)), ("D = 784", (3, 784)))
# Sums over the last dimension alone and broadcasts: for those who call it with their draws in another dimension.
LAST_DIMENSION = """
import math
import torch

def log_likelihood_normal(mu, logvar, z):
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu) ** 2 * torch.exp(-logvar)).sum(-1)

def kl_gaussian_gaussian_analytic(mu_q, logvar_q, mu_p, logvar_p):
    return 0.5 * (logvar_p - logvar_q - 1 + ((mu_q - mu_p) ** 2 + logvar_q.exp()) * torch.exp(-logvar_p)).sum(-1)
"""


def questions() -> list[Question]:
    return [_bernoulli(), _normal(), _log_mean_exp(), _analytic(), _monte_carlo()]


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _simple(number: str, name: str, trials: list[Trial]) -> Question:
    return question_from(number, FILE, (name,), "call", trials)


def _call(name: str, *arguments: Tensor, leaves: tuple[int, ...] = ()) -> Json:
    return {"function": name, "args": list(arguments), "leaves": list(leaves)}


def _sums(terms: Tensor, section: str, **names: Any) -> list[Known]:
    """Known wrong answers of a function that sums terms over the dimensions, from those of wrong terms."""
    wrong = [Known(other.values.sum(1), other.hint) for other in known(section, terms=terms, **names)]
    turned = [Known(-other.values, f"{other.hint}; and the sign is turned") for other in wrong]
    missing = f"the sum over the {terms.shape[1]} dimensions is missing: (B, D) is returned, not (B,)"
    return [
        *wrong,
        Known(terms, missing),
        Known(terms.mean(1), "the mean over the dimensions is taken, not the sum"),
        Known(terms.sum(0), "the sum runs over the batch, not over the dimensions"),
        *turned,
    ]


def _bernoulli() -> Question:
    name, trials = "log_likelihood_bernoulli", []
    for check, shape in SHAPES:
        mu, x = torch.sigmoid(1.5 * _random(11 + shape[1], *shape)), (_random(12 + shape[1], *shape) > 0).float()
        m, t = mu.double(), x.double()
        terms = t * m.log() + (1 - t) * (1 - m).log()
        trials.append(Trial(check, _call(name, mu, x, leaves=(0,)), terms.sum(1), _sums(terms, name, m=m, t=t)))
    return _simple("1.1", name, trials)


def _normal() -> Question:
    name, trials = "log_likelihood_normal", []
    for check, shape in SHAPES:
        mu, logvar, z = (scale * _random(seed + shape[1], *shape) for scale, seed in ((1, 21), (0.7, 22), (1.5, 23)))
        m, v, x = mu.double(), logvar.double(), z.double()
        s, c = (x - m) ** 2, torch.full_like(m, LOG_2PI)
        terms = -0.5 * (c + v + s * torch.exp(-v))
        wrong = _sums(terms, name, v=v, s=s, c=c, D=shape[1])
        trials.append(Trial(check, _call(name, mu, logvar, z, leaves=(0, 1, 2)), terms.sum(1), wrong))
    return _simple("1.2", name, trials)


def _log_mean_exp() -> Question:
    name, trials = "log_mean_exp", []
    far = _random(33, 4, 6) + torch.tensor([[-1000.0], [0.0], [1000.0], [-300.0]])
    small, single = 2 * _random(31, 4, 6), 2 * _random(32, 1, 7)
    for check, y in (("values", small), ("values", _random(34, 6, 3)), ("stable", far), ("B = 1", single)):
        right = q1_solution.log_mean_exp(y.double())
        wrong = known(name, y=y.double(), a=y.double().max(1).values, right=right, K=y.shape[1])
        trials.append(Trial(check, _call(name, y, leaves=(0,)), right, wrong))
    question = _simple("1.3", name, trials)
    simple = question.judge

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        findings, notes = simple(results, reason, other_shape)
        for finding in findings:
            general = ("not a number", "infinite", "the values are wrong")
            if finding.check == "stable" and finding.hint.startswith(general) and findings[0].score:
                finding.hint = "it overflows or underflows for large |y|: subtract the maximum of each row first"
        return findings, notes

    question.judge = judge
    return question


def _gaussians(seed: int, *shape: int) -> list[Tensor]:
    return [scale * _random(seed + n, *shape) for n, scale in enumerate((1.0, 0.6, 1.0, 0.6))]


def _divergence(mu_q: Tensor, v_q: Tensor, mu_p: Tensor, v_p: Tensor) -> Tensor:
    return 0.5 * (v_p - v_q - 1 + (v_q - v_p).exp() + (mu_q - mu_p) ** 2 * torch.exp(-v_p))


def _analytic() -> Question:
    name, trials = "kl_gaussian_gaussian_analytic", []
    for check, shape in SHAPES[:3]:
        arguments = _gaussians(40 + shape[1], *shape)
        pair = dict(zip(("mu_q", "v_q", "mu_p", "v_p"), (argument.double() for argument in arguments), strict=True))
        terms = _divergence(**pair)
        s, r = (pair["mu_q"] - pair["mu_p"]) ** 2, (pair["v_q"] - pair["v_p"]).exp()
        wrong = _sums(terms, name, kl=_divergence, s=s, r=r, D=shape[1], **pair)
        trials.append(Trial(check, _call(name, *arguments, leaves=(0, 1)), terms.sum(1), wrong))
    return _simple("1.4", name, trials)


class Estimates:
    """What the estimates of one call should be: rows of ``GROUPS`` different pairs q, p, each repeated."""

    def __init__(
        self, check: str, repeats: int, samples: int | None, scale: float, leaves: tuple[int, ...] = ()
    ) -> None:
        self.check, self.repeats, self.draws = check, repeats, samples or 1
        self.groups = [scale * width * _random(81 + n, GROUPS, DIM) for n, width in enumerate((1.0, 1.2, 1.0, 1.2))]
        arguments = [part.repeat(repeats, 1) for part in self.groups]
        if repeats == 0:  # a batch of one
            arguments = [part[:1] for part in self.groups]
        self.case: Json = _call("kl_gaussian_gaussian_mc", *arguments, leaves=leaves)
        if samples:
            self.case["kwargs"] = {"num_samples": samples}
        mu_q, v_q, mu_p, v_p = (part.double() for part in self.groups)
        self.right = _divergence(mu_q, v_q, mu_p, v_p).sum(1)

        def draws(mean: Tensor, deviation: Tensor) -> Tensor:
            return mean + deviation * _random(59, 20_000, GROUPS, DIM).double()

        def ratio(z: Tensor) -> Tensor:
            return _log_normal(mu_q, v_q, z) - _log_normal(mu_p, v_p, z)

        z = draws(mu_q, torch.exp(v_q / 2))
        self.spread = ratio(z).std(0)
        whole = len(z) // self.draws * self.draws
        pair = {"mu_q": mu_q, "v_q": v_q, "mu_p": mu_p, "v_p": v_p}
        functions = {"kl": _divergence, "ratio": ratio, "draws": draws, "S": self.draws, "D": DIM}
        each = ratio(z[:whole]).reshape(-1, self.draws, GROUPS)
        uniform = torch.rand(z.shape, generator=torch.Generator().manual_seed(58), dtype=torch.float64)
        estimated = {"right": self.right, "each": each, "log_q": _log_normal(mu_q, v_q, z[:whole]), "uniform": uniform}
        wrong = known("kl_gaussian_gaussian_mc", **pair, **functions, **estimated)
        self.known = [Known(other.values.reshape(-1, GROUPS).mean(0), other.hint) for other in wrong]


def _log_normal(mean: Tensor, v: Tensor, z: Tensor) -> Tensor:
    return -0.5 * (LOG_2PI + v + (z - mean) ** 2 * torch.exp(-v)).sum(-1)


def _monte_carlo() -> Question:
    name = "kl_gaussian_gaussian_mc"
    estimates = [
        Estimates("one draw", 250, None, 1.0),
        Estimates("one draw", 250, 1, 0.4),  # near each other: a single draw is often negative
        Estimates("many draws", 16, 64, 1.0),
        Estimates("many draws", 1, 1000, 1.0),
        Estimates("B = 1", 0, 20, 1.0),
    ]
    through = Estimates("gradient", 100, 1, 0.4, leaves=(0,))

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        checks: dict[str, list[Finding]] = {}
        notes = remarks(results[:-1])
        for estimate, result in zip(estimates, results[:-1], strict=True):
            found = failure(result, reason) or _judge_estimate(estimate, result or {}, other_shape)
            checks.setdefault(estimate.check, []).append(found)
        findings = [worst(check, found) for check, found in checks.items()]
        if findings[0].score == findings[1].score == 0:
            findings[2].score = 0.0
        grads = (results[-1] or {}).get("grads", [])
        if any(not flows(grad) for grad in grads):
            for finding in findings:
                finding.score, finding.hint = finding.score * other_shape, finding.hint or NO_GRADIENT
        elif findings[0].score and not _differentiable(through, results[-1] or {}):
            notes.append("no gradient through the draw: it cannot train an encoder (z = mu + sigma * noise can)")
        return findings, notes

    source = Path(q1_solution.__file__).read_text(encoding="utf-8")
    names = ["log_likelihood_normal", "kl_gaussian_gaussian_analytic"]
    stand_ins = [
        {"source": text, "names": [*names, "log_mean_exp"] if text is source else names}
        for text in (source, LAST_DIMENSION)
    ]
    return Question("1.5", FILE, (name,), "call", [e.case for e in [*estimates, through]], judge, stand_ins)


def _judge_estimate(estimate: Estimates, result: Json, other_shape: float) -> Finding:
    answer, rows = result.get("value"), estimate.repeats * GROUPS or 1
    if not isinstance(answer, dict) or not isinstance(answer.get("tensor"), list):
        return compare(answer, torch.zeros(rows))
    values = decode({**answer, "dtype": "float64"})
    shape = tuple(values.shape)
    if values.numel() != rows:
        kept = {1: ": one number for the whole batch", rows * DIM: ": the sum over the dimensions is missing"}
        kept[rows * estimate.draws] = ": the mean over the draws is missing"
        return Finding("", 0, f"the shape is {shape}, not ({rows},){kept.get(values.numel(), '')}")
    if not values.isfinite().all():
        return Finding("", 0, "not a number (NaN) or infinite")
    table = values.reshape(-1, GROUPS if estimate.repeats else 1)
    groups, mean = table.shape[1], table.mean(0)
    right, single = estimate.right[:groups], estimate.spread[:groups]
    spread = single / math.sqrt(estimate.draws)
    if len(table) > 1:
        if (table.std(0) < 1e-4 * spread).all() and close(mean, right):
            return Finding("", 0, "this is the closed form: a Monte Carlo estimate from draws of q is asked")
        noisy = estimate.draws > 1 and bool((table.std(0) > 3 * spread).all())
        if noisy and _near(mean, right, table, single):
            return Finding("", 0, "num_samples is ignored: the estimates are as noisy as with one draw")
    if not _near(mean, right, table, spread):
        fitting = [k for k in estimate.known if _near(mean, k.values[:groups], table, spread, 0.05)]
        if fitting:
            return Finding("", 0, min(fitting, key=lambda k: (mean - k.values[:groups]).abs().sum().item()).hint)
        far = ((mean - right).abs() / right.abs().clamp(min=0.1)).argmax()
        means = f"the mean of the estimates is {mean[far]:.4g} where the divergence is {right[far]:.4g}"
        return Finding("", 0, means)
    if answer["shape"] != [rows]:
        return Finding("", other_shape, f"the values are right, the shape is {shape} and not ({rows},)")
    return Finding("", 1)


def _near(mean: Tensor, right: Tensor, table: Tensor, spread: Tensor, slack: float = 1e-3) -> bool:
    """Within some standard errors, from the spread across the batch; from theory where rows share their draws."""
    rows = len(table)
    observed = table.std(0) / math.sqrt(rows) if rows > 1 else spread
    shared = observed < 0.2 * spread / math.sqrt(rows)
    error = torch.where(shared, spread, torch.maximum(observed, 0.5 * spread / math.sqrt(rows)))
    return bool(((mean - right).abs() <= SIGMAS * error + slack * right.abs()).all())


def _differentiable(estimate: Estimates, result: Json) -> bool:
    """Whether the gradient in q's mean is that of the divergence."""
    grads = result.get("grads") or [None]
    if not isinstance(grads[0], dict) or not isinstance(grads[0].get("tensor"), list):
        return False
    table = decode({**grads[0], "dtype": "float64"}).reshape(-1, GROUPS, DIM)
    mu_q, _, mu_p, v_p = (part.double() for part in estimate.groups)
    error = table.std(0) / math.sqrt(len(table)) + 1e-3
    return bool(((table.mean(0) - (mu_q - mu_p) * torch.exp(-v_p)).abs() <= SIGMAS * error).all())
