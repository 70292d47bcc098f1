"""Divergences on a grid against closed forms, and the flows that minimise them."""

import math

import pytest
import torch

from data.densities import TARGETS, Target
from question3 import directions
from solution import log_standard_normal


def normal(points: torch.Tensor, mean: float, deviation: float) -> torch.Tensor:
    return log_standard_normal((points - mean) / deviation).squeeze(1) - 2 * math.log(deviation)


def test_divergences_of_normal_distributions_are_the_closed_form():
    points, area = directions.square(9.0, 300)
    found = directions.divergences(normal(points, 0.0, 1.0), normal(points, 0.7, 1.5), area)
    forward = 2 * (math.log(1.5) + (1 + 0.7**2) / (2 * 1.5**2) - 0.5)
    reverse = 2 * (-math.log(1.5) + (1.5**2 + 0.7**2) / 2 - 0.5)
    assert found["forward"].item() == pytest.approx(forward, rel=1e-6)
    assert found["reverse"].item() == pytest.approx(reverse, rel=1e-6)


def test_the_target_is_normalised_on_the_grid():
    grid = directions.square(6.0, 120)
    assert directions.log_target(TARGETS["arcs"], grid).exp().sum().item() * grid[1] == pytest.approx(1)


def test_a_target_that_the_family_holds_is_found_by_both():
    target = Target("normal", lambda z: 0.5 * z.square().sum(-1))
    grid = directions.square(6.0, 60)
    for direction in ("forward", "reverse"):
        flow = directions.fit(target, direction, 1, seed=0, grid=grid, steps=400)
        assert directions.measure(target, flow, grid)[direction] < 0.02
