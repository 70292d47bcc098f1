"""Damaged, foreign and locked files; full disks."""

import errno
import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from filelock import FileLock

import data
from data import densities
from lab import checkpoint
from lab.files import read_json, write_json
from question2 import classifier, image_gan, score
from tests.faults.conftest import LONG, TRAINERS

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
        assert "going on from the one before" in capsys.readouterr().err
        again = torch.load(path, weights_only=True)
        assert digest(numbers(again)) == digest(numbers(whole))
        for result in out.rglob("result.json"):
            result.unlink()
        DAMAGE[kind](path)
    DAMAGE[kind](path.with_name("checkpoint.previous.pt"))
    assert "delete it" in refused(trainer.main, command)


def numbers(state):
    """A state without what depends on the clock."""
    return {key: value for key, value in state.items() if key not in ("digest", "seconds", "history")}


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
        assert digest(loaded) == digest(state)  # a bit that nothing depends on


@pytest.mark.slow
def test_damaged_weights_caches_and_results_are_one_line_or_made_anew(tmp_path, capsys):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(classifier.WEIGHTS.read_bytes()[:5000])
    with pytest.raises(data.DataUnavailableError, match=r"broken\.pt"):
        score.own_classifier(broken)
    with pytest.raises(checkpoint.DamagedError, match="damaged"):
        image_gan.load_generator(broken)
    with pytest.raises(FileNotFoundError, match="no generator"):
        image_gan.load_generator(tmp_path / "nothing.pt")

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
    assert read_json(tmp_path / "result.json") is None and "made anew" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "no json", "[1, 2]", '{"name": "somebody else\'s"}', "\xff\xfe"])
def test_a_foreign_or_damaged_configuration_is_refused_and_left(trainer, content, tmp_path, refused):
    folder = tmp_path / trainer.folder
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(content, encoding="latin-1")
    line = refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path)])
    assert "config.json" in line and (folder / "config.json").read_text(encoding="latin-1") == content


@pytest.mark.slow
def test_two_processes_in_one_folder(trainer, tmp_path, refused):
    folder = tmp_path / trainer.folder
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        assert "another process" in refused(trainer.main, [*trainer.arguments, "--out", str(tmp_path)])
    trainer.main([*trainer.arguments, "--out", str(tmp_path)])  # the lock of a process that has ended is none


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
    assert "no room to write" in line and "intact" in line and path.read_bytes() == before


def test_files_are_synchronised_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses to synchronise a file that is open for reading alone."""
    fcntl = pytest.importorskip("fcntl")
    modes, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE), sync(fd)))
    write_json(tmp_path / "value.json", {"ψ": "±"})
    assert modes and all(mode in (os.O_RDWR, os.O_WRONLY) for mode in modes)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == {"ψ": "±"}


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "flipped", "npy"])
def test_damaged_archives_of_arrays(kind, tmp_path):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, **{name: np.eye(64).reshape(64, 8, 8) for name in data.Splits._fields})
    whole = path.read_bytes()
    if kind == "flipped":
        chance = random.Random(1)
        for _ in range(60):
            flipped = bytearray(whole)
            flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            try:
                splits = data.binary_file(path)
            except data.DataUnavailableError as error:
                assert "own.npz" in str(error)
                continue
            assert all(set(split.unique().tolist()) <= {0, 1} for split in splits)
        return
    if kind == "npy":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").replace(path)
    else:
        DAMAGE[kind](path)
    with pytest.raises(data.DataUnavailableError, match=r"own\.npz"):
        data.binary_file(path)


@pytest.mark.parametrize("labels", [np.full(5, 77), np.full(5, -1), np.zeros(5), np.zeros(0, int)])
def test_labels_of_no_class(labels, tmp_path):
    images = np.zeros((len(labels), 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar10.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(data.DataUnavailableError, match="labels"):
        data.cifar10(tmp_path)


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.zeros((5, 3)), np.full((5, 2), np.nan), np.zeros(7)])
def test_points_that_are_none(points, tmp_path, monkeypatch):
    monkeypatch.setattr(densities, "HERE", tmp_path)
    np.save(tmp_path / "data_arcs.npy", points.astype(np.float32))
    with pytest.raises(data.DataUnavailableError, match="data_arcs"):
        densities.TARGETS["arcs"].data_set()


def test_folders_of_images_with_a_bomb(tmp_path, monkeypatch):
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / name)
    assert len(data.image_folder(tmp_path)) == 2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.DataUnavailableError, match=r"a\.png"):
        data.image_folder(tmp_path)
