"""Question 2: metrics, losses and the moving average; ``penalties.py`` and ``training.py`` have the others."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

import gan
from grade import penalties, training
from grade.penalties import exact_critic, linear, random
from grade.question import Json, Question, Results, Trial, question_from
from grade.scenarios import decode, network
from grade.verdict import Finding, Known, close, known

FILE = "gan"
REG_CF = 2.5
METRICS = {"JSD": gan.jsd, "W1": gan.w1}


def questions() -> list[Question]:
    return [_metrics(), penalties.question(), _losses(), _average(), training.question()]


def _metrics() -> Question:
    trials = []
    for seed, shape in ((201, (7,)), (203, (5,)), (205, (1,)), (207, (6, 1))):
        cp, cq = 2 * random(seed, *shape), 2 * random(seed + 1, *shape)
        p, q = cp.double(), cq.double()
        names = {"p": p, "q": q, "P": F.logsigmoid(p).mean(), "Q": F.logsigmoid(-q).mean(), "log2": math.log(2)}
        for name in ("jsd", "w1"):
            case = {"function": name, "args": [cp, cq], "leaves": [0, 1]}
            trials.append(Trial(name, case, getattr(gan, name)(p, q), known(name, **names)))
    return question_from("2.1", FILE, ("jsd", "w1"), "call", trials)


def _losses() -> Question:
    trials, straight, bent = [], linear(260, 2), linear(266, 4) | {"w": random(268, 2, 4)}
    v = straight["v"] = 1.7 * straight["v"] / straight["v"].norm()  # the same penalty wherever epsilon falls
    # Values of the two metrics of both signs: the absolute value is no turned sign.
    near, far = random(263, 6, 2) - v / 2, random(264, 6, 2) + v / 2
    for loss_type, other in (("JSD", "W1"), ("W1", "JSD")):
        for which, spec, p, q, reg_type in (
            (0, straight, far, near, "R1"),  # the metric, though a penalty is given
            (0, bent, near, far, "GP"),
            (0, straight, far, near, None),
            (0, straight, near, far, None),
            (1, straight, far, near, None),
            (1, bent, near, far, None),
            (1, straight, far, near, "GP"),
            (1, straight, near, far, "R1"),
            (1, bent, near, far, "R1"),  # its slope at real and generated samples differs
        ):
            case = {"p": p, "q": q, "critic": spec, "args": [loss_type, reg_type, REG_CF if reg_type else 1.0]}
            trials.append(_loss_trial(case | {"which": which}, other))
    simple = question_from("2.3", FILE, ("make_losses",), "losses", trials)
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


def _loss_trial(case: Json, other: str) -> Trial:
    """One call of the metric or the critic's loss: its value, its gradient in q or in the critic, and wrong answers."""
    loss_type, reg_type, cf = case["args"]
    critic, p, q = exact_critic(case["critic"]), case["p"].double(), case["q"].double().requires_grad_()
    cp, cq = critic(p), critic(q)
    value, zero = METRICS[loss_type](cp, cq), torch.zeros(())
    slope = critic.v.norm() if critic.w is None else zero
    penalties = {"R1": gan.r1gp(p, cp, q, cq, critic), "GP": (slope - 1) ** 2, None: zero}
    penalty, wrong = penalties[reg_type], penalties["R1" if reg_type == "GP" else "GP"]
    names = {"value": value, "swapped": METRICS[loss_type](cq, cp), "other": METRICS[other](cp, cq), "cf": cf}
    names |= {"penalty": penalty, "log2": math.log(2) if loss_type == "JSD" else 0.0}
    if case["which"] == 0:
        found = [Known(k.values, f"metric of {loss_type}: {k.hint}") for k in known("metric", **names)]
        return Trial("metric", case, value.detach(), found, _gradients(value, [q]))
    right = cf * penalty - value
    if reg_type is None:
        says, found = f"critic's loss of {loss_type}", known("metric", **names)
        found = [Known(-k.values, f"{says}: {k.hint}, -metric is asked") for k in found]
    else:
        fake = gan.r1gp(q, cq, p, cp, critic)
        found = known("critic_loss", wrong=wrong, fake=fake, **names)
    check = "with a penalty" if reg_type else "critic loss"
    return Trial(check, case, right.detach(), found, _gradients(right, [*critic.parameters()]))


def _gradients(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True))


def _average() -> Question:
    name, trials = "apply_exponential_moving_average", []
    size = sum(parameter.numel() for parameter in network().parameters())
    for seed, alpha in ((280, 0.9), (282, 0.7), (284, 0.998)):
        start, goal = random(seed, size), random(seed + 1, size)
        t, s = start.double(), goal.double()
        case = {"source": goal, "target": start, "alpha": [alpha]}
        trials.append(Trial("values", case, alpha * t + (1 - alpha) * s, known(name, s=s, t=t, alpha=alpha)))
    simple = question_from("2.4", FILE, (name,), "average", trials)

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
