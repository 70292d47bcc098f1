"""The loaders: what they accept, what they refuse, what they leave behind."""

import pickle
import socket
import zipfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

import data
from data import mnist


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    counts = {"train": 9, "valid": 4, "test": 5}
    return {split: rng.integers(0, 2, (count, 784), np.uint8) for split, count in counts.items()}


@pytest.fixture
def published(monkeypatch, tmp_path, images):
    """Small images published as files, in the publisher's text and the mirror's MATLAB format."""
    sources = {}
    for name in mnist.SOURCES:
        folder = tmp_path / name
        folder.mkdir()
        sources[name] = (folder / "{split}.amat").as_uri().replace("%7B", "{").replace("%7D", "}")
        for split, pixels in images.items():
            path = folder / f"{split}.amat"
            if name == "publisher":
                np.savetxt(path, pixels, fmt="%d")
            else:
                savemat(path, {"X": pixels.astype(np.float64)}, appendmat=False)
    monkeypatch.setattr(mnist, "SOURCES", sources)
    digests = {split: mnist.checksum(np.packbits(pixels, axis=1)) for split, pixels in images.items()}
    monkeypatch.setattr(mnist, "SHA256", digests)
    return tmp_path


def check(splits: data.Splits, images: dict[str, np.ndarray]) -> None:
    for split, pixels in zip(splits, images.values(), strict=True):
        assert split.dtype == torch.uint8
        assert np.array_equal(split.numpy(), pixels)


@pytest.mark.parametrize("broken", [None, "missing", "truncated", "flipped", "garbage"])
def test_download_from_the_publisher_and_else_from_the_mirror(published, images, broken):
    path = published / "publisher" / "valid.amat"
    raw = path.read_bytes()
    contents = {
        "truncated": raw[: len(raw) // 2],
        "flipped": raw[:-3] + (b"1" if raw[-3:-2] == b"0" else b"0") + raw[-2:],
        "garbage": b"<html>not found</html>" * 100,
    }
    if broken == "missing":
        path.unlink()
    elif broken:
        path.write_bytes(contents[broken])
    check(data.binarized_mnist(published / "root"), images)
    # The second call reads what the first one kept.
    for source in ("publisher", "mirror"):
        for file in (published / source).iterdir():
            file.unlink()
    check(data.binarized_mnist(published / "root"), images)
    assert [file.name for file in (published / "root").iterdir()] == ["binarized_mnist.npz"]


def test_nothing_is_left_where_every_source_fails(published):
    for source in ("publisher", "mirror"):
        (published / source / "test.amat").write_bytes(b"0 1 0 1\n")
    with pytest.raises(data.DataUnavailableError, match=r"binarized_mnist\.npz.*Tried: .*publisher.*mirror.*README"):
        data.binarized_mnist(published / "root")
    assert not (published / "root" / "binarized_mnist.npz").exists()


def test_a_broken_file_is_refused_and_kept(published, images):
    root = published / "root"
    data.binarized_mnist(root)
    path = root / "binarized_mnist.npz"
    raw = path.read_bytes()
    packed = {split: np.packbits(pixels, axis=1) for split, pixels in images.items()}
    packed["test"] = packed["test"] ^ 1
    np.savez(root / "other.npz", **packed)
    for content in (raw[:-100], (root / "other.npz").read_bytes(), b""):
        path.write_bytes(content)
        with pytest.raises(data.DataUnavailableError, match="Delete it"):
            data.binarized_mnist(root)
        assert path.read_bytes() == content


@pytest.mark.parametrize("kind", [bool, "i1", ">u4", "f2", ">f8"])
def test_ones_own_images_of_any_real_type_are_read(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (5, 3, 4))
    np.savez(tmp_path / "own.npz", **dict.fromkeys(data.Splits._fields, pixels.astype(kind)))
    for split in mnist.binary_file(tmp_path / "own.npz"):
        assert split.dtype == torch.uint8 and np.array_equal(split.numpy(), pixels.reshape(5, 12))


@pytest.mark.parametrize("kind", ["c8", "U1", "S1", "m8[s]", "V1", "others", "values", "one image", "points", "no"])
def test_other_arrays_of_ones_own_are_refused(kind, tmp_path):
    shapes = {"others": (2, 9), "one image": (1, 4), "points": (4,), "no": (0, 4)}
    if kind == "values":
        array = np.full((2, 4), 2)
    else:
        array = np.zeros(shapes.get(kind, (2, 4)), "u1" if kind in shapes else kind)
    np.savez(tmp_path / "own.npz", train=np.eye(4), valid=array, test=np.eye(4))
    with pytest.raises(data.DataUnavailableError, match=r"own\.npz: valid (holds|has) "):
        mnist.binary_file(tmp_path / "own.npz")


def test_pickled_objects_are_refused(tmp_path):
    """Reading them would run their code."""
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name in data.Splits._fields:
            archive.writestr(f"{name}.npy", pickle.dumps([0, 1]))
    with pytest.raises(data.DataUnavailableError, match=r"own\.npz"):
        mnist.binary_file(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", **dict.fromkeys(data.Splits._fields, np.array([[0, 1], [1, None]])))
    with pytest.raises(data.DataUnavailableError, match=r"own\.npz"):
        mnist.binary_file(tmp_path / "own.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_named(content, tmp_path):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(data.DataUnavailableError, match=r"own\.npz"):
        mnist.binary_file(tmp_path / "own.npz")


def test_files_may_hold_the_images_in_another_order_or_in_columns(published, images):
    np.savetxt(published / "publisher" / "train.amat", images["train"][::-1], fmt="%d")
    (published / "publisher" / "test.amat").unlink()
    savemat(published / "mirror" / "test.amat", {"X": images["test"].T}, appendmat=False)
    check(data.binarized_mnist(published / "root"), {**images, "train": images["train"][::-1]})


def test_automatic_choice_falls_back_with_a_line_and_the_named_one_does_not(monkeypatch, tmp_path, capsys):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    name, splits = data.load("auto", tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "stand-in" in said
    assert name == "digits" and len(splits.train) == 1297
    with pytest.raises(data.DataUnavailableError):
        data.load("binarized_mnist", tmp_path)
    with pytest.raises(ValueError, match="unknown data set"):
        data.load("mnist", tmp_path)


def test_digits_are_binary_repeatable_and_split_without_overlap():
    first, again, other = data.digits(3), data.digits(3), data.digits(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.train, other.train)
    assert torch.equal(torch.cat(first).sum(0), torch.cat(other).sum(0))
    assert [tuple(split.shape) for split in first] == [(1297, 784), (250, 784), (250, 784)]
    assert torch.cat(first).unique().tolist() == [0, 1]
    # Enlarged digits still look like their sources: ink fills between a tenth and a half of the image.
    assert 0.1 < torch.cat(first).float().mean() < 0.5


def test_the_real_data_set(real_data):
    splits = data.binarized_mnist(real_data)
    assert [tuple(split.shape) for split in splits] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert splits.train.float().mean().item() == pytest.approx(0.1307, abs=2e-3)
