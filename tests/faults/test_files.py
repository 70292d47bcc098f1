"""Damaged and foreign files; full disks; checkpoints and data of another run."""

import errno
import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import data
import run_exp
from lab import checkpoint, files
from lab.files import read_json, write_json
from question2 import classifier, score
from question2 import images as image_runs
from tests.faults.conftest import GAME, LONG, TRAINERS, outcome, without_times

DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_text("no checkpoint"),
    "another program's": lambda path: torch.save([1, 2, 3], path),
    "another state": lambda path: checkpoint.save(path, {"something": torch.zeros(3)}),
    "a hostile pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR."),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of each trainer, with a checkpoint before the last."""
    folders = {}
    for name, trainer in TRAINERS.items():
        folders[name] = tmp_path_factory.mktemp(name) / "run"
        trainer.main([*trainer.arguments, "--out", str(folders[name])])
    return folders


PAIRS = [(name, kind) for name in TRAINERS for kind in DAMAGE if LONG or name == "images" or kind == "truncated"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_and_without_one_is_one_line(
    finished, name, kind, tmp_path, refused, capsys
):
    trainer = TRAINERS[name]
    out = shutil.copytree(finished[name], tmp_path / "run")
    path = out / trainer.place
    command = [*trainer.arguments, "--out", str(out)]
    whole = torch.load(path, weights_only=True)
    for result in out.rglob("result.json"):
        result.unlink()
    DAMAGE[kind](path)
    if kind != "a folder":  # which no checkpoint can be written over
        trainer.main(command)
        assert "resuming from the one before" in capsys.readouterr().err
        again = torch.load(path, weights_only=True)
        assert without_times(again) == without_times(whole)
        for result in out.rglob("result.json"):
            result.unlink()
        DAMAGE[kind](path)
    DAMAGE[kind](path.with_name("checkpoint.previous.pt"))
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
def test_damaged_weights_caches_and_results_are_one_line_or_recomputed(tmp_path, capsys):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(classifier.WEIGHTS.read_bytes()[:5000])
    with pytest.raises(data.DataUnavailableError, match=r"broken\.pt"):
        score.own_classifier(broken)
    with pytest.raises(checkpoint.DamagedError, match="damaged"):
        image_runs.load_generator(broken)
    with pytest.raises(FileNotFoundError, match="no generator"):
        image_runs.load_generator(tmp_path / "nothing.pt")

    images = torch.randint(0, 256, (60, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    network = score.own_classifier()
    first = score.distance(score.make_evaluation(network, images, 4, tmp_path / "cache"), images // 2)
    (statistics,) = (tmp_path / "cache").iterdir()
    whole = statistics.read_bytes()
    for kind in ("empty", "truncated", "text", "another program's"):
        DAMAGE[kind](statistics)
        assert score.distance(score.make_evaluation(network, images, 4, tmp_path / "cache"), images // 2) == first
        assert len(statistics.read_bytes()) == len(whole)
    (tmp_path / "file").touch()  # a place where nothing can be written
    assert score.distance(score.make_evaluation(network, images, 4, tmp_path / "file"), images // 2) == first
    assert "cannot be written" in capsys.readouterr().err

    (tmp_path / "result.json").write_text('{"runs": [1, 2')
    assert read_json(tmp_path / "result.json") is None and "recomputed" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "no json", "[1, 2]", '{"name": "somebody else\'s"}', "\xff\xfe"])
def test_a_foreign_or_damaged_configuration_is_refused_and_left(trainer, content, tmp_path, refused):
    folder = tmp_path / trainer.folder
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(content, encoding="latin-1")
    line = refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path)])
    assert str(folder) in line and (folder / "config.json").read_text(encoding="latin-1") == content


@pytest.mark.slow
def test_leftovers_of_killed_runs_are_cleared(trainer, tmp_path):
    trainer.main([*trainer.arguments, "--out", str(tmp_path)])
    folder = tmp_path / trainer.folder
    (folder / f"{files.TEMPORARY}checkpoint.abc.pt").write_bytes(b"half")
    trainer.main([*trainer.arguments, "--out", str(tmp_path)])
    assert not list(folder.glob(f"{files.TEMPORARY}*"))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_what_was_there(trainer, tmp_path, refused, monkeypatch):
    trainer.main([*trainer.arguments, "--out", str(tmp_path)])
    path = tmp_path / trainer.place
    before = path.read_bytes()
    for result in tmp_path.rglob("result.json"):
        result.unlink()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path)])
    assert "no space to write" in line and "intact" in line and path.read_bytes() == before


def test_files_are_synchronised_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses to synchronise a file that is open for reading alone."""
    fcntl = pytest.importorskip("fcntl")
    modes, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE), sync(fd)))
    write_json(tmp_path / "value.json", {"ψ": "±"})
    assert modes and all(mode in (os.O_RDWR, os.O_WRONLY) for mode in modes)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == {"ψ": "±"}


def test_folders_of_images_with_a_bomb(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / name)
    assert len(data.image_folder(tmp_path)) == 2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.DataUnavailableError, match=r"a\.png"):
        data.image_folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_a_checkpoint_of_another_seed_is_refused_and_a_cut_record_changes_nothing(name, tmp_path, refused):
    trainer, start, other = TRAINERS[name], tmp_path / "one", tmp_path / "other"
    seeds = {"images": "cifar10-jsd-2-7"}.get(name, "")
    trainer.main([*trainer.arguments, "--out", str(start)])
    trainer.main([*trainer.arguments, "--seed", "7", "--out", str(other)])
    before = outcome(start)
    place = other / trainer.place.replace(trainer.folder, seeds) if seeds else other / trainer.place
    whole = (start / trainer.place).read_bytes()
    for result in start.rglob("result.json"):
        result.unlink()
    shutil.copy(place, start / trainer.place)
    assert "another run, with seed=" in refused(trainer.main, [*trainer.arguments, "--out", str(start)])
    assert not list(start.rglob("result.json"))
    (start / trainer.place).write_bytes(whole)
    record = (start / trainer.place).with_name("metrics.jsonl")
    record.write_bytes(record.read_bytes()[:-20])
    trainer.main([*trainer.arguments, "--out", str(start)])
    assert outcome(start) == before


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
