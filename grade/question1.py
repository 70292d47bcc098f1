"""Question 1: likelihoods, log-mean-exp, and the divergence in closed form and by Monte Carlo."""

import math
from pathlib import Path

import torch
from torch import Tensor

import q1_solution
from grade.question import Json, Question, Results, Trial, of_trials, remarks
from grade.scenarios import decode
from grade.verdict import Finding, Known, close, compare, failure, worst

FILE = "q1_solution"
DIM, GROUPS = 3, 4  # of the Monte Carlo cases: size of a sample, and different ones in a batch
SIGMAS = 6.0  # standard errors that an estimate may be away
LOG_2PI = math.log(2 * math.pi)
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
    return of_trials(number, FILE, (name,), "call", trials)


def _call(name: str, *arguments: Tensor) -> Json:
    return {"function": name, "args": list(arguments)}


def _sums(terms: Tensor, known: list[tuple[Tensor, str]]) -> list[Known]:
    """Known wrong answers of a function that sums terms, from those of wrong terms."""
    size = terms.shape[1]
    wrong = [Known(other.sum(1), hint) for other, hint in known]
    wrong.append(Known(terms, f"the sum over the {size} dimensions is missing: (B, D) is returned, not (B,)"))
    wrong.append(Known(terms.mean(1), "the mean over the dimensions is taken, not the sum"))
    wrong.append(Known(terms.sum(0), "the sum runs over the batch, not over the dimensions"))
    return wrong + [Known(-other.values, f"{other.hint}; and the sign is turned") for other in wrong[: len(known)]]


def _bernoulli() -> Question:
    trials = []
    for check, shape in (("values", (5, 3)), ("values", (4, 9)), ("B = 1", (1, 6)), ("D = 784", (3, 784))):
        mu = torch.sigmoid(1.5 * _random(11 + shape[1], *shape))
        x = (_random(12 + shape[1], *shape) > 0).float()
        m, t = mu.double(), x.double()
        terms = t * m.log() + (1 - t) * (1 - m).log()
        known = [
            (t * m.log(), "the term (1 - x) log(1 - mu) is missing"),
            ((1 - t) * m.log() + t * (1 - m).log(), "mu and target are swapped, or x and 1 - x"),
            (t * m + (1 - t) * (1 - m), "the logarithm is missing"),
            (t * torch.log2(m) + (1 - t) * torch.log2(1 - m), "the logarithm is to base 2: nats are asked"),
            (t * torch.log10(m) + (1 - t) * torch.log10(1 - m), "the logarithm is to base 10: nats are asked"),
            (t * m - torch.nn.functional.softplus(m), "mu is a mean already, not a logit"),
        ]
        trials.append(Trial(check, _call("log_likelihood_bernoulli", mu, x), terms.sum(1), _sums(terms, known)))
    return _simple("1.1", "log_likelihood_bernoulli", trials)


def _normal() -> Question:
    trials = []
    for check, shape in (("values", (5, 3)), ("values", (4, 9)), ("B = 1", (1, 6)), ("D = 784", (3, 784))):
        mu, logvar, z = (scale * _random(seed + shape[1], *shape) for scale, seed in ((1, 21), (0.7, 22), (1.5, 23)))
        m, v, x = mu.double(), logvar.double(), z.double()
        square, constant = (x - m) ** 2, torch.full_like(m, LOG_2PI)
        terms = -0.5 * (constant + v + square * torch.exp(-v))
        known = [
            (-0.5 * (v + square * torch.exp(-v)), "the constant D/2 log 2π is missing"),
            (-0.5 * (constant + v.abs().log() + square / v), "the log-variance is used as the variance"),
            (
                -0.5 * (constant + 2 * v + square * torch.exp(-2 * v)),
                "the log-variance is used as the logarithm of the standard deviation",
            ),
            (-0.5 * (constant + v + square * torch.exp(-2 * v)), "the square is divided by the variance's square"),
            (
                -0.5 * (constant + v + square * torch.exp(-v / 2)),
                "the square is divided by the standard deviation, not by the variance",
            ),
            (
                -0.5 * (constant + 0.5 * v + square * torch.exp(-v)),
                "log sigma is half of logvar, and -log sigma is asked: a factor 1/2 too much before logvar",
            ),
            (-0.5 * (constant + 2 * v + square * torch.exp(-v)), "the factor 1/2 before logvar is missing"),
            (-0.5 * (constant + v) - square * torch.exp(-v), "the factor 1/2 before the square is missing"),
            (-0.5 * (2 * constant + v + square * torch.exp(-v)), "the constant is log 2π, and D/2 log 2π is asked"),
            (-0.5 * (constant - v + square * torch.exp(-v)), "the sign of logvar is turned"),
            (-0.5 * (constant + v - square * torch.exp(-v)), "the sign of the square is turned"),
            (-0.5 * (constant + square * torch.exp(-v)), "the term with logvar is missing"),
            (-0.5 * (constant + v + (x - m).abs() * torch.exp(-v)), "the difference is not squared"),
            (-0.5 * (constant + v + square), "the square is not divided by the variance"),
            (terms.exp(), "the density is returned, not its logarithm"),
            (-0.5 * (constant / shape[1] + v + square * torch.exp(-v)), "the constant counts once, not D times"),
            (-0.5 * (constant * shape[1] + v + square * torch.exp(-v)), "the constant D/2 log 2π is counted D times"),
        ]
        trials.append(Trial(check, _call("log_likelihood_normal", mu, logvar, z), terms.sum(1), _sums(terms, known)))
    return _simple("1.2", "log_likelihood_normal", trials)


def _log_mean_exp() -> Question:
    small, single = 2 * _random(31, 4, 6), 2 * _random(32, 1, 7)
    far = _random(33, 4, 6) + torch.tensor([[-1000.0], [0.0], [1000.0], [-300.0]])
    trials = []
    for check, y in (("values", small), ("values", _random(34, 6, 3)), ("stable", far), ("B = 1", single)):
        exact = y.double()
        right, largest = q1_solution.log_mean_exp(exact), exact.max(1).values
        count = math.log(y.shape[1])
        known = [
            Known(right + count, "the mean is a sum: log K is missing"),
            Known(right - largest, "the maximum is not added again"),
            Known(right - largest + exact.max(), "the maximum is that of the whole batch, not of each row"),
            Known((right - largest)[:, None] + largest, "a (B, B) matrix: add the maximum as (B,)"),
            Known((right - largest) + largest[:, None], "a (B, B) matrix: add the maximum as (B,)"),
            Known(q1_solution.log_mean_exp(exact.T), "the mean runs over the batch, not over the samples"),
            Known(exact.mean(1), "the mean of y: the exponential is missing"),
            Known(right.exp(), "the logarithm is missing"),
            Known(
                torch.logsumexp(exact.flatten(), 0) - math.log(y.numel()),
                "one number for the whole batch: return one for each row",
            ),
            Known(right + largest, "the maximum is added, but not subtracted"),
            Known(exact - exact + right[:, None], "the mean keeps the dimension of the samples"),
        ]
        trials.append(Trial(check, _call("log_mean_exp", y), right, known))
    question = _simple("1.3", "log_mean_exp", trials)
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
    trials = []
    for check, shape in (("values", (5, 3)), ("values", (4, 9)), ("B = 1", (1, 6))):
        arguments = _gaussians(40 + shape[1], *shape)
        mu_q, v_q, mu_p, v_p = (argument.double() for argument in arguments)
        terms = _divergence(mu_q, v_q, mu_p, v_p)
        square, growth, size = (mu_q - mu_p) ** 2, (v_q - v_p).exp(), shape[1]
        known = [
            (_divergence(mu_p, v_p, mu_q, v_q), "this is KL(p‖q): the roles of q and p are swapped"),
            (terms + 0.5, "the term -1 (for each dimension) is missing"),
            (terms + 0.5 - 0.5 / size, "the -1 counts once, not for each of the D dimensions"),
            (terms + 1, "the sign of the term -1 is turned"),
            (2 * terms + 0.5, "the factor 1/2 is not before all terms"),
            (terms - 0.5, "-1 is subtracted with a factor of its own: 1/2 of it is asked"),
            (terms + 0.5 * square * torch.exp(-v_p), "the factor 1/2 before the square is missing"),
            (terms - 0.5 * square * torch.exp(-v_p), "the term with the means is missing"),
            (terms - square * torch.exp(-v_p), "the sign of the square is turned"),
            (terms + 0.5 * growth, "the factor 1/2 before the ratio of variances is missing"),
            (terms - 0.5 * growth, "the ratio of variances is missing"),
            (terms - 0.5 * (v_p - v_q), "the logarithm of the variances is missing"),
            (terms - (v_p - v_q), "the sign of the logarithm of the variances is turned"),
            (terms + 0.5 * (v_p - v_q), "the factor 1/2 before the log-variances is missing"),
            (terms - 0.25 * (v_p - v_q), "logvar is halved twice"),
            (
                _divergence(mu_q, 2 * v_q, mu_p, 2 * v_p),
                "the log-variance is used as the logarithm of the standard deviation",
            ),
            (
                0.5 * (v_p - v_q - 1 + (2 * (v_q - v_p)).exp() + square * torch.exp(-2 * v_p)),
                "exp(logvar) is the variance already: it is squared",
            ),
            (_divergence(mu_q, v_q / 2, mu_p, v_p / 2), "the standard deviation is used as the variance"),
            (terms + 0.5 * square * (1 - torch.exp(-v_p)), "the square of the means is not divided by p's variance"),
            (
                terms + 0.5 * square * (torch.exp(-v_q) - torch.exp(-v_p)),
                "the square of the means is divided by q's variance, not by p's",
            ),
            (
                terms + 0.5 * ((mu_q - mu_p).abs() - square) * torch.exp(-v_p),
                "the difference of the means is not squared",
            ),
            (terms + 0.5 * ((mu_q - mu_p) - square) * torch.exp(-v_p), "the difference of the means is not squared"),
            (
                0.5 * (v_p.abs().log() - v_q.abs().log() - 1 + (v_q + square) / v_p),
                "the log-variance is used as the variance",
            ),
            (0.5 * (v_q.exp() - v_q - 1 + mu_q**2), "p is taken as a standard normal"),
        ]
        name = "kl_gaussian_gaussian_analytic"
        trials.append(Trial(check, _call(name, *arguments), terms.sum(1), _sums(terms, known)))
    return _simple("1.4", "kl_gaussian_gaussian_analytic", trials)


# --- Monte Carlo -------------------------------------------------------------------------------------------------------


class Estimates:
    """What the estimates of one call should be: rows of ``GROUPS`` different pairs q, p, each repeated."""

    def __init__(self, check: str, repeats: int, samples: int | None, scale: float, leaves: bool = False) -> None:
        self.check, self.repeats, self.draws = check, repeats, samples or 1
        self.groups = [scale * width * _random(81 + n, GROUPS, DIM) for n, width in enumerate((1.0, 1.2, 1.0, 1.2))]
        arguments = [part.repeat(repeats, 1) for part in self.groups]
        if repeats == 0:  # a batch of one
            arguments = [part[:1] for part in self.groups]
        self.case: Json = _call("kl_gaussian_gaussian_mc", *arguments)
        if samples:
            self.case["kwargs"] = {"num_samples": samples}
        if leaves:
            self.case["leaves"] = [0]
        exact = [part.double() for part in self.groups]
        self.right = _divergence(*exact).sum(1)
        log_ratio = _ratio(*exact, _draws(exact[0], torch.exp(exact[1] / 2)))
        self.spread = log_ratio.std(0)
        self.known = _known_estimates(*exact, self.draws)


def _draws(mean: Tensor, deviation: Tensor, count: int = 20_000) -> Tensor:
    noise = torch.randn(count, *mean.shape, generator=torch.Generator().manual_seed(59), dtype=torch.float64)
    return mean + deviation * noise


def _log_normal(mean: Tensor, v: Tensor, z: Tensor) -> Tensor:
    return -0.5 * (LOG_2PI + v + (z - mean) ** 2 * torch.exp(-v)).sum(-1)


def _ratio(mu_q: Tensor, v_q: Tensor, mu_p: Tensor, v_p: Tensor, z: Tensor) -> Tensor:
    return _log_normal(mu_q, v_q, z) - _log_normal(mu_p, v_p, z)


def _known_estimates(mu_q: Tensor, v_q: Tensor, mu_p: Tensor, v_p: Tensor, draws: int) -> list[Known]:
    """The means of estimates that are known to be wrong."""
    pair = (mu_q, v_q, mu_p, v_p)
    exact = _divergence(*pair).sum(1)
    uniform = torch.rand(20_000, *mu_q.shape, generator=torch.Generator().manual_seed(58), dtype=torch.float64)
    ratio = _ratio(*pair, _draws(mu_q, torch.exp(v_q / 2)))
    averages = ratio[: len(ratio) // draws * draws].reshape(-1, draws, GROUPS)
    found = [
        (_ratio(*pair, _draws(mu_q, v_q.exp())), "the variance is used as the standard deviation of the draws"),
        (_ratio(*pair, _draws(mu_q, v_q)), "the log-variance is used as the standard deviation of the draws"),
        (-exact[None], "the sign is turned: log q - log p is asked"),
        (_divergence(mu_p, v_p, mu_q, v_q).sum(1)[None], "this is KL(p‖q): the roles of q and p are swapped"),
        (_ratio(*pair, _draws(mu_p, torch.exp(v_p / 2))), "the draws are from p: they must be from q"),
        (averages.mean(1).abs(), "the absolute value of the estimate is taken: an estimate may be negative"),
        (averages.abs().mean(1), "the absolute value of each draw is taken: a draw may be negative"),
        (
            torch.logsumexp(averages, 1) - math.log(draws),
            "the logarithm of the mean of the ratios: the mean of their logarithms is asked",
        ),
        (exact[None] * draws, "the sum over the draws is taken, not the mean"),
        (exact[None] / DIM, "the mean over the dimensions is taken, not the sum"),
        (_ratio(*pair, mu_q + torch.exp(v_q / 2) * uniform), "the noise is uniform: it must be normal"),
        (_ratio(*pair, _draws(0 * mu_q, torch.exp(v_q / 2))), "the draws are not shifted by q's mean"),
        (_ratio(*pair, _draws(0 * mu_q, 1 + 0 * v_q)), "the draws are standard normal: they must be from q"),
        (_ratio(*pair, _draws(mu_q, 1 + 0 * v_q)), "the draws have a standard deviation of 1: they must be from q"),
        (_ratio(*pair, mu_q[None]), "the noise is missing: the mean is taken as the draw"),
        (_log_normal(mu_q, v_q, _draws(mu_q, torch.exp(v_q / 2))), "log p(z) is not subtracted"),
        (-_log_normal(mu_p, v_p, _draws(mu_q, torch.exp(v_q / 2))), "log q(z) is missing"),
        (
            (ratio * _log_normal(mu_q, v_q, _draws(mu_q, torch.exp(v_q / 2))).exp()),
            "log q - log p is weighted by q: the draws are from q already",
        ),
        (exact[None] / 2, "half of the right value: a factor 1/2 too much"),
        (exact[None] * 2, "twice the right value"),
    ]
    return [Known(values.mean(0), hint) for values, hint in found]


def _monte_carlo() -> Question:
    name = "kl_gaussian_gaussian_mc"
    estimates = [
        Estimates("one draw", 250, None, 1.0),
        Estimates("one draw", 250, 1, 0.4),  # near each other: a single draw is often negative
        Estimates("many draws", 16, 64, 1.0),
        Estimates("many draws", 1, 1000, 1.0),
        Estimates("B = 1", 0, 20, 1.0),
    ]
    through = Estimates("gradient", 100, 1, 0.4, leaves=True)

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        checks: dict[str, list[Finding]] = {}
        notes = remarks(results[:-1])
        for estimate, result in zip(estimates, results[:-1], strict=True):
            found = failure(result, reason) or _judge_estimate(estimate, result or {}, other_shape)
            checks.setdefault(estimate.check, []).append(found)
        findings = [worst(check, found) for check, found in checks.items()]
        if findings[0].score == findings[1].score == 0:
            findings[2].score = 0.0
        if findings[0].score and not _differentiable(through, results[-1] or {}):
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
    answer = result.get("value")
    rows = estimate.repeats * GROUPS or 1
    if not isinstance(answer, dict) or not isinstance(answer.get("tensor"), list):
        return compare(answer, torch.zeros(rows))
    values = decode({**answer, "dtype": "float64"})
    if values.numel() != rows:
        shape = tuple(values.shape)
        samples = (
            ": the mean over the draws is missing"
            if estimate.draws in shape and values.numel() == rows * estimate.draws
            else ""
        )
        dimensions = ": the sum over the dimensions is missing" if values.numel() == rows * DIM else ""
        one = ": one number for the whole batch" if values.numel() == 1 else ""
        return Finding("", 0, f"the shape is {shape}, not ({rows},){samples or dimensions or one}")
    if not values.isfinite().all():
        return Finding("", 0, "not a number (NaN) or infinite")
    groups = 1 if estimate.repeats == 0 else GROUPS
    table = values.reshape(-1, groups)
    right, spread = estimate.right[:groups], estimate.spread[:groups] / math.sqrt(estimate.draws)
    mean = table.mean(0)
    if len(table) > 1 and (table.std(0) < 1e-4 * spread).all() and close(mean, right):
        return Finding("", 0, "this is the closed form: a Monte Carlo estimate from draws of q is asked")
    if (
        len(table) > 1
        and estimate.draws > 1
        and (table.std(0) > 3 * spread).all()
        and _near(mean, right, table, spread * math.sqrt(estimate.draws))
    ):
        return Finding("", 0, "num_samples is ignored: the estimates are as noisy as with one draw")
    if not _near(mean, right, table, spread):
        known = [k for k in estimate.known if _near(mean, k.values[:groups], table, spread, 0.05)]
        nearest = min(known, key=lambda k: (mean - k.values[:groups]).abs().sum().item(), default=None)
        hint = nearest.hint if nearest else ""
        far = ((mean - right).abs() / right.abs().clamp(min=0.1)).argmax()
        return Finding(
            "", 0, hint or f"the mean of the estimates is {mean[far]:.4g} where the divergence is {right[far]:.4g}"
        )
    if answer["shape"] != [rows]:
        return Finding("", other_shape, f"the values are right, the shape is {tuple(values.shape)} and not ({rows},)")
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
