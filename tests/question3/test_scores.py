"""Densities of flows."""

import pytest
import torch

from question3 import natural, scores
from solution import Flow, log_standard_normal


@pytest.mark.parametrize("source", ["samples", "density"])
def test_the_density_of_a_flow_integrates_to_one_and_is_that_of_its_draws(source):
    torch.manual_seed(3)
    flow = Flow(2, 4)
    natural.spread(flow)
    line = torch.linspace(-14, 14, 561)
    density = scores.log_density(flow, source, torch.cartesian_prod(line, line)).double().exp()
    assert density.sum().item() * (line[1] - line[0]).item() ** 2 == pytest.approx(1, abs=5e-3)
    if source == "density":
        with torch.no_grad():
            z0 = torch.randn(100, 2)
            z, logdet = flow(z0)
            expected = (log_standard_normal(z0) - logdet).squeeze(1)
        torch.testing.assert_close(scores.log_density(flow, source, z), expected, rtol=1e-3, atol=1e-3)
