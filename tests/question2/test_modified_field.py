"""The contraction of the plain JSD game: its closed form, and the drift against the modified flow."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dirac import Game
from question2.modified_field import contraction, drift, modified_field


def test_first_order_of_the_contraction_is_a_fifth():
    step = Fraction(1, 10**9)
    assert (640 * contraction(step) / step**2 - 1) / step == pytest.approx(1 / 5, rel=1e-8)


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
