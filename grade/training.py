"""Question 2.5, the training step, judged by what it does to players, data and optimisers that write it all down."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gan
from grade.penalties import gradients
from grade.question import Json, Question, Results
from grade.scenarios import Critic, Generator, decode
from grade.verdict import Finding, close, failure

FILE = "gan"
METRICS = {"JSD": gan.jsd, "W1": gan.w1}
CHECKS = ("critic's updates", "fresh batches", "generator's update", "moving average")


def question() -> Question:
    games = [
        Game(("W1", 3, None, 1.0, 0.9), linear=False, seed=300),
        Game(("JSD", 1, None, 1.0, None), linear=False, seed=310),
        Game(("JSD", 2, "R1", 0.7, 0.6), linear=False, seed=320),
        Game(("W1", 2, "GP", 1.5, 0.8), linear=True, seed=330),
    ]

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        judged = [game.judge(result, reason) for game, result in zip(games, results, strict=True)]
        findings = []
        for check in CHECKS:
            found = [checks[check] for checks in judged if check in checks] or [Finding(check, 0)]
            score = sum(finding.score for finding in found) / len(found)
            hint = next((finding.hint for finding in found if finding.score < 1 and finding.hint), "")
            findings.append(Finding(check, score, hint, any(finding.attempted for finding in found)))
        if not findings[0].score and not findings[2].score:
            for finding in findings:  # what is left, a fresh batch or an unchanged average, is no training step
                finding.score = 0.0
        values = [result["value"] for result in results if result and "value" in result]
        nothing = any(value.get("object", "") is None for value in values) and any(f.score for f in findings)
        return findings, ["train_step returns nothing"] * nothing

    cases = [game.case for game in games]
    return Question("2.5", FILE, ("make_train_step",), "train_step", cases, judge, [stand_in()])


def stand_in() -> Json:
    """Our functions, to stand in for the submission's."""
    names = ["jsd", "w1", "ogp", "r1gp", "make_losses", "apply_exponential_moving_average"]
    return {"source": Path(gan.__file__).read_text(encoding="utf-8"), "names": names}


class Game:
    """One configuration of the step, played for some steps."""

    def __init__(self, arguments: tuple[Any, ...], linear: bool, seed: int) -> None:
        self.loss_type, self.inner, self.reg_type, self.reg_cf, self.alpha = arguments
        random = torch.Generator().manual_seed(seed)
        critic = {"v": torch.randn(2 if linear else 4, generator=random), "bias": torch.randn((), generator=random)}
        if not linear:
            critic["w"] = torch.randn(2, 4, generator=random)
        scale, shift = torch.rand(2, generator=random) + 0.5, torch.randn(2, generator=random)
        noise, real = torch.randn(2, 200, 5, 2, generator=random)
        self.players = {"critic": critic, "generator": {"scale": scale, "shift": shift, "noise": noise}}
        self.real, self.average = real + 1, torch.cat([scale, shift + 1]).double()
        self.case: Json = {"args": list(arguments), **self.players, "real": self.real, "steps": 3, "lr": 0.1}

    def judge(self, result: Json | None, reason: str) -> dict[str, Finding]:
        """A finding for each check; none where nobody can get it wrong in this game."""
        failed = failure(result, reason)
        if failed or result is None:
            failed = failed or Finding("", 0, reason)
            return {check: replace(failed, check=check) for check in CHECKS}
        if not any(event["event"] in ("critic", "generator") for event in result["events"]):
            silent = result["value"].get("object", "") is None
            return {check: Finding(check, 0, "no optimiser takes a step", not silent) for check in CHECKS}
        steps = _split(result["events"])
        findings = {}
        for check, judge in zip(CHECKS, (self._critic, self._fresh, self._generator, self._average), strict=True):
            score, hint = judge(steps)
            findings[check] = Finding(check, score, hint)
        if self.alpha is None and findings["moving average"].score:
            del findings["moving average"]
        if self.inner == 1:
            del findings["fresh batches"]
        return findings

    def _critic(self, steps: list[list[Json]]) -> tuple[float, str]:
        counts = {sum(event["event"] == "critic" for event in step) for step in steps}
        hints = [self._critic_hint(event) for step in steps for event in step if event["event"] == "critic"]
        if counts != {self.inner}:
            return 0, _count("critic", counts, self.inner)
        if any(hints):
            return 0, f"the critic's update: {next(filter(None, hints))}"
        if any(_position(step, "generator") < _position(step, "critic") for step in steps):
            return 0.5, "the generator is updated before the critic's loop"
        return 1, ""

    def _critic_hint(self, event: Json) -> str:
        """What is wrong with an update of the critic; empty where nothing is. Writes down the batches that it used."""
        grads, wrong = _flat(event["grads"]), ""
        for i, j in itertools.product(event["reals"], event["fakes"]):
            metric, penalty = self._critic_gradients(event, i, j)
            if close(grads, -metric + self.reg_cf * penalty):
                event["used"] = (i, j)
                return ""
            known = [
                (metric, "the sign is turned: the critic must raise the metric"),
                (metric + self.reg_cf * penalty, "the sign is turned: the critic must raise the metric"),
                (-metric, "the penalty is missing"),
                (-metric + penalty, "reg_cf is not used"),
            ]
            wrong = next((hint for candidate, hint in known if close(grads, candidate)), wrong)
        nothing = "" if grads.any() else "there is no gradient (no backward(), or zero_grad() after it)"
        return wrong or nothing or "not the gradient of its loss on one batch; do gradients add up (zero_grad)?"

    def _critic_gradients(self, event: Json, i: int, j: int) -> tuple[Tensor, Tensor]:
        critic, generator = self._players(event)
        p, q = self.real[i].double(), generator.draw(j).detach()
        metric = METRICS[self.loss_type](critic(p), critic(q))
        penalty: Tensor = torch.zeros((), dtype=torch.float64)
        if self.reg_type == "R1":
            penalty = gan.r1gp(p, critic(p), q, critic(q), critic)
        if self.reg_type == "GP":  # of a linear critic: the same wherever epsilon falls
            penalty = (critic.v.norm() - 1) ** 2
        return _gradient(metric, critic), _gradient(penalty, critic)

    def _fresh(self, steps: list[list[Json]]) -> tuple[float, str]:
        used = [[event.get("used") for event in step if event["event"] == "critic"] for step in steps]
        known = [pair for step in used for pair in step if pair]
        if not known and any(sum(event["event"] == "real" for event in step) < self.inner for step in steps):
            return 0, "fewer real batches are drawn than the critic has updates"
        for position, name in ((0, "real"), (1, "generated")):
            indices = [pair[position] for pair in known]
            if len(set(indices)) < len(indices):
                within = any(len({pair[position] for pair in step if pair}) < len(step) for step in used)
                where = "all inner updates of the critic" if within else "several steps"
                return 0, f"the same {name} batch is used for {where}: draw one for each"
        return 1, ""

    def _generator(self, steps: list[list[Json]]) -> tuple[float, str]:
        counts = {sum(event["event"] == "generator" for event in step) for step in steps}
        if counts != {1}:
            return 0, _count("generator", counts, 1)
        hints = [self._generator_hint(event) for step in steps for event in step if event["event"] == "generator"]
        wrong = next(filter(None, hints), "")
        return (0, f"the generator's update: {wrong}") if wrong else (1, "")

    def _generator_hint(self, event: Json) -> str:
        grads, wrong = _flat(event["grads"]), ""
        for i, j in itertools.product(event["reals"] or [0], event["fakes"]):
            critic, generator = self._players(event)
            right = _gradient(
                METRICS[self.loss_type](critic(self.real[i].double()), critic(generator.draw(j))), generator
            )
            if close(grads, right):
                return ""
            heuristic = _gradient(-F.logsigmoid(critic(generator.draw(j))).mean(), generator)
            if close(grads, -right):
                wrong = "the sign is turned, the generator must lower the metric"
            if close(grads, heuristic):
                wrong = "this is the non-saturating loss, and the metric is asked"
        nothing = "" if grads.any() else "there is no gradient (the generated batch is detached, or no backward()?)"
        return wrong or nothing or "not the gradient of the metric; do gradients add up (zero_grad)?"

    def _average(self, steps: list[list[Json]]) -> tuple[float, str]:
        before = self.average
        for step in steps:
            after, now = _flat(step[-1]["averaged"]), _flat(step[-1]["generator"])
            alpha = 1.0 if self.alpha is None else self.alpha
            if not close(after, alpha * before + (1 - alpha) * now):
                updates = [event for event in step if event["event"] == "generator"]
                earlier = _flat(updates[0]["generator"]) if updates else now
                known = [
                    (before, "is not updated"),
                    (alpha * before + (1 - alpha) * earlier, "is taken before the generator's update"),
                    ((1 - alpha) * before + alpha * now, "has its weights swapped"),
                    (now, "is a copy of the generator"),
                ]
                wrong = next((hint for value, hint in known if close(after, value)), "is wrong")
                return 0, f"the moving average {wrong if self.alpha else 'is updated although alpha_ema is None'}"
            before = after
        return 1, ""

    def _players(self, event: Json) -> tuple[Critic, Generator]:
        """The players as they were at an event, in float64."""
        exact = {n: {key: value.double() for key, value in spec.items()} for n, spec in self.players.items()}
        critic, generator = Critic(exact["critic"]), Generator(exact["generator"])
        for player, values in ((critic, event["critic"]), (generator, event["generator"])):
            torch.nn.utils.vector_to_parameters(_flat(values), player.parameters())
        return critic, generator


def _split(events: list[Json]) -> list[list[Json]]:
    """The events of each step; each update knows the batches that were drawn last before it."""
    steps: list[list[Json]] = [[]]
    drawn: dict[str, list[int]] = {"real": [], "fake": []}
    for event in events:
        steps[-1].append(event)
        if event["event"] in drawn:
            drawn[event["event"]].append(event["index"])
        elif event["event"] == "end":
            steps.append([])
        else:
            event |= {"reals": drawn["real"][:-5:-1], "fakes": drawn["fake"][:-5:-1]}
    return [step for step in steps if step]


def _count(player: str, counts: set[int], asked: int) -> str:
    given = ", ".join(map(str, sorted(counts)))
    return f"the {player} is updated {given} times in a step, and {asked} {'is' if asked == 1 else 'are'} asked"


def _position(step: list[Json], kind: str) -> int:
    return max((number for number, event in enumerate(step) if event["event"] == kind), default=-1)


def _flat(values: list[Json]) -> Tensor:
    return torch.cat([decode({**value, "dtype": "float64"}).reshape(-1) for value in values])


def _gradient(value: Tensor, player: torch.nn.Module) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients(value, player)])
