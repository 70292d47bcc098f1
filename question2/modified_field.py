r"""The flow that the dirac game follows in discrete time, by backward error analysis.

An update is the critic's steps, then the generator's, each an Euler step along its part of the vector field. The
iterates do not lie on the flow of that field, but on the flow of a modified field. With A the increment of a critic
step and B that of the generator's, the modified field is

.. math:: A + B + \tfrac12 (B'A - A'B) - \tfrac12 A'A - \tfrac12 B'B + \dots

for one critic step. An Euler step along A is the time-one flow of A - ½A'A + ⅓(…); the Baker-Campbell-Hausdorff
formula composes two flows to one. Both series are taken up to their third terms. Time is in updates.

Source: Hairer, Lubich and Wanner (2006), Geometric numerical integration, chapter IX (backward error analysis) and
section III.4.2 (the formula of Baker, Campbell and Hausdorff), https://doi.org/10.1007/3-540-30666-8
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from scipy.integrate import solve_ivp

from dirac import Game

Field = Callable[..., list[float]]


@functools.cache
def derive(loss_type: str, reg_type: str | None, critic_inner_iters: int) -> Field:
    """The modified field as a function of ψ₀, ψ₁, θ and the game's constants, which :func:`modified_field` fills in.

    The one-centred penalty is that of one side of ψ₀ = 0; ``side`` is the sign of ψ₀ there.
    """
    state = sympy.Matrix(sympy.symbols("psi0 psi1 theta", real=True))
    constants = sympy.symbols("side critic_lr generator_lr weight target critic_wd generator_wd", real=True)
    psi0, psi1, theta = state
    side, critic_lr, generator_lr, weight, target, critic_wd, generator_wd = constants

    def along(f: sympy.Matrix, g: sympy.Matrix) -> sympy.Matrix:
        return f.jacobian(state) * g

    def bracket(f: sympy.Matrix, g: sympy.Matrix) -> sympy.Matrix:
        return along(g, f) - along(f, g)

    def euler(f: sympy.Matrix) -> tuple[sympy.Matrix, sympy.Matrix, sympy.Matrix]:
        """The field whose time-one flow is an Euler step along f, by orders."""
        second = -along(f, f) / 2
        return f, second, -(along(f, second) + along(second, f)) / 2 - along(along(f, f), f) / 6

    a = b = sympy.Integer(1)
    if loss_type == "JSD":
        # Hyperbolic tangents, since a - b then has no constants that cancel to rounding errors near the equilibrium.
        a, b = ((1 + sympy.tanh(u / 2)) / 4 for u in (-psi0 * target - psi1, psi0 * theta + psi1))
    penalty = {"R1": 2 * psi0, "GP": 2 * (psi0 - side), None: 0}[reg_type]
    critic = sympy.Matrix([a * target - b * theta - weight * penalty - critic_wd * psi0, a - b - critic_wd * psi1, 0])
    generator = sympy.Matrix([0, 0, b * psi0 - generator_wd * theta])
    x = [critic_inner_iters * term for term in euler(critic_lr * critic)]
    y = euler(generator_lr * generator)
    field = x[0] + y[0] + x[1] + y[1] + bracket(x[0], y[0]) / 2
    field += x[2] + y[2] + (bracket(x[0], y[1]) + bracket(x[1], y[0])) / 2
    field += (bracket(x[0], bracket(x[0], y[0])) + bracket(y[0], bracket(y[0], x[0]))) / 12
    return sympy.lambdify([*state, *constants], list(field), modules="math", cse=True)


def modified_field(game: Game) -> Field:
    """The modified field of a game: maps ψ₀, ψ₁, θ and the sign of ψ₀ to their change per update."""
    field = derive(game.loss_type, game.reg_type, game.critic_inner_iters)
    rates = (game.critic_lr, game.generator_lr, game.reg_cf, game.target, game.critic_wd, game.generator_wd)
    return lambda psi0, psi1, theta, side=1.0: field(psi0, psi1, theta, side, *rates)


def follow(game: Game, start: np.ndarray, updates: int) -> np.ndarray:
    """The flow of the modified field from one start (ψ₀, ψ₁, θ), after 0, 1, … updates: ``(updates + 1, 3)``.

    With the one-centred penalty the field jumps at ψ₀ = 0. The game uses the sign of ψ₀ at the start of an update. So
    does the flow: it crosses the line, stays in the old field until the end of the update, and then switches.
    """
    field, switches = modified_field(game), game.reg_type == "GP"
    states = np.empty((updates + 1, 3))
    states[0], at = start, 0
    times = np.arange(updates + 1.0)  # the solver would convert integers in every step
    # A state that decays to zero needs relative accuracy at any size; elsewhere rounding errors set the limit.
    accuracy: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-12 if switches or game.target else 1e-60}
    while at < updates:
        side = 1.0 if states[at, 0] >= 0 else -1.0
        flow = functools.partial(_flow, field, side)
        events = _crossing(side) if switches else None
        piece = solve_ivp(flow, (at, updates), states[at], "DOP853", times[at:], events=events, **accuracy)
        states[at : at + piece.y.shape[1]] = piece.y.T
        if not piece.success:
            raise ArithmeticError(f"cannot integrate the flow of {game}: {piece.message}")
        if piece.status == 0:
            break
        crossed, at = piece.t_events[0][0], math.floor(piece.t_events[0][0]) + 1
        if at <= updates:
            rest = solve_ivp(flow, (crossed, at), piece.y_events[0][0], "DOP853", **accuracy)
            states[at] = rest.y[:, -1]
    return states


def _flow(field: Field, side: float, time: float, state: np.ndarray) -> list[float]:
    return field(*map(float, state), side)


def _crossing(side: float) -> Callable:
    def critics_slope(time: float, state: np.ndarray) -> float:
        return state[0]

    critics_slope.terminal, critics_slope.direction = True, -side  # type: ignore[attr-defined]
    return critics_slope


def contraction(step: float) -> float:
    r"""Growth of 1/r² per update in the plain JSD game about target 0: h²/640, with r the distance from equilibrium.

    In continuous time r is conserved for both losses. Alternating updates add a field of order h. With W1 this field
    has a conserved quantity too. With JSD its effect does not cancel over a turn: to the leading orders in r, with φ
    the angle and the critic's offset :math:`\psi_1 = r^2 (2\cos 2\varphi - \sin 2\varphi)/20`,

    .. math:: \frac{d r^2}{dt} = \frac{h}{16} r^2 \cos 2\varphi, \quad
        \frac{d\varphi}{dt} = \tfrac14 + \tfrac18\big(\tfrac12 r^2 \sin 2\varphi + \psi_1\big),

    The average over a turn is :math:`d(r^{-2})/dt = h/640`, an effect of the discretisation: proportional to h per unit
    of time and to h² per update. So r falls like one over the square root of the number of updates, slower than any
    exponential. This is the leading order in r and in h.

    Args:
        step: Step size h of both players.
    """
    return step**2 / 640
