r"""Theory of the dirac game: vector field, eigenvalues, and predictions.

The state is (ψ₀, ψ₁, θ): the critic is C(x) = ψ₀x + ψ₁, the generated point θ, the real point t. The metric is a
function of C(t) and C(θ), with derivatives a and -b. In continuous time the players follow the vector field

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
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.special import expit

from dirac import Game, Trajectory, measure
from question2.modified_field import follow, modified_field


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


def play(game: Game, start: Sequence[float], updates: int) -> Trajectory:
    """Play one game from (ψ₀, ψ₁, θ) by its equations: that of :func:`dirac.play` with SGD, many times faster.

    A game that diverges ends early.
    """
    states = [np.asarray(start, dtype=float)]
    critic, generator = np.diag([1.0, 1.0, 0.0]) * game.critic_lr, np.diag([0.0, 0.0, 1.0]) * game.generator_lr
    for _ in range(updates):
        state = states[-1]
        for part in (*[critic] * game.critic_inner_iters, generator):
            state = state + part @ np.array(field(game, *state))
        if np.abs(state).max() > 1e6:
            break
        states.append(state)
    psi0, psi1, theta = np.array(states).T
    averaged = None if game.alpha_ema is None else moving_average(theta[:, None], game.alpha_ema)
    return Trajectory(theta[:, None], np.stack([psi0, psi1], axis=1)[..., None], averaged)


def jacobian(game: Game) -> np.ndarray:
    """The field's Jacobian ``(3, 3)`` in (ψ₀, ψ₁, θ) at the equilibrium; with GP, that of its two smooth pieces.

    Without weight decay the field vanishes at ψ₀ = 0, θ = t and, for JSD, ψ₁ = 0; with GP it vanishes nowhere, since
    at ψ₀ = 0 it jumps by 4c. The penalty adds -2c to the entry of ψ₀: the negative trace turns circles into spirals. So
    does, with JSD, a target other than zero, which couples ψ₀ and ψ₁.
    """
    b, t = game.slope, game.target
    damping = 0.0 if game.reg_type is None else 2 * game.reg_cf
    rows = np.array([[-damping, 0.0, -b], [0.0, 0.0, 0.0], [b, 0.0, 0.0]])
    if game.loss_type == "JSD":
        rows[:2, :2] -= np.array([[t * t, t], [t, 1.0]]) / 4
    return rows - np.diag([game.critic_wd, game.critic_wd, game.generator_wd])


def alternating(game: Game) -> np.ndarray:
    """The linear map ``(3, 3)`` of one update at the equilibrium: the critic's steps, then the generator's."""
    rows = jacobian(game)
    critic, generator = rows * [[1], [1], [0]], rows * [[0], [0], [1]]
    critic_step = np.eye(3) + game.critic_lr * critic
    return (np.eye(3) + game.generator_lr * generator) @ np.linalg.matrix_power(critic_step, game.critic_inner_iters)


def rotation(game: Game, matrix: np.ndarray, size: Callable[[complex], float]) -> complex:
    """The eigenvalue of the motion in (ψ₀, θ): of a complex pair, the one with positive imaginary part.

    If all are real, it is the largest by ``size``: the real part for a flow, the absolute value for a map.
    """
    if game.loss_type == "W1" or game.target == 0:
        matrix = matrix[::2, ::2]  # ψ₁ is decoupled
    eigenvalues = np.linalg.eigvals(matrix).astype(complex)
    turning = [value for value in eigenvalues if value.imag > 1e-9]
    return complex(turning[0]) if turning else complex(max(eigenvalues, key=size))


def predict(game: Game, start: np.ndarray, updates: int) -> dict[str, Any] | None:
    """Predict games from starting points (ψ₀, ψ₁, θ), ``(n, 3)``; None for other optimisers or penalties.

    The eigenvalues describe the linearised game exactly, but the game is not linear. So we integrate the flow of the
    modified field from each start and measure it like a game. The moving average is a linear filter of the flow. If
    steps are so large that the modified field's eigenvalue is off by a thousandth, we use only the exact eigenvalue.

    Returns:
        The values of :func:`dirac.measure` without the amplitudes of single games, and the eigenvalues as (real,
        imaginary) in continuous time (``flow``) and per update (``update``).
    """
    if game.optimizer != "SGD" or game.reg_type not in (None, "R1", "GP"):
        return None
    flow, mu = rotation(game, jacobian(game), np.real), rotation(game, alternating(game), abs)
    eigenvalues = {"flow": [flow.real, flow.imag], "update": [mu.real, mu.imag]}
    exponent = cmath.log(mu or 1e-300)  # an update may reach the target
    rate, angle = -exponent.real, abs(exponent.imag)
    if rate < -1e-9:
        return {"verdict": "diverges", "period": None, "rate": None, "amplitude": None, **eigenvalues}
    if abs(modified_eigenvalue(game) - exponent) > 1e-3 * abs(exponent):
        verdict = "converges" if rate > 1e-9 else "circles"
        if game.reg_type == "GP":
            verdict = "circles" if angle > 1e-9 else "settles off the target"
        period = 2 * math.pi / angle if angle > 1e-9 else None
        return {"verdict": verdict, "period": period, "rate": rate, "amplitude": None, **eigenvalues}
    states = np.stack([follow(game, each, updates) for each in start], axis=-1)
    averaged = None if game.alpha_ema is None else moving_average(states[:, 2], game.alpha_ema)
    found = measure(Trajectory(states[:, 2], states[:, :2], averaged), game)
    found = {key: value for key, value in found.items() if key not in ("amplitudes", "rates")}
    return {**found, **eigenvalues}


def modified_eigenvalue(game: Game) -> complex:
    """The eigenvalue of the modified field in (ψ₀, θ), per update: nearly the logarithm of the map's."""
    # On each side of ψ₀ = 0 the field of the one-centred penalty is that of R1 with a shifted centre.
    field = modified_field(dataclasses.replace(game, reg_type=game.reg_type and "R1"))
    centre, small = np.array([0.0, 0.0, game.target]), 1e-5
    ahead, behind = (np.array([field(*(centre + step)) for step in sign * small * np.eye(3)]).T for sign in (1, -1))
    return rotation(game, (ahead - behind) / (2 * small), np.real)


def moving_average(theta: np.ndarray, alpha: float) -> np.ndarray:
    """The moving average of θ ``(T + 1, n)``, which starts at the first θ: a low-pass filter."""
    filtered, _ = lfilter([1 - alpha], [1, -alpha], theta[1:], axis=0, zi=alpha * theta[:1])
    return np.concatenate([theta[:1], filtered])


def compare(game: Game, trajectory: Trajectory) -> dict[str, Any]:
    """Prediction and measurement of one configuration."""
    start = np.column_stack([trajectory.psi[0].T, trajectory.theta[0]]).astype(float)
    predicted = predict(game, start, updates=len(trajectory.theta) - 1)
    return {"predicted": predicted, "measured": measure(trajectory, game)}
