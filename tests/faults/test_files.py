"""Damaged and foreign files; checkpoints and data of another run."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import run_exp
from lab import checkpoint
from question2 import classifier, score
from question2 import images as image_runs
from tests.faults.conftest import GAME, TRAINERS, outcome, without_times

DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_text("no checkpoint"),
    "another program's": lambda path: torch.save([1, 2, 3], path),
    "another state": lambda path: checkpoint.save(path, {"something": torch.zeros(3)}),
    "a hostile pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR."),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of each trainer, with a checkpoint before the last."""
    folders = {}
    for name, trainer in TRAINERS.items():
        folders[name] = tmp_path_factory.mktemp(name) / "run"
        trainer.main([*trainer.arguments, "--out", str(folders[name])])
    return folders


PAIRS = [*((name, "truncated") for name in TRAINERS), *(("images", kind) for kind in DAMAGE if kind != "truncated")]


def without_results(out: Path) -> Path:
    """The same folder of runs, as if they had not ended."""
    for result in out.rglob("result.json"):
        result.unlink()
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_and_without_one_is_one_line(
    finished, name, kind, tmp_path, refused, capsys
):
    trainer = TRAINERS[name]
    out = without_results(shutil.copytree(finished[name], tmp_path / "run"))
    command, path = [*trainer.arguments, "--out", str(out)], out / trainer.place
    whole = checkpoint.load(path)
    DAMAGE[kind](path)
    trainer.main(command)
    assert "resuming from the one before" in capsys.readouterr().err
    assert without_times(checkpoint.load(path)) == without_times(whole)
    without_results(out)
    for damaged in (path, path.with_name("checkpoint.previous.pt")):
        DAMAGE[kind](damaged)
    assert "delete it" in refused(trainer.main, command)


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path, chance = tmp_path / "state.pt", random.Random(0)
    state = {"weights": torch.randn(50, generator=torch.Generator().manual_seed(0)), "step": 3, "curve": [0.5, 0.25]}
    checkpoint.save(path, state)
    whole = path.read_bytes()
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            loaded = checkpoint.load(path)
        except checkpoint.DamagedError:
            continue
        assert without_times(loaded) == without_times(state)  # a bit that nothing depends on


@pytest.mark.slow
def test_damaged_weights_and_caches_are_one_line_or_recomputed(tmp_path, capsys):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(classifier.WEIGHTS.read_bytes()[:5000])
    for load in (classifier.load, image_runs.load_generator):
        with pytest.raises(checkpoint.DamagedError, match="damaged"):
            load(broken)

    images = torch.randint(0, 256, (60, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    network = score.own_classifier()
    first = score.distance(score.make_evaluation(network, images, 4, tmp_path / "cache"), images // 2)
    (statistics,) = (tmp_path / "cache").iterdir()
    for damage in DAMAGE.values():
        damage(statistics)
        assert score.distance(score.make_evaluation(network, images, 4, tmp_path / "cache"), images // 2) == first
    (tmp_path / "file").touch()  # a place where nothing can be written
    assert score.distance(score.make_evaluation(network, images, 4, tmp_path / "file"), images // 2) == first
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", '{"name": "somebody else\'s"}', "\xff\xfe"])
def test_a_foreign_or_damaged_configuration_is_refused_and_left(trainer, content, tmp_path, refused):
    folder = tmp_path / trainer.folder
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(content, encoding="latin-1")
    line = refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path)])
    assert str(folder) in line and (folder / "config.json").read_text(encoding="latin-1") == content


@pytest.mark.slow
def test_a_game_with_the_checkpoint_of_another_is_played_again(tmp_path, capsys):
    for seed in ("1", "2"):
        run_exp.cli([*GAME.split(), "--seed", seed, "--out", str(tmp_path)])
    before = outcome(tmp_path)
    one, two = (tmp_path / f"dirac-jsd-8-{seed}" / "checkpoint.pt" for seed in (1, 2))
    shutil.copy(two, one)
    one.with_name("metrics.jsonl").unlink()
    capsys.readouterr()
    run_exp.cli([*GAME.split(), "--seed", "1", "--out", str(tmp_path)])
    assert "played again" in capsys.readouterr().err and outcome(tmp_path) == before


@pytest.mark.slow
def test_data_of_ones_own_that_was_replaced_is_refused(tmp_path, refused):
    """And images of one's own, whose run had not ended."""
    trainer, own, out = TRAINERS["vae"], tmp_path / "own.npz", tmp_path / "run"
    command = [*trainer.arguments, "--dataset", str(own), "--out", str(out)]
    for share in (0.3, 0.6):
        pixels = np.random.default_rng(0).random((60, 64)) < share
        np.savez(own, **dict.fromkeys(data.Splits._fields, pixels))
        if share == 0.3:
            trainer.main(command)
    assert "images=" in refused(trainer.main, command)
    trainer, pictures, out = TRAINERS["images"], tmp_path / "pictures", tmp_path / "images"
    pictures.mkdir()
    command = [*trainer.arguments, "--dataset", str(pictures), "--data", str(tmp_path), "--out", str(out)]
    for colour in ("red", "blue"):
        for i in range(12):
            Image.new("RGB", (32, 32), colour).save(pictures / f"{i:02}.png")
        if colour == "red":
            trainer.main([*command, "--max_minutes", "1e-9"])
    assert "images=" in refused(trainer.main, command)
