"""Densities of flows, and their pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.densities import TARGETS
from question3 import plots, scores
from solution import Flow, log_standard_normal


def identity() -> Flow:
    flow = Flow(2, 1)
    with torch.no_grad():
        flow.layers[0].u.zero_()
    return flow


def random_flow() -> Flow:
    torch.manual_seed(3)
    flow = Flow(2, 4)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.7)
    return flow


@pytest.mark.parametrize("source", ["samples", "density"])
def test_the_density_of_a_flow_integrates_to_one_and_is_that_of_its_draws(source):
    flow = random_flow()
    line = torch.linspace(-14, 14, 561)
    density = scores.log_density(flow, source, torch.cartesian_prod(line, line)).double().exp()
    assert density.sum().item() * (line[1] - line[0]).item() ** 2 == pytest.approx(1, abs=5e-3)
    if source == "density":
        with torch.no_grad():
            z0 = torch.randn(100, 2)
            z, logdet = flow(z0)
            expected = (log_standard_normal(z0) - logdet).squeeze(1)
        torch.testing.assert_close(scores.log_density(flow, source, z), expected, rtol=1e-3, atol=1e-3)


def test_pictures_of_flows(tmp_path):
    flows = [(1, random_flow()), (2, identity())]
    for source in ("samples", "density"):
        plots.over_depth(tmp_path / f"{source}.png", TARGETS["sine"], source, flows)
    plots.directions(tmp_path / "directions.png", TARGETS["arcs"], {"forward": flows[0][1], "reverse": flows[1][1]})
    for path in tmp_path.iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 5  # something is drawn
