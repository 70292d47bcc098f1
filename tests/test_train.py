"""Training flows side by side: the same numbers as a plain loop, resumed to the bit, on bad input."""

import dataclasses
import json
import math
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import train
from data.densities import TARGETS, Target, density_arcs, density_sine
from lab.device import has_compiler
from question3 import scores
from solution import Flow, loss1, loss2


def make_group(source: str, out: Path, num_layers: int = 4, **changes) -> train.Group:
    setting = {"seed": [1, 2], "num_iter": 100, "compile": False, "out": str(out), **changes}
    group = train.Group(source, num_layers, dict(TARGETS), train.Hyperparameters(**setting))
    group.out.mkdir(parents=True, exist_ok=True)
    return group


def plain_loop(group: train.Group, name: str, seed: int) -> Flow:
    """One flow, trained by itself over the graded classes."""
    torch.manual_seed(seed)
    flow = Flow(2, group.num_layers)
    optimizer = torch.optim.RMSprop(flow.parameters(), lr=group.options.lr)
    generator = torch.Generator().manual_seed(seed)
    options = dataclasses.replace(group.options, seed=[seed])
    alone = dataclasses.replace(group, targets={name: group.targets[name]}, options=options)
    for x in train.draw(alone, [generator], options.num_iter)[:, 0]:
        z, logdet = flow(x)
        loss = loss1(z, logdet) if group.source == "samples" else loss2(group.targets[name].energy(z), x, logdet)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return flow


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("source", ["samples", "density"])
def test_flows_side_by_side_are_those_of_a_plain_loop(source, compile, tmp_path, monkeypatch):
    if compile and not has_compiler():
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(train, "COMPILE_FROM", 1)
    group = make_group(source, tmp_path, compile=compile)
    flows, _ = train.train_group(group, progress=False)
    for (name, seed), flow in zip(group.names, flows, strict=True):
        expected = plain_loop(group, name, seed)
        for actual, parameter in zip(flow.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(actual, parameter, rtol=1e-4, atol=1e-4)


QUIETLY = {"num_iter": 5, "compile": False, "progress": False}


def test_launchers_write_their_pictures_and_know_no_more_than_they_are_given(tmp_path):
    flat = {"flat": lambda z: 0.5 * (z[:, 0] ** 2 + z[:, 1] ** 2)}  # of points (N, 2), and of nothing else
    records = train.launch_experiments_from_density(flat, [1], out=tmp_path, **QUIETLY)
    assert "kl" not in records[0] and (tmp_path / "samples_flat_l1.png").exists()
    own = {"own": TARGETS["arcs"].data_set().numpy()}
    records = train.launch_experiments_from_samples(own, [1, 2], out=tmp_path, **QUIETLY)
    assert [record["num_layers"] for record in records] == [1, 2] and "nll" not in records[0]
    assert (tmp_path / "learned_density_data_own_l2.png").exists()
    assert math.isfinite(records[1]["train_nll"]["mean"]) and "train_nll" in train.report({"runs": records})
    with pytest.raises(ValueError, match="flat needs samples"):
        train.launch_experiments_from_samples(flat, [1], out=tmp_path)
    with pytest.raises(ValueError, match="own: a density"):
        train.launch_experiments_from_density(own, [1], out=tmp_path)
    with pytest.raises(ValueError, match=r"shape \(4, 3\)"):
        train.launch_experiments_from_samples({"own": np.zeros((4, 3))}, [1], out=tmp_path)


def test_launchers_called_with_other_values_find_no_earlier_flows(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "draw_pictures", lambda *_: None)  # slow
    normal_energy = {"normal": normal}
    curves = []
    for changes in ({}, {"lr": 1e-2}, {"num_iter": 6}, {"seeds": (2,)}, {"batch_size": 3}, {}):
        records = train.launch_experiments_from_density(normal_energy, [1], out=tmp_path, **(QUIETLY | changes))
        curves.append(records[0]["curve"])
    other = {"normal": lambda z: 2 * normal(z)}  # another target of the same name
    curves.append(train.launch_experiments_from_density(other, [1], out=tmp_path, **QUIETLY)[0]["curve"])
    assert curves[0] == curves[5] and len({str(curve) for curve in curves}) == 6
    assert (tmp_path / records[0]["folder"] / "checkpoint.pt").exists()
    points = torch.randn(20, 2)
    curves = [
        train.launch_experiments_from_samples({"own": p}, [1], out=tmp_path, **QUIETLY)[0]["curve"]
        for p in (points, points + 1)
    ]
    assert curves[0] != curves[1]


def test_points_of_ones_own_are_not_scored_as_the_data_set_of_that_name(tmp_path):
    for points, known in ((torch.randn(20, 2), False), (TARGETS["arcs"].data_set().numpy(), True)):
        (record,) = train.launch_experiments_from_samples({"arcs": points}, [1], out=tmp_path, **QUIETLY)
        assert ("nll" in record) == ("gap" in record) == known


def test_flows_in_three_dimensions(tmp_path):
    setting = {"dim": 3, "out": tmp_path, **QUIETLY}
    (record,) = train.launch_experiments_from_density({"normal": normal}, [2], **setting)
    assert math.isfinite(record["loss"]["mean"])
    train.launch_experiments_from_samples({"own": torch.randn(20, 3)}, [2], **setting)
    assert not list(tmp_path.glob("*.png"))


def test_the_assignments_own_calls(tmp_path, monkeypatch):
    """Both launchers with the same dictionary of energies, and pictures in the working folder."""
    monkeypatch.chdir(tmp_path)
    both = {"arcs": density_arcs, "sine": density_sine}
    from_samples = train.launch_experiments_from_samples(both, [1, 2], **QUIETLY)
    from_density = train.launch_experiments_from_density(both, [1], **QUIETLY)
    assert all("gap" in record for record in from_samples) and all("kl" in record for record in from_density)
    names = {"learned_density_data_arcs_l1.png", "learned_density_data_sine_l2.png", "samples_sine_l1.png"}
    assert names <= {path.name for path in tmp_path.iterdir()}


def normal(z: torch.Tensor) -> torch.Tensor:
    return 0.5 * z.square().sum(-1)


def test_a_third_target_is_one_record(tmp_path, monkeypatch, capsys):
    """Command line, scores and pictures follow, and what is not known of it is not available."""
    monkeypatch.setitem(TARGETS, "normal", Target("normal", normal, lambda n, rng: rng.normal(size=(n, 2))))
    command = ["--targets", "normal", "--num_layers", "1", "--num_iter", "5", "--compile", "no", "--workers", "1"]
    train.main([*command, "--out", str(tmp_path)])
    from_samples, from_density = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert "gap" not in from_samples and "kl" not in from_density and "nll" in from_samples
    assert from_samples["nll"]["mean"] == pytest.approx(1 + math.log(2 * math.pi), abs=0.05)
    assert (tmp_path / "samples_normal_l1.png").exists() and "gap" not in capsys.readouterr().out


def test_the_divergence_of_a_flow_from_its_own_density_is_zero():
    """On the plane, and on a strip, where log q(A) is needed too."""
    whole = Target("normal", normal, log_z=math.log(2 * math.pi))
    share = math.erf(1 / math.sqrt(2))
    strip = Target("normal", normal, log_z=math.log(2 * math.pi * share), half_width=1.0)
    for target in (whole, strip):
        kl = scores.score_from_density(identity(), target, count=200_000)["kl"]
        assert abs(kl["mean"]) <= 4 * max(kl["standard_error"], 1e-6)
    narrow = Target("normal", normal, log_z=0.0, half_width=1.0)
    # Of four draws with this seed one is inside, of which there is no standard error.
    few = scores.score_from_density(identity(), narrow, count=4, seed=0)
    assert few["share_inside"] == 1 / 4 and "kl" not in few
    assert scores.score_from_density(identity(), Target("normal", normal))["loss"]["mean"] == pytest.approx(
        -math.log(2 * math.pi), abs=1e-4
    )


def test_standard_errors_are_those_of_repeated_estimates():
    """Over draws with other seeds, an estimate strays by what its standard error says."""
    for score, key, name in (
        (scores.score_from_density, "kl", "sine"),
        (scores.score_from_density, "kl", "arcs"),
        (scores.score_from_samples, "nll", "arcs"),
    ):
        found = [score(identity(), TARGETS[name], count=2000, seed=seed)[key] for seed in range(200)]
        strays = np.std([value["mean"] for value in found], ddof=1)
        assert np.mean([value["standard_error"] for value in found]) == pytest.approx(strays, rel=0.15)


def identity() -> Flow:
    flow = Flow(2, 1)
    with torch.no_grad():
        flow.layers[0].u.zero_()
    return flow


def test_the_gap_is_the_divergence_by_quadrature():
    """That of the arcs from a standard normal density: the estimate meets a sum over a grid within its small error."""
    axis, target = torch.linspace(-6, 6, 1201, dtype=torch.float64), TARGETS["arcs"]
    grid = torch.cartesian_prod(axis, axis)
    log_p = -target.energy(grid) - target.log_z
    log_q = -0.5 * grid.square().sum(1) - math.log(2 * math.pi)
    divergence = (log_p.exp() * (log_p - log_q)).sum().item() * (axis[1] - axis[0]).item() ** 2
    score = scores.score_from_samples(identity(), target)
    assert score["gap"] == pytest.approx(divergence, abs=4 * score["nll"]["standard_error"])
    flow = train.Flow(2, 1)
    near = scores.score_from_samples(flow, dataclasses.replace(target, log_z=None))  # the mean of -log q alone
    assert near["nll"]["mean"] == pytest.approx(scores.score_from_samples(flow, target)["nll"]["mean"], abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "dreams"], "dreams"),
        (["--targets", "moons"], "there are arcs, sine"),
    ],
)
def test_bad_input_gives_one_line_and_status_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path / "run"), *arguments])
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in printed and printed.startswith("error: ") and printed.count("\n") == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_a_tuned_run_that_resumes_is_the_one_that_was_not_stopped(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHUNK", 5)
    group = make_group("samples", tmp_path / "whole", recipe="tuned", fresh=fresh, num_iter=20, lr=0.1)
    whole, lines = train.train_group(group, progress=False)
    cut = make_group("samples", tmp_path / "cut", recipe="tuned", fresh=fresh, num_iter=20, lr=0.1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Record, "add", Mock(side_effect=[None, None, KeyboardInterrupt]))
        train.train_group(cut, progress=False)
    resumed, _ = train.train_group(cut, progress=False)
    for a, b in zip(whole, resumed, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert lines[-1]["arcs/seed_1"] < lines[0]["arcs/seed_1"]


def test_fresh_points_are_new_in_every_batch_and_others_are_the_data_sets(tmp_path):
    for fresh in (False, True):
        group = make_group("samples", tmp_path, fresh=fresh)
        generators = [torch.Generator().manual_seed(seed) for _, seed in group.names]
        batches = train.draw(group, generators, 3)
        assert batches.shape == (3, 4, 128, 2)
        data = {tuple(point) for point in TARGETS["arcs"].data_set().tolist()}
        assert all(tuple(point) in data for point in batches[:, 0].reshape(-1, 2).tolist()) != fresh
