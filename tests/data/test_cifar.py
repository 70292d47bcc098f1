"""CIFAR-10's file and folders of images: what is read, what is refused."""

import os

import numpy as np
import pytest
import torch
import torchvision
from PIL import EpsImagePlugin, ExifTags, Image

import data


def arrays(count: int = 6) -> dict:
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (count, 32, 32, 3), np.uint8) for part in ("train", "test")}
    return images | {f"y_{part}": np.arange(count, dtype=np.uint8) % 10 for part in ("train", "test")}


def test_file_is_read_with_channels_first(tmp_path):
    published = arrays()
    np.savez(tmp_path / "cifar10.npz", **published)
    images = data.cifar10(tmp_path)
    assert images.train.dtype == torch.uint8 and images.train_labels.dtype == torch.int64
    assert np.array_equal(images.train[2, 1].numpy(), published["x_train"][2, :, :, 1])
    assert np.array_equal(images.test_labels.numpy(), published["y_test"])
    assert images.train.is_contiguous(memory_format=torch.channels_last)


def test_file_is_made_once_from_torchvisions_download(tmp_path, monkeypatch):
    published, calls = arrays(), []

    class Published:
        def __init__(self, root, train, download):
            calls.append((root, train, download))
            part = "train" if train else "test"
            self.data, self.targets = published[f"x_{part}"], published[f"y_{part}"].tolist()

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Published)
    first, second = data.cifar10(tmp_path), data.cifar10(tmp_path)
    assert len(calls) == 2 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first.test, torch.from_numpy(published["x_test"]).permute(0, 3, 1, 2))


def test_without_network_and_file_the_error_says_what_to_do(tmp_path, monkeypatch, capsys):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    with pytest.raises(data.DataUnavailableError, match=r"--data FOLDER.*--dataset digits"):
        data.cifar10(tmp_path)
    name, train, test = data.load_images("auto", tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "stand-in" in said
    assert name == "digits" and train.shape[1:] == (3, 32, 32) and len(train) + len(test) == 1797


@pytest.mark.parametrize("x_test", [None, arrays(3)["x_test"], arrays()["x_test"] / 255], ids=["none", "few", "type"])
def test_broken_files_are_refused(tmp_path, x_test):
    changed = {key: value for key, value in {**arrays(), "x_test": x_test}.items() if value is not None}
    np.savez(tmp_path / "cifar10.npz", **changed)
    with pytest.raises(data.DataUnavailableError, match=r"cifar10\.npz"):
        data.cifar10(tmp_path)


def test_published_images_have_the_published_mean(real_cifar):
    assert len(real_cifar.train) == 50_000 and real_cifar.train_labels.bincount().tolist() == [5000] * 10
    mean = real_cifar.train.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.49140, 0.48216, 0.44653]), atol=1e-5, rtol=0)


def test_labels_are_read_in_any_byte_order_and_refused_beyond_nine(tmp_path):
    published = arrays()
    np.savez(tmp_path / "cifar10.npz", **published | {"y_train": published["y_train"].astype(">i4")})
    assert np.array_equal(data.cifar10(tmp_path).train_labels.numpy(), published["y_train"])
    np.savez(tmp_path / "cifar10.npz", **published | {"y_train": published["y_train"] + 5})
    with pytest.raises(data.DataUnavailableError, match="labels"):
        data.cifar10(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A folder with one image, the last by its name."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (32, 32), 77).save(folder / "z.png")
    return folder


def first_of(folder) -> np.ndarray:
    """Its first image, ``(32, 32, 3)``."""
    return data.image_folder(folder)[0].permute(1, 2, 0).numpy()


def test_folder_of_images_is_read_and_resized(tmp_path, folder):
    (folder / "class").mkdir()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(folder / "a.png")
    Image.new("L", (32, 32), 78).save(folder / "class" / "b.JPG")
    name, train, test = data.load_images(str(folder), tmp_path)
    assert name == str(folder) and train.shape == (3, 3, 32, 32) and len(test) == 0
    assert train[0, :, 5, 5].tolist() == [10, 200, 30] and train[1].unique().tolist() == [78]
    assert list(tmp_path.iterdir()) == [folder]  # and nothing is written
    assert data.image_folder(os.path.relpath(folder)).equal(train)


def test_file_that_is_no_image_is_named_and_so_is_one_that_is_too_large(folder, monkeypatch):
    (folder / "d.png").write_bytes(b"no image")
    with pytest.raises(data.DataUnavailableError, match=r"d\.png cannot be read as an image"):
        data.image_folder(folder)
    Image.new("L", (32, 32)).save(folder / "d.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.DataUnavailableError, match=r"d\.png"):
        data.image_folder(folder)


def test_folders_with_fewer_than_two_images_are_refused(tmp_path, folder):
    with pytest.raises(data.DataUnavailableError, match="holds 1 images"):
        data.load_images(str(folder), tmp_path)


def test_hidden_files_and_folders_and_folders_named_like_images_are_skipped(folder):
    (folder / "._z.png").write_bytes(b"what macOS puts beside a file")
    for name in (".ipynb_checkpoints", "x.png"):
        (folder / name).mkdir()
    Image.new("L", (32, 32), 2).save(folder / ".ipynb_checkpoints" / "a-checkpoint.png")
    Image.new("L", (32, 32), 3).save(folder / "x.png" / "b.png")
    hidden = folder.rename(folder.parent / ".pictures")  # one that was named may be hidden itself
    assert data.image_folder(hidden)[:, 0, 0, 0].tolist() == [3, 77]


def test_16_bits_keep_their_brightness(folder):
    noise = np.random.default_rng(0).integers(0, 2**16, (32, 32)).astype(np.uint16)
    Image.fromarray(noise).save(folder / "a.png")
    assert np.abs(first_of(folder) - noise[..., None] / 257).max() < 1


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_images_are_turned_as_exif_says(folder, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90° clockwise
    Image.fromarray(pixels).save(folder / f"a.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(first_of(folder), np.rot90(pixels, -1))


def test_transparent_images_are_put_over_white(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    colour, alpha = pixels[..., :3], pixels[..., 3:] / 255
    assert np.abs(first_of(folder) - (alpha * colour + (1 - alpha) * 255)).max() <= 1
    half = Image.new("P", (32, 32), 0)  # red, which is transparent, and blue
    half.putpalette([255, 0, 0, 0, 0, 255])
    half.paste(1, (16, 0, 32, 32))
    half.save(folder / "a.gif", transparency=0)
    assert first_of(folder)[5, [5, 25]].tolist() == [[255] * 3, [0, 0, 255]]


def test_a_program_in_postscript_is_not_run(folder, monkeypatch):
    """Pillow goes by a file's content, and hands PostScript to Ghostscript."""
    runs = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: runs.append(1) or Image.new("RGB", (32, 32)).im)
    lines = ["%!PS-Adobe-3.0 EPSF-3.0", "%%BoundingBox: 0 0 32 32", "%%EndComments", "showpage", "%%EOF", ""]
    (folder / "a.png").write_text("\n".join(lines))
    with Image.open(folder / "a.png") as image:
        image.load()
    assert runs == [1]  # the file is one that Pillow takes
    with pytest.raises(data.DataUnavailableError, match=r"a\.png cannot be read as an image"):
        data.image_folder(folder)
    assert runs == [1]
