"""The dirac game (question 2.6): one real point, one generated point, a linear critic.

The smallest game that shows how GANs fail to converge. The generator is a point θ, the critic C(x) = ψ₀x + ψ₁, the real
data one point. This module plays it with the training step of ``gan.py``; the theory is in
``question2/dirac_theory.py``.

Source: Mescheder et al. (2018), Which training methods for GANs do actually converge?, section 2.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gan import make_train_step


class DiracGenerator(nn.Module):
    """A generator of one point, which is its only parameter.

    Args:
        std: Standard deviation of the initial point, from N(0, std²).

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
        std: Standard deviation of the initial parameters, from N(0, std²).

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


@dataclass(frozen=True)
class Game:
    """A configuration of the dirac game. With SGD, learning rates are step sizes h of plain gradient descent."""

    loss_type: str = "JSD"
    reg_type: str | None = None
    reg_cf: float = 0.1
    alpha_ema: float | None = None
    target: float = 0.0
    generator_lr: float = 0.1
    critic_lr: float = 0.1
    critic_wd: float = 0.0
    generator_wd: float = 0.0
    critic_inner_iters: int = 1
    optimizer: str = "SGD"
    generator_betas: tuple[float, float] = (0.0, 0.99)
    critic_betas: tuple[float, float] = (0.0, 0.99)

    @property
    def slope(self) -> float:
        """The field's b at an equilibrium: 1 for W1, ½σ(0) = ¼ for JSD."""
        return 1.0 if self.loss_type == "W1" else 0.25


@dataclass
class Trajectory:
    """The parameters of n games at the start and after each of T updates."""

    theta: np.ndarray  # (T + 1, n)
    psi: np.ndarray  # (T + 1, 2, n)
    averaged: np.ndarray | None = None  # (T + 1, n), the moving average of θ

    @property
    def plane(self) -> np.ndarray:
        """The parameters in the plane of rotation, as complex numbers ψ₀ + iθ, ``(T + 1, n)``."""
        with np.errstate(invalid="ignore"):  # diverged games
            return self.psi[:, 0] + 1j * self.theta


def starting_points(seed: int, games: int = 8, std: float = 0.7) -> tuple[Tensor, Tensor]:
    """Random starting points with the distribution of the players': θ ``(games,)`` and ψ ``(2, games)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(games, generator=generator) * std, torch.randn(2, games, generator=generator) * std


def play(game: Game, theta: Tensor, psi: Tensor, updates: int) -> Trajectory:
    """Play independent games side by side from θ ``(n,)`` and ψ ``(2, n)``, for T generator updates.

    The loss is a mean over N games that share no parameter, so each game's gradient is divided by N. SGD compensates
    with N times the learning rate; Adam does not depend on the scale of the gradient if ε is divided by N too. N is a
    power of two, reached with copies of the last game: the division is exact, and results do not depend on the batch.
    """
    n = len(theta)
    filled = torch.arange(1 << (n - 1).bit_length()).clamp(max=n - 1)
    generator, critic = DiracGenerator(), DiracCritic()
    generator.theta, critic.psi = nn.Parameter(theta[filled]), nn.Parameter(psi[:, filled])
    averaged = copy.deepcopy(generator)
    generator_optim = _optimizer(game, generator, game.generator_lr, game.generator_wd, game.generator_betas)
    critic_optim = _optimizer(game, critic, game.critic_lr, game.critic_wd, game.critic_betas)
    step = make_train_step(game.loss_type, game.critic_inner_iters, game.reg_type, game.reg_cf, game.alpha_ema)
    data = itertools.repeat(theta.new_full(filled.shape, game.target))
    thetas, psis, averages = (
        value.new_empty(updates + 1, *value.shape) for value in (generator.theta, critic.psi, generator.theta)
    )
    for t in range(updates + 1):
        if t:
            step(data, critic, critic_optim, generator, averaged, generator_optim)
        thetas[t], psis[t], averages[t] = generator.theta.data, critic.psi.data, averaged.theta.data
    played = [values[..., :n].numpy() for values in (thetas, psis, averages)]
    return Trajectory(played[0], played[1], played[2] if game.alpha_ema is not None else None)


def _optimizer(
    game: Game, player: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """The optimiser of one player in N games whose gradients are divided by N."""
    (parameter,) = player.parameters()
    count = parameter.shape[-1]
    if game.optimizer == "SGD":
        return torch.optim.SGD([parameter], lr=count * lr, weight_decay=weight_decay / count, foreach=False)
    return torch.optim.Adam(
        [parameter], lr=lr, betas=betas, eps=1e-8 / count, weight_decay=weight_decay / count, foreach=False
    )


def measure(trajectory: Trajectory, game: Game) -> dict[str, Any]:
    """Measure the quantities that ``question2/dirac_theory.py`` predicts, as medians over the games.

    Returns:
        ``verdict``; ``period`` in updates, from the angle covered in the second half; ``rate``, minus the slope of the
        logarithm of the distance from the target in (ψ₀, θ) there, None for the one-centred penalty; ``amplitude``, the
        largest distance of θ from the target in the last tenth, and for the moving average the same (``averaged``); and
        ``rates`` and ``amplitudes`` of the single games.
    """
    plane = trajectory.plane - 1j * game.target
    tenth = max(1, len(plane) // 10)
    verdict = _verdict(plane, tenth)
    if verdict == "diverges":
        return {"verdict": verdict, "period": None, "rate": None, "amplitude": None}
    # Closer to the target than the rounding error of θ, distances are meaningless.
    above = np.median(np.abs(plane), axis=1) > 1e3 * np.finfo(np.float32).eps * abs(game.target)
    length = len(plane) if above.all() else int(np.argmin(above))
    late = plane[length // 2 : length]
    turned = np.abs(np.unwrap(np.angle(late), axis=0)[-1] - np.angle(late)[0]) / max(1, len(late) - 1)
    periods = 2 * np.pi / np.maximum(turned, 1e-12)
    # Only whole turns, because the distance oscillates within a turn.
    period = int(np.clip(np.median(periods), 1, max(1, len(late) // 2)))
    whole = late[: 1 + (len(late) - 1) // period * period]
    rates = None
    if game.reg_type != "GP" and len(whole) > 1 and (np.abs(whole) > 0).all():
        rates = -np.polyfit(np.arange(len(whole)), np.log(np.abs(whole)), 1)[0]
    amplitudes = np.abs(plane.imag[-tenth:]).max(0)
    result: dict[str, Any] = {
        "verdict": verdict,
        "period": float(np.median(periods)) if verdict != "settles off the target" else None,
        "rate": None if rates is None else float(np.median(rates)),
        "amplitude": float(np.median(amplitudes)),
        "amplitudes": amplitudes.tolist(),
        "rates": None if rates is None else rates.tolist(),
    }
    if trajectory.averaged is not None:
        away = trajectory.averaged - game.target
        result["averaged"] = {"amplitude": float(np.median(np.abs(away[-tenth:]).max(0)))}
    return result


def _verdict(away: np.ndarray, tenth: int) -> str:
    """Compare the distances from the target ``(T + 1, n)`` in the first and the last tenth of the updates."""
    first, last = np.abs(away[:tenth]).max(0), np.abs(away[-tenth:])
    if not np.isfinite(last).all() or np.median(last.max(0) / first) > 2:
        return "diverges"
    if np.median(last.max(0) / first) < 0.1 or not last.any():
        return "converges"
    still = np.abs(away[-tenth:] - away[-1]).max(0)
    return "settles off the target" if np.median(still / last.max(0)) < 0.01 else "circles"


if __name__ == "__main__":
    print("This module holds the game. Play it with: python run_exp.py --config 'dirac-*'")
