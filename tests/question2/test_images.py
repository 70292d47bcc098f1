"""Image runs on the stand-in: they learn, resume to the bit after any kill, and keep their records straight."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import data
import run_exp
from gan import w1
from lab import checkpoint
from lab import device as machine
from model import Critic
from question2 import images as image_runs
from question2 import score
from question2.configurations import CONFIGURATIONS, Management, Run, plan

ROOT = Path(__file__).parent.parent.parent
SMALL = {"generator_dimh": 2, "critic_dimh": 2, "generator_dimz": 4, "batch_size": 8}
FLAGS = [f"--{name}={value}" for name, value in SMALL.items()] + ["--dataset=digits", "--scores=none", "--device=cpu"]


def small(name: str, **changes):
    return dataclasses.replace(CONFIGURATIONS[name], **SMALL, **changes)


def train(tmp_path, hp, images=None, **management):
    pace = {"log_every": 5, "eval_every": 10, "checkpoint_minutes": 0, "fast": "no", **management}
    run = Run("run", hp, Management(exp_path=str(tmp_path), **pace))
    run.folder.mkdir(parents=True)
    return image_runs.train(run, data.digit_images() if images is None else images, progress=False)


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name.startswith("cifar10")])
def test_every_configuration_trains_and_writes_what_it_should(tmp_path, name):
    players, lines, step = train(tmp_path, small(name, max_iters=7))
    assert step == 7 and [line["step"] for line in lines] == [5, 7]
    (folder,) = tmp_path.iterdir()
    assert lines == [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {path.name for path in folder.glob("*.png")} == {"samples_000007.png", "trained_samples_000007.png"}
    assert any(path.name.startswith("events.out") for path in folder.iterdir())
    assert all(torch.isfinite(p).all() for p in players.averaged.parameters())
    assert not torch.equal(players.averaged.layers[0].weight, players.generator.layers[0].weight)


def test_metric_is_the_mean_over_the_updates_since_the_last_line(tmp_path, monkeypatch):
    values = iter(range(100))
    step = lambda *_: torch.tensor(float(next(values)))  # noqa: E731
    monkeypatch.setattr(image_runs, "make_train_step", lambda *_: step)
    _, lines, _ = train(tmp_path, small("cifar10-jsd-1", max_iters=12))
    assert [line["metric"] for line in lines] == [2.0, 7.0, 10.5]


def test_batches_are_images_in_their_range():
    images = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    batch = next(image_runs.random_batches(images, 500))
    assert batch.shape == (500, 3, 32, 32) and batch.dtype == torch.float32
    assert set(((batch + 1) * 127.5).round().int().unique().tolist()) <= set(range(256))
    assert batch.min() < -0.9 and batch.max() > 0.9


def test_statistics_of_the_average_are_those_of_its_own_weights(tmp_path):
    hp = small("cifar10-jsd-1", max_iters=2)
    players, *_ = train(tmp_path, hp)
    with torch.no_grad():
        players.averaged.layers[0].bias += 5  # the first normalisation's mean must follow
    before = torch.get_rng_state()
    generator = image_runs.as_kept(players.averaged)
    assert torch.equal(torch.get_rng_state(), before) and not generator.training
    assert generator.layers[1].running_mean.mean().item() == pytest.approx(5, abs=1)


def test_time_limit_stops_cleanly_and_the_same_command_resumes(tmp_path, capsys):
    command = ["--config=cifar10-jsd-1", *FLAGS, "--max_iters=30", "--log_every=10", f"--out={tmp_path / 'cut'}"]
    run_exp.cli([*command, "--max_minutes=1e-9"])
    assert "resume" in capsys.readouterr().out
    folder = tmp_path / "cut" / "cifar10-jsd-1-31415"
    assert checkpoint.load(folder / "checkpoint.pt")["step"] < 30 and not (folder / "result.json").exists()
    run_exp.cli(command)
    state = checkpoint.load(folder / "checkpoint.pt")
    assert state["step"] == 30 and (folder / "result.json").exists()
    generator = image_runs.load_generator(folder / "generator.pt")
    for name, value in generator.named_parameters():  # float16 has 11 bits
        torch.testing.assert_close(value, state["averaged"][name], rtol=2**-11, atol=1e-7)
    assert generator(torch.randn(3, SMALL["generator_dimz"])).shape == (3, 3, 32, 32) and not generator.training


def test_large_critic_values_keep_their_digits_in_bfloat16():
    torch.manual_seed(0)
    critic, (p, q) = Critic(16), torch.rand(2, 64, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        critic.layers[-1].bias += 1000
        plain = torch.stack([critic(p), critic(q)])
        fast = torch.stack([machine.in_bfloat16(critic)(x) for x in (p, q)])
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=0)
    assert not torch.equal(fast, fast.bfloat16().float())  # whose step is 4 between 512 and 1,024
    assert (w1(*fast.double()).item() * 2**10) % 1  # the mean of 64 multiples of 4 has no such digits


@pytest.mark.slow
def test_what_is_scored_is_what_is_kept(tmp_path):
    """Scores of the file's generator are those of the record, to the last digit."""
    folder = tmp_path / "cifar10-jsd-2-5"
    command = ["--config=cifar10-jsd-2", "--seed=5", *FLAGS, "--scores=classifier", f"--data={tmp_path}"]
    run_exp.cli([*command, "--max_iters=6", "--eval_samples=40", "--final_samples=60", f"--out={tmp_path}"])
    (run,) = plan("cifar10-jsd-2", [5])
    images = image_runs.load_images(
        dataclasses.replace(run.management, dataset="digits", scores="classifier", data_path=str(tmp_path))
    )
    eval_step = images.evaluation(SMALL["generator_dimz"])
    critic = Critic(SMALL["critic_dimh"], sn=True)
    critic.load_state_dict(checkpoint.load(folder / "checkpoint.pt")["critic"])
    _, scores = eval_step(score.batches(images.test, 60), critic, image_runs.load_generator(folder / "generator.pt"))
    final = json.loads((folder / "result.json").read_text())["final"]
    assert (scores["FID"], scores["IS"]) == (final["FID-C"], final["IS-C"])
    assert scores["cp"] == pytest.approx(final["cp"], rel=1e-4)  # by a critic whose weights lie otherwise in memory
    assert final["FID-C_trained"] != final["FID-C"] and final["samples"] == 60
    assert len(list(tmp_path.glob("statistics-C-train-digits-*.pt"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bfloat16"), [("cifar10-jsd-2", True), ("cifar10-w1-3", False)])
def test_fast_path_trains_like_the_plain_one(tmp_path, monkeypatch, name, bfloat16):
    hp = small(name, max_iters=20, critic_lr=2e-3)
    plain = train(tmp_path / "plain", hp)[1]
    assert plain[-1]["metric"] > 0.1  # it has learnt something that could differ
    # In bfloat16 too, which is taken by itself only where it is native.
    monkeypatch.setattr(image_runs, "native_bfloat16", lambda device: bfloat16)
    fast = train(tmp_path / "fast", hp, fast="yes")[1]
    assert [line["metric"] for line in fast] == pytest.approx([line["metric"] for line in plain], rel=0.1, abs=0.01)


def after(hp, images, updates):
    """The players after some updates of the fast path, and their first weights."""
    players = image_runs.Players(hp, images.device, fast=True)
    first = players.generator.layers[0].weight.detach().clone()
    advance = image_runs.make_advance(hp, players, images, torch.zeros((), device=images.device), fast=True)
    for _ in range(updates):
        advance()
    return players, first


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["cifar10-jsd-2", "cifar10-w1-3"])
def test_a_graphed_step_makes_the_updates_of_the_same_step_without_a_graph(name, monkeypatch):
    monkeypatch.setattr(image_runs, "native_bfloat16", lambda device: False)
    hp, images = small(name), data.digit_images().cuda()
    players, first = after(hp, images, 10)
    monkeypatch.setattr(image_runs, "Graphed", lambda advance: advance)
    others, _ = after(hp, images, 10)
    assert not torch.equal(players.generator.layers[0].weight, first)
    for part in ("generator", "critic", "averaged"):
        for a, b in zip(getattr(players, part).parameters(), getattr(others, part).parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("reference", ["train", "test"])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_folders_of_few_images_are_scored_or_refused(tmp_path, capsys, count, reference):
    """An FID needs two real images; one in ten is a test image."""
    images = torch.randint(0, 256, (count, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i:02}.png")
    command = [*FLAGS, f"--dataset={tmp_path / 'pictures'}", "--scores=classifier", f"--fid_reference={reference}"]
    command += ["--config=cifar10-jsd-1", "--max_iters=1", "--eval_samples=10", "--final_samples=10"]
    command += [f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'runs'}"]
    if count == 1:
        with pytest.raises(SystemExit) as stop:
            run_exp.cli(command)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        assert not (tmp_path / "runs").exists()
    else:
        run_exp.cli(command)
        result = json.loads((tmp_path / "runs" / "cifar10-jsd-1-31415" / "result.json").read_text())
        assert result["final"]["FID-C"] > 0
