"""Files that are damaged at random: what is read is what was written, or one line says which file and what to do."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import densities
from data.files import read_arrays
from lab import checkpoint
from lab.claim import claim
from lab.files import fingerprint, read_json, write_json
from model import Generator
from question2 import classifier, score
from question2 import images as image_runs
from question2.configurations import Hyperparameters
from tests.faults.conftest import LONG, small_cifar10, without_times

TIMES = 30 if LONG else 5  # of each kind of file


def damage(path: Path, chance: random.Random) -> None:
    """Damage a file: cut it off, flip a bit, overwrite a part, or put something else in its place."""
    content = bytearray(path.read_bytes())
    kind = chance.randrange(6)
    if kind == 0:
        content = content[: chance.randrange(len(content))]
    elif kind == 1:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        start = chance.randrange(len(content))
        content[start : start + 64] = chance.randbytes(64)
    elif kind == 3:
        content = bytearray(chance.randbytes(chance.randrange(1, 500)))
    elif kind == 4:
        content = bytearray(chance.choice([b"", b"[1, 2]", b"{}", b"null", b"no file of ours", b"\xff\xfe\x00"]))
    else:
        content = content + chance.randbytes(100)
    path.write_bytes(content)


def written_by_ours(folder: Path) -> dict[str, tuple[Path, Callable[[], Any]]]:
    """Kinds of files: an example that can be read, and a function that reads it and returns what it holds."""
    for name in ("state", "generator", "own", "pictures", "result"):
        (folder / name).mkdir()
    torch.manual_seed(0)
    state = folder / "state" / "checkpoint.pt"
    weights = torch.randn(50)
    checkpoint.save(state, {"weights": weights, "step": 3})

    generator = folder / "generator" / "generator.pt"
    network = Generator(4, 2)
    image_runs.save_generator(generator, network, Hyperparameters(generator_dimz=4, generator_dimh=2))

    cache, images = folder / "cache", torch.randint(0, 256, (60, 3, 32, 32)).byte()
    scorer = score.Network(classifier.Classifier(width=2).eval(), "random", "-C")
    score.make_evaluation(scorer, images, 4, cache)

    own = folder / "own" / "own.npz"
    np.savez_compressed(own, **{name: np.eye(64).reshape(64, 8, 8) for name in data.Splits._fields})

    cifar = small_cifar10(folder / "cifar") / "cifar10.npz"
    pictures = folder / "pictures"
    for name in ("a.png", "b.png"):
        Image.fromarray(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)).save(pictures / name)

    result = folder / "result" / "result.json"
    write_json(result, {"runs": [1, 2, 3], "mean": 0.5})

    def generated() -> str:
        loaded = image_runs.load_generator(generator)
        return fingerprint(*loaded.state_dict().values())

    (statistics,) = cache.iterdir()
    return {
        "checkpoints": (state, lambda: checkpoint.load(state)),
        "generators": (generator, generated),
        "caches of statistics": (
            statistics,
            lambda: score.distance(score.make_evaluation(scorer, images, 4, cache), images // 2),
        ),
        "own data sets": (own, lambda: fingerprint(*data.binary_file(own))),
        "CIFAR-10": (cifar, lambda: fingerprint(*data.cifar10(cifar.parent))),
        "images": (pictures / "a.png", lambda: fingerprint(data.image_folder(pictures))),
        "results": (result, lambda: read_json(result)),
    }


KINDS = ("checkpoints", "generators", "caches of statistics", "own data sets", "CIFAR-10", "images", "results")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_files_damaged_at_random(kind, tmp_path):
    path, read = written_by_ours(tmp_path)[kind]
    whole, expected, chance = path.read_bytes(), read(), random.Random(kind)
    for _ in range(TIMES):
        path.write_bytes(whole)
        damage(path, chance)
        try:
            found = read()
        except (ValueError, FileNotFoundError) as error:
            assert path.name in str(error) and "\n" not in str(error)
            continue
        if kind != "results":  # of the others, a checksum says whether what is read is what was written
            assert without_times(found) == without_times(expected)


@pytest.mark.parametrize("kind", ["configurations", "points"])
def test_files_without_a_checksum_damaged_at_random(kind, tmp_path, monkeypatch):
    chance = random.Random(kind)
    for i in range(TIMES):
        folder = tmp_path / str(i)
        folder.mkdir()
        if kind == "configurations":
            write_json(folder / "config.json", {"seed": 1, "width": 3})
            damage(folder / "config.json", chance)
            before = (folder / "config.json").read_bytes()
            try:
                with claim(folder, seed=1, width=3):
                    pass
            except ValueError as error:
                assert "config.json" in str(error) or str(folder) in str(error)
                assert (folder / "config.json").read_bytes() == before
        else:
            shutil.copy(densities.HERE / "data_arcs.npy", folder)
            damage(folder / "data_arcs.npy", chance)
            with monkeypatch.context() as patch:
                patch.setattr(densities, "HERE", folder)
                try:
                    points = densities.TARGETS["arcs"].data_set()
                except data.DataUnavailableError as error:
                    assert "data_arcs" in str(error)
                    continue
            assert points.ndim == 2 and points.shape[1] == 2 and points.isfinite().all()


def test_arrays_of_no_archive(tmp_path):
    for content in (b"", b"PK\x05\x06" + bytes(18), b"PK\x03\x04", b"\x93NUMPY\x01\x00"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(data.DataUnavailableError, match=r"a\.npz"):
            read_arrays(tmp_path / "a.npz", ["x"])
