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
from scipy.special import expit

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
    r"""Growth of 1/Q per update in the plain JSD game about target 0, near the equilibrium, for a step size h.

    :math:`Q = \psi_0^2 + \theta^2 - \tfrac h4 \psi_0 \theta` is conserved by the linear part of an update, not by the
    cubic part. In the limit of small Q, and exactly in h for 0 < h ≤ 4, 1/Q grows per update by

    .. math:: \frac{h^2 (32 - h^2)}{(64 - h^2)(320 - 64 h - 4 h^2 + h^3)} = \frac{h^2}{640} (1 + \tfrac h5 + O(h^2)),

    so r falls like one over the square root of the number of updates. ``report/contraction.typ`` has the proof.
    """
    return step**2 * (32 - step**2) / ((64 - step**2) * (320 - 64 * step - 4 * step**2 + step**3))


def drift(radius: float) -> float:
    r"""Change of r² in one turn of the plain JSD game about target 0, divided by h, for small steps h.

    In continuous time r is constant. The modified field's term of order h adds, with φ the angle and u = ψ₀θ,

    .. math:: \frac{d r^2}{d\varphi} = h \Big(b r^2 \cos 2\varphi + 2 b (1 - 2b) u \big(\frac{d\psi_1}{d\varphi}
        - \theta^2\big)\Big), \quad \frac{d\psi_1}{d\varphi} = \frac ab - 1,

    where a and b are those of ``question2/dirac_theory.py``.
    """

    def rates(angle: float, state: np.ndarray) -> tuple[float, float]:
        product = radius**2 * math.sin(2 * angle) / 2
        b = expit(product + state[0]) / 2
        offset = expit(-state[0]) / 2 / b - 1
        growth = b * radius**2 * math.cos(2 * angle)
        return offset, growth + 2 * b * (1 - 2 * b) * product * (offset - (radius * math.sin(angle)) ** 2)

    turns = 2 * np.pi * np.arange(6)  # the offset forgets its start at the rate exp(-φ)
    change = solve_ivp(rates, turns[[0, -1]], (0.0, 0.0), "DOP853", turns, rtol=1e-10, atol=1e-13).y[1]
    return float(change[-1] - change[-2])
