"""The targets of question 3: energies against quadrature, data sets against the energies."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm

import train
from data import densities
from lab.options import InputError

CELLS = {  # a grid for a goodness-of-fit test: edges along z1 and z2
    "arcs": (np.linspace(-4, 4, 17), np.linspace(-4, 4, 17)),
    "sine": (np.linspace(-4, 4, 17), np.linspace(-2.5, 2.5, 11)),
}


def grid(low: float, high: float, count: int) -> tuple[torch.Tensor, float]:
    axis = torch.linspace(low, high, count, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1), (axis[1] - axis[0]).item() ** 2


def expected_shares(name: str) -> np.ndarray:
    """Probability of each cell, by quadrature of the energy; of the sine's data, with z1 uniform."""
    x, y = CELLS[name]
    parts = 40
    fine_x, fine_y = (
        np.linspace(e[0], e[-1], parts * (len(e) - 1), endpoint=False) + (e[1] - e[0]) / parts / 2 for e in (x, y)
    )
    points = torch.from_numpy(np.stack(np.meshgrid(fine_x, fine_y, indexing="ij"), axis=-1))
    target = densities.TARGETS[name]
    density = torch.exp(-target.energy(points) - target.log_z).numpy()
    area = (fine_x[1] - fine_x[0]) * (fine_y[1] - fine_y[0])
    return density.reshape(len(x) - 1, parts, len(y) - 1, parts).sum((1, 3)) * area


def fit(name: str, points: np.ndarray) -> float:
    """The p-value of a chi-square test of points against the energy, small cells merged with the outside."""
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], CELLS[name])
    expected = expected_shares(name) * len(points)
    large = expected >= 5
    observed = np.append(counts[large], len(points) - counts[large].sum())
    return chisquare(observed, np.append(expected[large], len(points) - expected[large].sum())).pvalue


def test_known_limits():
    points, area = grid(-7, 7, 2801)
    energy = densities.density_arcs(points)
    log_z = torch.logsumexp(-energy.flatten(), 0).item() + math.log(area)
    entropy = (torch.exp(-energy - log_z) * (energy + log_z)).sum().item() * area
    assert log_z == pytest.approx(densities.TARGETS["arcs"].log_z, abs=1e-5)
    assert entropy == pytest.approx(densities.TARGETS["arcs"].entropy, abs=1e-5)
    sine = densities.TARGETS["sine"]
    assert sine.entropy == pytest.approx(math.log(8) + norm(scale=0.4).entropy())
    assert sine.entropy == pytest.approx(2.58209, abs=1e-5)
    inside = points[..., 0].abs() <= sine.half_width
    assert (torch.exp(-sine.energy(points)) * inside).sum().item() * area == pytest.approx(
        math.exp(sine.log_z), rel=2e-3
    )


def test_energies_at_points_worked_out_by_hand():
    z = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    across = math.log(1 + math.exp(-0.5 * (4 / 0.6) ** 2))
    assert densities.density_arcs(z)[0].item() == pytest.approx(-across)
    assert densities.density_arcs(z)[1].item() == pytest.approx(0.5 * (2 / 0.6) ** 2 - math.log(2))
    assert densities.density_sine(z).tolist() == pytest.approx([0, 0.5 * 25, 0], abs=1e-12)


def test_energies_stay_finite_far_away():
    z = torch.tensor([[100.0, 0.0], [0.0, -100.0], [0.0, 0.0]], requires_grad=True)
    energy = densities.density_arcs(z) + densities.density_sine(z)
    energy.sum().backward()
    assert energy.isfinite().all() and z.grad.isfinite().all()


@pytest.mark.parametrize("name", CELLS)
def test_data_set_is_drawn_from_its_density(name):
    points = densities.TARGETS[name].data_set()
    assert points.shape == (10_000, 2) and points.dtype == torch.float32
    assert np.array_equal(points.numpy(), densities.TARGETS[name].draw())
    assert fit(name, points.numpy().astype(float)) > 1e-3


def test_a_target_without_a_sampler_is_learnt_from_its_density_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(densities.TARGETS, "moons", densities.Target("moons", lambda z: (z[:, 0] * z[:, 1]).square()))
    quick = {"num_layers": [1], "num_iter": 2, "compile": False, "workers": 1}
    result = train.run(train.Hyperparameters(**quick, out=str(tmp_path / "all")), progress=False)
    assert capsys.readouterr().out == "moons has no sampler: nothing to learn from samples\n"
    learnt = [(run["source"], run["data"]) for run in result["runs"]]
    assert ("density", "moons") in learnt and ("samples", "moons") not in learnt
    assert len(learnt) == 2 * len(densities.TARGETS) - 1 == len(list((tmp_path / "all").glob("*.png")))
    assert "loss" in train.report(result)
    options = train.Hyperparameters(**quick, source=["samples"], targets=["moons"], out=str(tmp_path / "none"))
    with pytest.raises(InputError, match="nothing to learn"):
        train.run(options)
    assert not (tmp_path / "none").exists()
