"""Training flows side by side: the same numbers as a plain loop, resumed to the bit, on bad input."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from data import densities
from lab import checkpoint
from lab.device import has_compiler
from question3 import scores as flow_scores
from solution import Flow, loss1, loss2

ROOT = Path(__file__).parent.parent


def make_group(source: str, out: Path, num_layers: int = 4, num_iter: int = 100, **changes) -> train.Group:
    of = densities.DENSITIES.get if source == "density" else densities.data_set
    targets = {name: of(name) for name in densities.DENSITIES}
    setting = {"seeds": [1, 2], "num_iter": num_iter, "lr": 5e-4, "batch_size": 128, "compile": False, **changes}
    return train.Group(source=source, num_layers=num_layers, targets=targets, out=out, **setting)


def plain_loop(group: train.Group, name: str, seed: int) -> Flow:
    """One flow, trained by itself over the graded classes."""
    torch.manual_seed(seed)
    flow = Flow(2, group.num_layers)
    optimizer = torch.optim.RMSprop(flow.parameters(), lr=group.lr)
    generator = torch.Generator().manual_seed(seed)
    alone = train.Group(**{**vars(group), "targets": {name: group.targets[name]}, "seeds": [seed]})
    for x in train.draw(alone, [generator], group.num_iter)[:, 0]:
        z, logdet = flow(x)
        loss = loss1(z, logdet) if group.source == "samples" else loss2(group.targets[name](z), x, logdet)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return flow


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("source", train.SOURCES)
def test_flows_side_by_side_are_those_of_a_plain_loop(source, compile, tmp_path):
    if compile and not has_compiler():
        pytest.skip("no C++ compiler here")
    group = make_group(source, tmp_path, compile=compile)
    flows, _ = train.train_group(group, progress=False)
    for (name, seed), flow in zip(group.names, flows, strict=True):
        expected = plain_loop(group, name, seed)
        for actual, parameter in zip(flow.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(actual, parameter, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("source", train.SOURCES)
def test_training_improves_the_loss(source, tmp_path):
    flows, training = train.train_group(make_group(source, tmp_path, num_iter=2000, lr=5e-3), progress=False)
    first, last = training["curve"][0]["losses"], training["curve"][-1]["losses"]
    assert len(flows) == 4 and all(b < a for a, b in zip(first, last, strict=True))


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    command = [
        sys.executable,
        "train.py",
        "--num_layers",
        "2",
        "--num_iter",
        "3000",
        "--compile",
        "false",
        "--jobs",
        "1",
    ]
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], cwd=ROOT, capture_output=True)
    assert whole.returncode == 0
    for part in train.SOURCES:
        process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], cwd=ROOT, stderr=subprocess.DEVNULL)
        path = tmp_path / "killed" / f"from_{part}_l2" / "checkpoint.pt"
        while process.poll() is None and not path.exists():
            time.sleep(0.002)
        time.sleep(0.3)
        process.kill()
        process.wait()
    assert subprocess.run([*command, "--out", str(tmp_path / "killed")], cwd=ROOT, capture_output=True).returncode == 0
    for part in train.SOURCES:
        states = [checkpoint.load(tmp_path / n / f"from_{part}_l2" / "checkpoint.pt") for n in ("whole", "killed")]
        assert all(torch.equal(a, b) for a, b in zip(*(s["parameters"] for s in states), strict=True))
        assert states[0]["curve"] == states[1]["curve"]
    results = [json.loads((tmp_path / n / "result.json").read_text())["runs"] for n in ("whole", "killed")]
    for result in results:
        for record in result:
            record.pop("seconds")
    assert results[0] == results[1]
    names = {f"learned_density_data_{n}_l2.png" for n in ("arcs", "sine")} | {
        f"samples_{n}_l2.png" for n in ("arcs", "sine")
    }
    assert names <= {path.name for path in (tmp_path / "killed").iterdir()}


def test_launchers_write_their_pictures_and_know_no_more_than_they_are_given(tmp_path):
    flat = {"flat": lambda z: 0.5 * z.square().sum(-1)}
    records = train.launch_experiments_from_density(flat, [1], num_iter=5, out=tmp_path, compile=False, progress=False)
    assert "kl" not in records[0] and (tmp_path / "samples_flat_l1.png").exists()
    pair = {"arcs": (densities.density_arcs, densities.data_set("arcs").numpy())}
    records = train.launch_experiments_from_samples(
        pair, [1, 2], num_iter=5, out=tmp_path, compile=False, progress=False
    )
    assert [record["num_layers"] for record in records] == [1, 2] and records[0]["nll"]["mean"] > densities.ENTROPY[
        "arcs"
    ]
    assert (tmp_path / "learned_density_data_arcs_l2.png").exists()
    with pytest.raises(ValueError, match="needs samples"):
        train.launch_experiments_from_samples(flat, [1], num_iter=5, out=tmp_path)


def identity() -> Flow:
    flow = Flow(2, 1)
    with torch.no_grad():
        flow.layers[0].u.zero_()
    return flow


def test_scores_of_the_identity():
    """A flow that does nothing has a likelihood and a divergence that can be worked out."""
    x = densities.draw("arcs", seed=99, count=200_000).astype(float)
    expected = 0.5 * (x**2).sum(1).mean() + math.log(2 * math.pi)
    score = flow_scores.score_from_samples(identity(), "arcs")
    assert score["nll"]["mean"] == pytest.approx(expected, abs=0.02)
    assert score["gap"] == pytest.approx(score["nll"]["mean"] - densities.ENTROPY["arcs"])
    entropy = 1 + math.log(2 * math.pi)
    z = np.random.default_rng(0).normal(size=(400_000, 2))
    for name in densities.DENSITIES:
        energy = densities.DENSITIES[name](torch.from_numpy(z)).numpy()
        score = flow_scores.score_from_density(identity(), name, count=400_000)
        assert score["loss"]["mean"] == pytest.approx(energy.mean() - entropy, abs=0.1)
        if name == "sine":
            inside = np.abs(z[:, 0]) <= 4
            log_q = -0.5 * (z**2).sum(1) - math.log(2 * math.pi) - math.log(inside.mean())
            log_z = math.log(8 * math.sqrt(2 * math.pi) * 0.4)
            assert score["kl"]["mean"] == pytest.approx((log_q + energy)[inside].mean() + log_z, abs=0.1)
        else:
            assert score["kl"]["mean"] == pytest.approx(score["loss"]["mean"] + densities.LOG_Z["arcs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "dreams"], "source takes samples and density"),
        (["--data", "moons"], "data takes arcs and sine"),
        (["--num_layers", "0"], "num_layers"),
        (["--lr", "-1"], "lr must be positive"),
        (["--num_iter", "few"], "--num_iter"),
    ],
)
def test_bad_input_gives_one_line_and_status_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path / "run"), *arguments])
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in printed and printed.startswith("error: ") and printed.count("\n") == 1
