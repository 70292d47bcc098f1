"""Question 2.2, the gradient penalties: their values in the mean over epsilon, and their gradients in the critic."""

import math

import torch
from torch import Tensor

from grade.question import Json, Question, Results, remarks
from grade.scenarios import Critic, decode
from grade.verdict import Finding, close, compare, failure, known, worst, wrong

FILE = "gan"
SIGMAS = 6.0  # standard errors that a mean over epsilon may be away


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(seed: int, size: int) -> Json:
    """A linear critic's parameters."""
    return {"v": random(seed, size) + 0.3, "bias": random(seed + 1, 1)[0]}


def exact_critic(spec: Json) -> Critic:
    return Critic({name: value.double() for name, value in spec.items()})


def _bent(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Json]:
    """Real and generated samples, and a quadratic critic whose slope tells where between them it is taken.

    Each real sample lies in one direction from its generated one. The slope changes along that direction, and
    more so beside it, where epsilons of their own for each component lead.
    """
    size = math.prod(shape[1:])
    direction = torch.nn.functional.normalize(random(seed, size).sign() + 0.3 * random(seed + 1, size), dim=0)
    noise = 0.25 / math.sqrt(size)
    q = noise * random(seed + 2, shape[0], size) + 0.4 * direction
    p = q + 2 * direction + noise * random(seed + 3, shape[0], size)
    along = torch.outer(direction, direction)
    critic = {"m": 1.5 * along + 5 * (torch.eye(size) - along), "v": -0.5 * direction, "bias": torch.tensor(0.3)}
    return p.reshape(shape), q.reshape(shape), critic


class Penalty:
    """What a penalty of one kind should be, for one critic and batch of real and generated samples."""

    def __init__(
        self, name: str, check: str, shape: tuple[int, ...], seed: int, repeats: int, backward: bool = False
    ) -> None:
        self.name, self.check = name, check
        p, q, spec = _bent(seed, shape)
        if backward and name == "ogp":
            spec = linear(seed, shape[1])  # whose penalty and gradient do not depend on epsilon
        case = {"function": name, "critic": spec, "p": p, "q": q, "repeats": repeats, "backward": backward}
        # Public tests pass samples that require a gradient already; training does not.
        self.cases: list[Json] = [case | {"leaves": leaves} for leaves in (True, False)]
        critic, p, q = exact_critic(spec), p.double(), q.double()

        def slopes(x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
            return found

        def norms(x: Tensor) -> Tensor:
            return slopes(x).flatten(1).norm(dim=1)

        if name == "r1gp":
            g = slopes(p)
            n = g.flatten(1).square().sum(1)
            self.right, self.spread, self.single = n.mean(), torch.tensor(0.0), math.nan
            names = {"g": g, "n": n, "N": len(p), "fake": slopes(q)}
        else:
            g = torch.stack([slopes(q + (step + 0.5) / 64 * (p - q)) for step in range(64)])
            n = g.flatten(2).norm(dim=2)
            terms = (n - 1).square()
            self.right, self.spread = terms.mean(), terms.mean(1).std().detach()
            self.single = terms.std(0).square().mean().sqrt().item()  # the spread of one sample's term
            random_places = torch.rand(300, *p.shape, generator=torch.Generator().manual_seed(5))
            beside = torch.stack([norms(q + epsilon * (p - q)) for epsilon in random_places])
            names = {"g": g, "n": n, "N": len(p), "beside": beside}
            names |= {"real": norms(p), "fake": norms(q), "middle": norms((p + q) / 2)}
        # Norms over some dimensions exist only where a sample has several.
        self.known = [other for other in known(name, **names) if p.dim() > 2 or "norm runs" not in other.hint]
        self.gradients = gradients(self.right, critic) if backward else []


def gradients(value: Tensor, player: torch.nn.Module) -> list[Tensor]:
    """The gradients of a value in a player's parameters, zero where it does not depend on them."""
    parameters = list(player.parameters())
    if not value.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    return list(torch.autograd.grad(value, parameters, materialize_grads=True, retain_graph=True, allow_unused=True))


def question() -> Question:
    penalties = []
    for name, seed, many, more in (("ogp", 220, 16, 100), ("r1gp", 240, 1, 1)):
        penalties += [
            Penalty(name, f"{name} of vectors", (64, 3), seed, many),
            Penalty(name, f"{name} of vectors", (1, 2), seed + 4, more),
            Penalty(name, f"{name} of images", (32, 3, 4, 5), seed + 8, many),
            Penalty(name, f"{name}'s gradient", (8, 3), seed + 12, 1, backward=True),
        ]

    def judge(results: Results, reason: str, other_shape: float) -> tuple[list[Finding], list[str]]:
        checks: dict[str, list[Finding]] = {}
        notes: list[str] = []
        for number, penalty in enumerate(penalties):
            required, plain = (
                _judge(penalty, result, reason, other_shape) for result in results[2 * number : 2 * number + 2]
            )
            best = max(required, plain, key=lambda finding: finding.score)
            checks.setdefault(penalty.check, []).append(best)
            if required.score != plain.score:
                must = "" if required.score else "do not "
                notes.append(f"{penalty.name} works only where the samples {must}require a gradient already")
        findings = [worst(check, found) for check, found in checks.items()]
        for name in ("ogp", "r1gp"):
            mine = [finding for finding in findings if finding.check.startswith(name)]
            if not mine[0].score and not mine[1].score:
                mine[2].score = 0.0
            for finding in mine:
                finding.hint = f"{name}: {finding.hint}" if finding.hint else ""
        return findings, [*dict.fromkeys(notes), *remarks(results)]

    cases = [case for penalty in penalties for case in penalty.cases]
    return Question("2.2", FILE, ("ogp", "r1gp"), "penalty", cases, judge)


def _judge(penalty: Penalty, result: Json | None, reason: str, other_shape: float) -> Finding:
    failed = failure(result, reason)
    if failed or result is None:
        return failed or Finding("", 0, reason)
    right = penalty.right.detach()
    for answer in result["values"]:
        if "tensor" not in answer or math.prod(answer["shape"]) != 1:
            return compare(answer, right)
    values = torch.tensor([answer["tensor"][0] for answer in result["values"]], dtype=torch.float64)
    if penalty.gradients:
        return _judge_gradient(penalty, result["grads"][0], values[0])
    mean, error = values.mean(), penalty.spread
    varies = len(values) > 1 and bool(values.std() > 1e-6 * right.abs())
    if varies:
        error = values.std() / math.sqrt(len(values))
    nearest = min(penalty.known, key=lambda other: (mean - other.values).abs().item())
    # Without a draw, or with a seed inside, the estimate may be far off; but not where it is a known wrong answer.
    target = nearest.values.reshape(1)
    exact = not varies and close(mean.reshape(1), target) and not close(target, right.reshape(1))
    if (mean - right).abs() <= SIGMAS * error + 1e-3 * right.abs() + 1e-6 and not exact:
        size = len(penalty.cases[0]["p"])
        # The mean over the batch varies by single / sqrt(size), with one epsilon for all by spread: halfway between.
        if varies and size > 1 and values.std() > math.sqrt(penalty.spread * penalty.single / math.sqrt(size)):
            return Finding("", other_shape, "one epsilon is drawn for the whole batch: draw one for each sample")
        return Finding("", 1)
    fits = (mean - nearest.values).abs() <= SIGMAS * error + 5e-3 * nearest.values.abs()
    return Finding("", 0, nearest.hint if fits else wrong(mean.reshape(()), right, []))


def _judge_gradient(penalty: Penalty, grads: list[Json], value: Tensor) -> Finding:
    """Whether training the critic can lower the penalty."""
    given = [decode({**grad, "dtype": "float64"}) for grad in grads]
    if all(close(mine.flatten(), right.flatten()) for mine, right in zip(given, penalty.gradients, strict=True)):
        return Finding("", 1)
    if all(not grad.any() for grad in given):
        return Finding("", 0, "it has no gradient in the critic's parameters: create_graph=True is missing")
    same = close(value.reshape(1), penalty.right.detach().reshape(1))
    return Finding("", 0, f"its gradient in the critic's parameters is wrong{'' if same else ', as its value is'}")
