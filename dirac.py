"""The dirac game (question 2.6): one real point, one generated point, a linear critic.

The smallest game that shows how GANs fail to converge. The generator is a point θ, the critic C(x) = ψ₀x + ψ₁, the real
data one point. What the theory says about it is in ``dirac_theory.py``; here it is played, by the training step of
``gan.py``.

Source: Mescheder et al. (2018), Which training methods for GANs do actually converge?, section 2.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gan import make_train_step
from question2 import dirac_theory
from question2.dirac_theory import Game


class DiracGenerator(nn.Module):
    """A generator of one point, its only parameter.

    Args:
        std: Standard deviation of the point it starts from, N(0, std²).

    Example:
        >>> DiracGenerator()().shape
        torch.Size([1])
    """

    def __init__(self, std: float = 0.7) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(1) * std)

    def forward(self) -> Tensor:
        """The generated point, ``(1,)``."""
        return self.theta


class DiracCritic(nn.Module):
    r"""A linear critic, :math:`C(x) = \psi_0 x + \psi_1`.

    Args:
        std: Standard deviation of the parameters that it starts from, N(0, std²).

    Example:
        >>> critic = DiracCritic()
        >>> critic(torch.zeros(1)) == critic.psi[1]
        tensor([True])
    """

    def __init__(self, std: float = 0.7) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.randn(2) * std)

    def forward(self, x: Tensor) -> Tensor:
        """Values ``(N,)`` at points ``(N,)``."""
        slope, offset = self.psi
        return torch.addcmul(offset, slope, x)


@dataclass
class Trajectory:
    """What the players did: each array has one entry for the start and one after each of T updates, for n games."""

    theta: np.ndarray  # (T + 1, n)
    psi: np.ndarray  # (T + 1, 2, n)
    averaged: np.ndarray | None = None  # (T + 1, n), the moving average of θ

    @property
    def plane(self) -> np.ndarray:
        """The plane of the game's rotation, (ψ₀, θ), as complex numbers ψ₀ + iθ, ``(T + 1, n)``."""
        with np.errstate(invalid="ignore"):  # of games that have diverged
            return self.psi[:, 0] + 1j * self.theta


def starting_points(seed: int, games: int = 8, std: float = 0.7) -> tuple[Tensor, Tensor]:
    """Points to start games from: θ ``(games,)`` and ψ ``(2, games)``, as the players draw them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(games, generator=generator) * std, torch.randn(2, games, generator=generator) * std


def play(game: Game, theta: Tensor, psi: Tensor, updates: int, label: str | None = None) -> Trajectory:
    """Play independent games side by side, from one start each, with SGD.

    The loss is a mean over n games that share no parameter, so each game's gradient comes out divided by n; with n
    times the learning rates every game is the one that it would be alone.

    Args:
        game: Loss, penalty, average, target, learning rates, and critic updates for each of the generator's.
        theta, psi: Where the games start, ``(n,)`` and ``(2, n)``.
        updates: Number T of generator updates.
        label: A progress bar's; None for no bar.
    """
    n = len(theta)
    generator, critic = DiracGenerator(), DiracCritic()
    generator.theta, critic.psi = nn.Parameter(theta.clone()), nn.Parameter(psi.clone())
    averaged = copy.deepcopy(generator)
    generator_optim, critic_optim = (
        torch.optim.SGD(player.parameters(), lr=n * lr, weight_decay=wd / n, foreach=False)
        for player, lr, wd in (
            (generator, game.generator_lr, game.generator_wd),
            (critic, game.critic_lr, game.critic_wd),
        )
    )
    step = make_train_step(game.loss_type, game.critic_inner_iters, game.reg_type, game.reg_cf, game.alpha_ema)
    data = itertools.repeat(theta.new_full((n,), game.target))
    thetas, psis, averages = (
        value.new_empty(updates + 1, *value.shape) for value in (generator.theta, critic.psi, generator.theta)
    )
    for t in tqdm(range(updates + 1), desc=label, unit=" updates", disable=label is None, leave=False):
        if t:
            step(data, critic, critic_optim, generator, averaged, generator_optim)
        thetas[t], psis[t], averages[t] = generator.theta.data, critic.psi.data, averaged.theta.data
    return Trajectory(thetas.numpy(), psis.numpy(), averages.numpy() if game.alpha_ema is not None else None)


def measure(trajectory: Trajectory, game: Game) -> dict[str, Any]:
    """What the games did, in the terms of :func:`dirac_theory.predict`: medians over the games.

    Returns:
        ``verdict``; ``period`` in updates, from the angle covered in the second half; ``rate``, minus the slope of the
        logarithm of the distance from the target in (ψ₀, θ) there, for games that converge; ``amplitude``, the
        largest distance of θ from the target in the last tenth; the same of the moving average.
    """
    plane = trajectory.plane - 1j * game.target
    tenth = max(1, len(plane) // 10)
    verdict = _verdict(plane, tenth)
    if verdict == "diverges":
        return {"verdict": verdict, "period": None, "rate": None, "amplitude": None}
    # Nearer to the target than the digits of θ there is nothing left to measure.
    above = np.median(np.abs(plane), axis=1) > 1e3 * np.finfo(np.float32).eps * abs(game.target)
    length = len(plane) if above.all() else int(np.argmin(above))
    late = plane[length // 2 : length]
    turned = np.abs(np.unwrap(np.angle(late), axis=0)[-1] - np.angle(late)[0]) / max(1, len(late) - 1)
    periods = 2 * np.pi / np.maximum(turned, 1e-12)
    # Whole turns: the distance wobbles within one.
    period = int(np.clip(np.median(periods), 1, max(1, len(late) // 2)))
    whole = late[: 1 + (len(late) - 1) // period * period]
    rate = None
    if len(whole) > 1 and (np.abs(whole) > 0).all():
        rate = float(np.median(-np.polyfit(np.arange(len(whole)), np.log(np.abs(whole)), 1)[0]))
    amplitudes = np.abs(plane.imag[-tenth:]).max(0)
    result: dict[str, Any] = {
        "verdict": verdict,
        "period": float(np.median(periods)) if verdict != "settles off the target" else None,
        "rate": rate,
        "amplitude": float(np.median(amplitudes)),
        "amplitudes": amplitudes.tolist(),
    }
    if trajectory.averaged is not None:
        away = trajectory.averaged - game.target
        result["averaged"] = {"amplitude": float(np.median(np.abs(away[-tenth:]).max(0)))}
    return result


def _verdict(away: np.ndarray, tenth: int) -> str:
    """What becomes of the distance from the target, ``(T + 1, n)``, between the first and the last tenth."""
    first, last = np.abs(away[:tenth]).max(0), np.abs(away[-tenth:])
    if not np.isfinite(last).all() or np.median(last.max(0) / first) > 2:
        return "diverges"
    if np.median(last.max(0) / first) < 0.1 or not last.any():
        return "converges"
    still = np.abs(away[-tenth:] - away[-1]).max(0)
    return "settles off the target" if np.median(still / last.max(0)) < 0.01 else "circles"


def report(game: Game, trajectory: Trajectory) -> dict[str, Any]:
    """Prediction and measurement of one configuration side by side, for the table."""
    start = (trajectory.psi[0, 0], trajectory.theta[0])
    predicted = dirac_theory.predict(game, start, updates=len(trajectory.theta) - 1)
    return {"predicted": predicted, "measured": measure(trajectory, game)}
