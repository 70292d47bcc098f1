"""The loaders: what they accept, what they refuse, what they leave behind."""

import io
import pickle
import socket
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as extra
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


@pytest.mark.parametrize("broken", [None, "missing", "truncated", "flipped", "garbage", "empty"])
def test_download_from_the_publisher_and_else_from_the_mirror(published, images, broken):
    path = published / "publisher" / "valid.amat"
    raw = path.read_bytes()
    contents = {
        "truncated": raw[: len(raw) // 2],
        "flipped": raw[:-3] + (b"1" if raw[-3:-2] == b"0" else b"0") + raw[-2:],
        "garbage": b"<html>not found</html>" * 100,
        "empty": b"",
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


def test_a_split_of_one_image_is_refused(tmp_path):
    """A mean over images is given with its standard error."""
    splits = {name: np.eye(4).reshape(4, 2, 2) for name in data.Splits._fields}
    np.savez(tmp_path / "own.npz", **{**splits, "valid": splits["valid"][:1]})
    with pytest.raises(data.DataUnavailableError, match="valid has fewer than two images"):
        mnist.binary_file(tmp_path / "own.npz")


def arrays_of_any_type() -> st.SearchStrategy[np.ndarray]:
    """Bits in types and shapes of every kind; zeros only in types that are not numeric."""
    texts = extra.byte_string_dtypes() | extra.unicode_string_dtypes()
    types = st.one_of(extra.scalar_dtypes(), texts, st.just(np.dtype([("bit", "u1")])), st.just(np.dtype("V1")))
    shapes = extra.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)

    def fill(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        array = np.zeros(shape, dtype)
        if dtype.kind in "biufc":
            array.reshape(-1)[::2] = 1
        return array

    return st.builds(fill, types, shapes)


@given(arrays_of_any_type())
@settings(max_examples=300)
def test_ones_own_arrays_of_any_type_and_shape_are_read_or_refused(array):
    real = array.dtype == bool or np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    images = array.ndim >= 2 and array.shape[0] >= 2 and array[0].size > 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.npz"
        np.savez(path, **dict.fromkeys(data.Splits._fields, array))
        if not (real and images and not np.issubdtype(array.dtype, np.timedelta64)):
            with pytest.raises(data.DataUnavailableError, match=r"own\.npz: train (holds|has) .*\S"):
                mnist.binary_file(path)
            return
        for split in mnist.binary_file(path):
            assert split.dtype == torch.uint8
            assert split.tolist() == [[int(value) for value in image.flat] for image in array]


def test_pickled_objects_are_refused(tmp_path):
    """Reading them would run their code."""
    np.savez(tmp_path / "own.npz", **dict.fromkeys(data.Splits._fields, np.array([[0, 1], [1, None]])))
    with zipfile.ZipFile(tmp_path / "cifar10.npz", "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", pickle.dumps([0, 1]))
    for read in (lambda: mnist.binary_file(tmp_path / "own.npz"), lambda: data.cifar10(tmp_path)):
        with pytest.raises(data.DataUnavailableError, match=r"\.npz"):
            read()


def test_the_order_of_the_rows_does_not_matter(published, images):
    np.savetxt(published / "publisher" / "train.amat", images["train"][::-1], fmt="%d")
    check(data.binarized_mnist(published / "root"), {**images, "train": images["train"][::-1]})


def test_a_matlab_file_may_hold_the_images_in_columns(images):
    buffer = io.BytesIO()
    savemat(buffer, {"X": images["train"].T})
    assert np.array_equal(mnist.decode(buffer.getvalue()), np.packbits(images["train"], axis=1))


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
