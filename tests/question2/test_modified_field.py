"""The contraction of the plain JSD game: the closed form against played games, the drift against the modified flow."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import dirac
from dirac import Game
from question2.modified_field import contraction, drift, modified_field


def test_first_order_of_the_contraction_is_a_fifth():
    step = Fraction(1, 10**9)
    assert (640 * contraction(step) / step**2 - 1) / step == pytest.approx(1 / 5, rel=1e-8)


def test_played_games_contract_as_in_closed_form():
    """Without the first order in h, or with it alone, theory would miss by 11 % or by 1 %."""
    step = 0.5
    angles, turn = torch.arange(4).double(), 8 * np.pi / step
    psi = 0.01 * torch.stack([angles.cos(), torch.zeros(4)])
    plane = dirac.play(Game("JSD", generator_lr=step, critic_lr=step), 0.01 * angles.sin(), psi, round(12 * turn)).plane
    inverse, window = 1 / (np.abs(plane) ** 2 - step / 4 * plane.real * plane.imag), round(4 * turn)
    change = inverse[-window:].mean(0) - inverse[window : 2 * window].mean(0)
    assert change / (len(inverse) - 2 * window) == pytest.approx(contraction(step), rel=1e-3)


@pytest.mark.parametrize("radius", [1.5, 2.2])
def test_drift_is_that_of_the_modified_flow_for_small_steps(radius):
    step = 1e-3
    field = modified_field(Game("JSD", generator_lr=step, critic_lr=step))

    def rates(_, state):
        change = np.array(field(*state))
        return change * (state[0] ** 2 + state[2] ** 2) / (state[0] * change[2] - state[2] * change[0])

    times = 2 * np.pi * np.array([5, 6])
    states = solve_ivp(rates, (0, times[-1]), (radius, 0, 0), "DOP853", times, rtol=1e-12, atol=1e-13).y
    squares = states[0] ** 2 + states[2] ** 2
    assert (squares[1] - squares[0]) / step == pytest.approx(drift(radius), rel=0.01)
    assert drift(0.05) == pytest.approx(-np.pi * 0.05**4 / 80, rel=1e-3)
