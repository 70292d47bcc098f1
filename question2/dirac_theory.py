r"""What theory says about the dirac game: vector field, equilibria, eigenvalues, and the verdict that they give.

The state is (ψ₀, ψ₁, θ); the critic is C(x) = ψ₀x + ψ₁, the real point t, the generated point θ. The metric is a
function of C(t) and C(θ), with derivatives a and -b there. In continuous time the players follow the vector field

.. math::
    \dot\psi_0 = a t - b \theta - c\, R'(\psi_0), \quad
    \dot\psi_1 = a - b, \quad
    \dot\theta = b \psi_0,

with a = b = 1 for W1, a = ½σ(-C(t)) and b = ½σ(C(θ)) for JSD, R = ψ₀² for R1 and (|ψ₀| - 1)² for GP, c its weight.
In discrete time the critic moves first, by a step of size h along its part of the field, then the generator.

Sources: Mescheder et al. (2018), Which training methods for GANs do actually converge?, sections 2 and 4; Filippov
(1988), Differential equations with discontinuous righthand sides, for the field of the one-centred penalty.
"""

import cmath
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from dirac import Game, Trajectory, measure


def field(game: Game, psi0: np.ndarray, psi1: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, ...]:
    """The vector field: the time derivatives of ψ₀, ψ₁ and θ, each of the common shape of the arguments."""
    psi0, psi1, theta = np.broadcast_arrays(psi0, psi1, theta)
    if game.loss_type == "W1":
        a = b = np.ones_like(psi0, dtype=float)
    else:
        a = expit(-(psi0 * game.target + psi1)) / 2
        b = expit(psi0 * theta + psi1) / 2
    penalty = {"R1": 2 * psi0, "GP": 2 * (np.abs(psi0) - 1) * np.sign(psi0), None: np.zeros_like(psi0)}[game.reg_type]
    cf = game.reg_cf
    return (
        a * game.target - b * theta - cf * penalty - game.critic_wd * psi0,
        a - b - game.critic_wd * psi1,
        b * psi0 - game.generator_wd * theta,
    )


def equilibria(game: Game) -> str:
    """Where the field vanishes, without weight decay. With GP nowhere: at ψ₀ = 0 it jumps, by 4c across the line."""
    if game.reg_type == "GP":
        return "none"
    return "ψ₀ = 0, θ = t, any ψ₁" if game.loss_type == "W1" else "ψ₀ = ψ₁ = 0, θ = t"


def jacobian(game: Game) -> np.ndarray:
    """The field's Jacobian ``(3, 3)`` in (ψ₀, ψ₁, θ) at the equilibrium; with GP, of the pieces beside it.

    The penalty adds -2c to the entry of ψ₀: its trace is what makes a circle a spiral. With JSD a target off zero does
    so too, for there ψ₀ and ψ₁ move together.
    """
    b, t = game.slope, game.target
    damping = 0.0 if game.reg_type is None else 2 * game.reg_cf
    rows = np.array([[-damping, 0.0, -b], [0.0, 0.0, 0.0], [b, 0.0, 0.0]])
    if game.loss_type == "JSD":
        rows[:2, :2] -= np.array([[t * t, t], [t, 1.0]]) / 4
    return rows - np.diag([game.critic_wd, game.critic_wd, game.generator_wd])


def alternating(game: Game) -> np.ndarray:
    """The linear map ``(3, 3)`` of one update there: the critic's steps, then a generator step that sees the result."""
    rows = jacobian(game)
    critic, generator = rows * [[1], [1], [0]], rows * [[0], [0], [1]]
    critic_step = np.eye(3) + game.critic_lr * critic
    return (np.eye(3) + game.generator_lr * generator) @ np.linalg.matrix_power(critic_step, game.critic_inner_iters)


def rotation(game: Game, matrix: np.ndarray, size: Callable[[complex], float]) -> complex:
    """The eigenvalue of the motion in (ψ₀, θ): of the complex pair, the one that turns counter-clockwise; of real
    eigenvalues, the one that decays most slowly by ``size``, a real part for a flow and an absolute value for a map.
    """
    if game.loss_type == "W1" or game.target == 0:
        matrix = matrix[::2, ::2]  # ψ₁ goes its own way
    eigenvalues = np.linalg.eigvals(matrix).astype(complex)
    turning = [value for value in eigenvalues if value.imag > 1e-9]
    return complex(turning[0]) if turning else complex(max(eigenvalues, key=size))


def linear_amplitude(game: Game, start: tuple[np.ndarray, np.ndarray], updates: int) -> float:
    """The largest distance of θ from the target in the last tenth of the updates, of the linear game from ψ₁ = 0: the
    median over the starts (ψ₀, θ).
    """
    update = alternating(game)
    state = np.stack([start[0].astype(float), np.zeros(len(start[0])), start[1].astype(float) - game.target])
    state = np.linalg.matrix_power(update, updates - updates // 10) @ state
    largest = np.abs(state[2])
    for _ in range(updates // 10):
        state = update @ state
        largest = np.maximum(largest, np.abs(state[2]))
    return float(np.median(largest))


def predict(game: Game, start: tuple[np.ndarray, np.ndarray], updates: int) -> dict[str, Any] | None:
    """What the eigenvalues say about games from some starting points (ψ₀, θ); nothing about optimisers but SGD.

    Without a penalty, or with R1, one update is :func:`alternating` near the equilibrium, with eigenvalue
    μ = exp(-rate + 2πi/period). With GP, each side of ψ₀ = 0 is such a spiral, but about a centre of its own, at
    θ = t ± 2c/b: half a turn about the one ends on the other's side. A distance r from the target becomes
    2c/b + (r + 2c/b)k with k = exp(-rate · period/2), whose fixed point is a limit cycle of amplitude
    2c/b · (1 + k)/(1 - k), close to 4/π for small c. Where c ≥ b nothing turns, and a side's centre is the end.

    Returns:
        ``verdict``, ``period`` (updates), ``rate`` (of decay, an update), ``amplitude`` of θ about the target in the
        last tenth of the updates (median over the starts; None of a game that diverges), the same of the moving average
        where the game circles, and the eigenvalues as pairs of real and imaginary part in continuous time (``flow``)
        and per update (``update``).
    """
    if game.optimizer != "SGD":
        return None
    flow, mu = rotation(game, jacobian(game), np.real), rotation(game, alternating(game), abs)
    rate, angle = -math.log(abs(mu)), abs(cmath.phase(mu))
    period = 2 * math.pi / angle if angle > 1e-9 else None
    amplitude: float | None
    if game.reg_type == "GP":
        centre = 2 * game.reg_cf / game.slope
        verdict = "circles" if period else "settles off the target"
        k = math.exp(-rate * period / 2) if period else 0.0
        amplitude = centre * (1 + k) / (1 - k)
        rate_seen = None  # on the cycle, what a half turn loses is given back at the jump
    else:
        verdict = "converges" if rate > 1e-9 else "diverges" if rate < -1e-9 else "circles"
        amplitude = None if verdict == "diverges" else linear_amplitude(game, start, updates)
        rate_seen = rate if abs(rate) > 1e-9 else 0.0
    result: dict[str, Any] = {
        "verdict": verdict,
        "period": period,
        "rate": rate_seen,
        "amplitude": amplitude,
        "flow": [flow.real, flow.imag],
        "update": [mu.real, mu.imag],
        "equilibria": equilibria(game),
    }
    if game.alpha_ema is not None:
        gain = averaging_gain(game.alpha_ema, cmath.rect(1, angle))
        result["averaged"] = {"gain": gain, "amplitude": gain * (amplitude or 0.0)} if verdict == "circles" else None
    return result


def averaging_gain(alpha: float, mu: complex) -> float:
    r"""What a moving average leaves of a rotation μᵗ: \|(1 - α) / (1 - α/μ)\|, a low-pass filter's gain."""
    return abs((1 - alpha) / (1 - alpha / mu))


def compare(game: Game, trajectory: Trajectory) -> dict[str, Any]:
    """Prediction and measurement of one configuration side by side, for the table."""
    start = (trajectory.psi[0, 0], trajectory.theta[0])
    predicted = predict(game, start, updates=len(trajectory.theta) - 1)
    return {"predicted": predicted, "measured": measure(trajectory, game)}
