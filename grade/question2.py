"""Question 2: metrics, losses and the moving average; ``penalties.py`` and ``training.py`` have the others."""

import math

import torch
import torch.nn.functional as F

import gan
from grade import penalties, training
from grade.penalties import exact_critic, linear, random
from grade.question import Question, Results, Trial, of_trials
from grade.scenarios import decode, network
from grade.verdict import Finding, Known, close, known

FILE = "gan"
REG_CF = 2.5


def questions() -> list[Question]:
    return [_metrics(), penalties.question(), _losses(), _average(), training.question()]


def _metrics() -> Question:
    trials = []
    for seed, shape in ((201, (7,)), (203, (5,)), (205, (1,)), (207, (6, 1))):
        cp, cq = 2 * random(seed, *shape), 2 * random(seed + 1, *shape)
        p, q = cp.double(), cq.double()
        names = {"p": p, "q": q, "P": F.logsigmoid(p).mean(), "Q": F.logsigmoid(-q).mean(), "log2": math.log(2)}
        for name in ("jsd", "w1"):
            case = {"function": name, "args": [cp, cq]}
            trials.append(Trial(name, case, getattr(gan, name)(p, q), known(name, **names)))
    return of_trials("2.1", FILE, ("jsd", "w1"), "call", trials)


def _losses() -> Question:
    trials, metrics = [], {"JSD": gan.jsd, "W1": gan.w1}
    spec = linear(260, 2)
    spec["v"] = 1.7 * spec["v"] / spec["v"].norm()  # linear, of slope 1.7: the same penalty wherever epsilon falls
    p, q, critic, slope = random(263, 6, 2), random(264, 6, 2) + 0.7, exact_critic(spec), spec["v"].double().norm()
    cp, cq = critic(p.double()).detach(), critic(q.double()).detach()
    for loss_type, other in (("JSD", "W1"), ("W1", "JSD")):
        value = metrics[loss_type](cp, cq)
        names = {"value": value, "swapped": metrics[loss_type](cq, cp), "other": metrics[other](cp, cq)}
        case = {"p": p, "q": q, "critic": spec, "args": [loss_type, None, 1.0]}
        wrongs = known("metric", **names)
        found = [Known(k.values, f"metric of {loss_type}: {k.hint}") for k in wrongs]
        trials.append(Trial("metric", case | {"which": 0}, value, found))
        found = [Known(-k.values, f"critic's loss of {loss_type}: {k.hint}, -metric is asked") for k in wrongs]
        trials.append(Trial("critic loss", case | {"which": 1}, -value, found))
        penalty = {"GP": (slope - 1) ** 2, "R1": slope**2}
        for reg_type, wrong in (("GP", "R1"), ("R1", "GP")):
            names = {"value": value, "penalty": penalty[reg_type], "wrong": penalty[wrong]}
            right = REG_CF * penalty[reg_type] - value
            case = case | {"args": [loss_type, reg_type, REG_CF], "which": 1}
            trials.append(Trial("with a penalty", case, right, known("critic_loss", cf=REG_CF, **names)))
    simple = of_trials("2.3", FILE, ("make_losses",), "losses", trials)
    # A penalty may rely on samples that require a gradient already: then both kinds count, and a note says so.
    cases = [case | {"leaves": leaves} for leaves in (False, True) for case in simple.cases]

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        plain, notes = simple.judge(results[: len(trials)], reason, other_shape)
        leaves, _ = simple.judge(results[len(trials) :], reason, other_shape)
        if sum(f.score for f in leaves) > sum(f.score for f in plain):
            return leaves, [*notes, "works only where the samples require a gradient already"]
        return plain, notes

    stand_in = training.stand_in() | {"names": ["jsd", "w1", "ogp", "r1gp"]}
    return Question("2.3", FILE, ("make_losses",), "losses", cases, judge, [stand_in])


def _average() -> Question:
    name, trials = "apply_exponential_moving_average", []
    size = sum(parameter.numel() for parameter in network().parameters())
    for seed, alpha in ((280, 0.9), (282, 0.7), (284, 0.998)):
        start, goal = random(seed, size), random(seed + 1, size)
        t, s = start.double(), goal.double()
        case = {"source": goal, "target": start, "alpha": [alpha]}
        trials.append(Trial("values", case, alpha * t + (1 - alpha) * s, known(name, s=s, t=t, alpha=alpha)))
    simple = of_trials("2.4", FILE, (name,), "average", trials)

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        findings, notes = simple.judge(results, reason, other_shape)
        for result, trial in zip(results, trials, strict=True):
            if not result or "source" not in result:
                continue
            source, target, buffer = (_exact(result[key]) for key in ("source", "value", "buffer"))
            if not close(source, trial.case["source"].double()):
                kept = close(target, trial.case["target"].double())
                says = "the source is changed, not the target" if kept else "the source is changed too: it must stay"
                return [Finding("values", 0, says)], notes
            if not close(buffer, trial.case["target"][:4].double()) and findings[0].score:
                return findings, [*notes, "buffers are averaged or copied too: the formula is about parameters"]
        return findings, notes

    return Question("2.4", FILE, (name,), "average", simple.cases, judge)


def _exact(value: dict) -> torch.Tensor:
    return decode({**value, "dtype": "float64"})
