"""Question 2.5, the training step, judged by what it does to players, data and optimisers that write it all down."""

from pathlib import Path
from typing import Any

import torch
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
        prints = any(result.get("prints") for result in results if result)
        return findings, [*["train_step returns nothing"] * nothing, *["it prints"] * prints]

    cases = [game.case for game in games]
    return Question("2.5", FILE, ("make_train_step",), "train_step", cases, judge, [stand_in()])


def stand_in() -> Json:
    """Our functions, to stand in for the submission's."""
    names = ["jsd", "w1", "ogp", "r1gp", "make_losses", "apply_exponential_moving_average"]
    return {"source": Path(gan.__file__).read_text(encoding="utf-8"), "names": names}


class Game:
    """One configuration of the step, played for some steps."""

    def __init__(self, arguments: tuple[Any, ...], linear: bool, seed: int, steps: int = 3) -> None:
        self.loss_type, self.inner, self.reg_type, self.reg_cf, self.alpha = arguments
        self.steps = steps
        random = torch.Generator().manual_seed(seed)
        critic = {"v": torch.randn(2 if linear else 4, generator=random), "bias": torch.randn((), generator=random)}
        if not linear:
            critic["w"] = torch.randn(2, 4, generator=random)
        noise = torch.randn(200, 5, 2, generator=random)
        generator = {
            "scale": torch.rand(2, generator=random) + 0.5,
            "shift": torch.randn(2, generator=random),
            "noise": noise,
        }
        self.start = torch.cat([generator["scale"], generator["shift"] + 1]).double()  # of the average
        real = torch.randn(200, 5, 2, generator=random) + 1
        self.case: Json = {
            "args": list(arguments),
            "critic": critic,
            "generator": generator,
            "real": real,
            "steps": steps,
            "lr": 0.1,
        }

    def judge(self, result: Json | None, reason: str) -> dict[str, Finding]:
        """A finding for each check; the moving average's only where there is one."""
        failed = failure(result, reason)
        if failed or result is None:
            return {
                c: Finding(c, 0, failed.hint if failed else reason, failed.attempted if failed else True)
                for c in CHECKS
            }
        events = result["events"]
        steps = _split(events)
        if not any(event["event"] in ("critic", "generator") for event in events):
            silent = result["value"].get("object", "") is None
            return {c: Finding(c, 0, "no optimiser takes a step", not silent) for c in CHECKS}
        judges = (self._critic, self._fresh, self._generator, self._average)
        findings = {check: judge(steps) for check, judge in zip(CHECKS, judges, strict=True)}
        # What nobody can get wrong in this game does not count.
        if self.alpha is None and findings["moving average"].score:
            del findings["moving average"]
        if self.inner == 1:
            del findings["fresh batches"]
        return findings

    # --- the critic ---

    def _critic(self, steps: list[list[Json]]) -> Finding:
        check = "critic's updates"
        counts = {sum(event["event"] == "critic" for event in step) for step in steps}
        hints = [self._critic_hint(event) for step in steps for event in step if event["event"] == "critic"]
        if counts != {self.inner}:
            return Finding(check, 0, _count("critic", counts, self.inner))
        if any(hints):
            return Finding(check, 0, next(filter(None, hints)))
        if any(_position(step, "generator") < _position(step, "critic") for step in steps):
            return Finding(check, 0.5, "the generator is updated before the critic's loop")
        return Finding(check, 1)

    def _critic_hint(self, event: Json) -> str:
        """What is wrong with an update of the critic; empty where nothing is. Writes down the batches that it used."""
        grads = _flat(event["grads"])
        for i in event["reals"]:
            for j in event["fakes"]:
                metric, penalty = self._critic_gradients(event, i, j)
                if close(grads, -metric + self.reg_cf * penalty):
                    event["used"] = (i, j)
                    return ""
        for i in event["reals"]:
            for j in event["fakes"]:
                metric, penalty = self._critic_gradients(event, i, j)
                known = [
                    (metric, "the sign is turned: the critic must raise the metric"),
                    (metric + self.reg_cf * penalty, "the sign is turned: the critic must raise the metric"),
                    (-metric, "the penalty is missing"),
                    (-metric + penalty, "reg_cf is not used"),
                ]
                for candidate, hint in known:
                    if close(grads, candidate):
                        return f"the critic's update: {hint}"
        if not grads.any():
            return "the critic's update: there is no gradient (no backward(), or zero_grad() after it)"
        if event["earlier"] is not None:
            return "the critic's update: not the gradient of its loss on one batch; do gradients add up (zero_grad)?"
        return "the critic's update: the gradient is not that of the critic's loss on one batch"

    def _critic_gradients(self, event: Json, i: int, j: int) -> tuple[Tensor, Tensor]:
        critic, generator = self._players(event)
        p, q = self.case["real"][i].double(), generator.draw(j).detach()
        metric = METRICS[self.loss_type](critic(p), critic(q))
        penalty: Tensor = torch.zeros((), dtype=torch.float64)
        if self.reg_type == "R1":
            penalty = gan.r1gp(p, critic(p), q, critic(q), critic)
        if self.reg_type == "GP":  # of a linear critic: the same wherever epsilon falls
            penalty = (critic.v.norm() - 1) ** 2
        return _gradient(metric, critic), _gradient(penalty, critic)

    # --- the batches ---

    def _fresh(self, steps: list[list[Json]]) -> Finding:
        check = "fresh batches"
        used = [[event.get("used") for event in step if event["event"] == "critic"] for step in steps]
        drawn = [sum(event["event"] == "real" for event in step) for step in steps]
        known = [pair for step in used for pair in step if pair]
        if not known and any(count < self.inner for count in drawn):
            return Finding(check, 0, "fewer real batches are drawn than the critic has updates")
        for position, name in ((0, "real"), (1, "generated")):
            indices = [pair[position] for pair in known]
            if len(set(indices)) < len(indices):
                once = any(len({pair[position] for pair in step if pair}) < len(step) for step in used)
                where = "all inner updates of the critic" if once else "several steps"
                return Finding(check, 0, f"the same {name} batch is used for {where}: draw one for each")
        return Finding(check, 1)

    # --- the generator ---

    def _generator(self, steps: list[list[Json]]) -> Finding:
        check = "generator's update"
        counts = {sum(event["event"] == "generator" for event in step) for step in steps}
        if counts != {1}:
            return Finding(check, 0, _count("generator", counts, 1))
        for step in steps:
            event = next(event for event in step if event["event"] == "generator")
            hint = self._generator_hint(event)
            if hint:
                return Finding(check, 0, hint)
        return Finding(check, 1)

    def _generator_hint(self, event: Json) -> str:
        grads = _flat(event["grads"])
        for i in reversed(event["reals"] or [0]):
            for j in reversed(event["fakes"]):
                critic, generator = self._players(event)
                p, q = self.case["real"][i].double(), generator.draw(j)
                right = _gradient(METRICS[self.loss_type](critic(p), critic(q)), generator)
                if close(grads, right):
                    return ""
                if close(grads, -right):
                    return "the generator's update: the sign is turned, the generator must lower the metric"
                heuristic = _gradient(-torch.nn.functional.logsigmoid(critic(generator.draw(j))).mean(), generator)
                if close(grads, heuristic):
                    return "the generator's update: this is the non-saturating loss, and the metric is asked"
        if not grads.any():
            return (
                "the generator's update: there is no gradient (is the generated batch detached, or backward() missing?)"
            )
        return "the generator's update: the gradient is not that of the metric; do gradients add up (zero_grad)?"

    # --- the average ---

    def _average(self, steps: list[list[Json]]) -> Finding:
        check = "moving average"
        before = self.start
        for step in steps:
            end = step[-1]
            after, now = _flat(end["averaged"]), _flat(end["generator"])
            if self.alpha is None:
                if not close(after, before):
                    return Finding(check, 0, "the average is updated although alpha_ema is None")
            elif not close(after, self.alpha * before + (1 - self.alpha) * now):
                updates = [event for event in step if event["event"] == "generator"]
                earlier = _flat(updates[0]["generator"]) if updates else now
                known = [
                    (before, "the moving average is not updated"),
                    (
                        self.alpha * before + (1 - self.alpha) * earlier,
                        "the moving average is taken before the generator's update",
                    ),
                    ((1 - self.alpha) * before + self.alpha * now, "the moving average's weights are swapped"),
                    (now, "the moving average is a copy of the generator"),
                ]
                hint = next(
                    (hint for value, hint in known if close(after, value)),
                    "the moving average is wrong: once, after the generator's update",
                )
                return Finding(check, 0, hint)
            before = after
        return Finding(check, 1)

    def _players(self, event: Json) -> tuple[Critic, Generator]:
        """The players as they were at an event, in float64."""
        exact = {
            name: {key: value.double() for key, value in self.case[name].items()} for name in ("critic", "generator")
        }
        critic, generator = Critic(exact["critic"]), Generator(exact["generator"])
        for player, values in ((critic, event["critic"]), (generator, event["generator"])):
            torch.nn.utils.vector_to_parameters(_flat(values), player.parameters())
        return critic, generator


def _split(events: list[Json]) -> list[list[Json]]:
    """The events of each step; each update knows the batches drawn so far, and whether there was an earlier one."""
    steps: list[list[Json]] = [[]]
    reals: list[int] = []
    fakes: list[int] = []
    earlier: dict[str, Json] = {}
    for event in events:
        kind = event["event"]
        if kind == "real":
            reals.append(event["index"])
        elif kind == "fake":
            fakes.append(event["index"])
        elif kind in ("critic", "generator"):
            event |= {"reals": reals[-4:][::-1], "fakes": fakes[-4:][::-1], "earlier": earlier.get(kind)}
            earlier[kind] = event
        steps[-1].append(event)
        if kind == "end":
            steps.append([])
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
