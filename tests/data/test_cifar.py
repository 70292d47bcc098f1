"""CIFAR-10's file and folders of images: what is read, what is refused."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

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
    with pytest.raises(data.DataUnavailableError, match=r"DATA=FOLDER.*--dataset digits"):
        data.cifar10(tmp_path)
    name, train, test = data.load_images("auto", tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "stand-in" in said
    assert name == "digits" and train.shape[1:] == (3, 32, 32) and len(train) + len(test) == 1797


@pytest.mark.parametrize("broken", ["text", "missing", "shape", "type"])
def test_broken_files_are_refused(tmp_path, broken):
    published = arrays()
    path = tmp_path / "cifar10.npz"
    if broken == "text":
        path.write_text("not an archive")
    else:
        changes = {
            "missing": {},
            "shape": {"x_test": published["x_test"][:3]},
            "type": {"x_test": published["x_test"] / 255},
        }
        rest = {k: v for k, v in published.items() if k != "x_test"}
        np.savez(path, **rest, **changes[broken])
    with pytest.raises(data.DataUnavailableError, match=r"cifar10\.npz"):
        data.cifar10(tmp_path)


def test_published_images_have_the_published_mean(real_cifar):
    assert len(real_cifar.train) == 50_000 and real_cifar.train_labels.bincount().tolist() == [5000] * 10
    mean = real_cifar.train.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.49140, 0.48216, 0.44653]), atol=1e-5, rtol=0)


def test_folder_of_images_is_read_resized_and_cached(tmp_path):
    folder, cache = tmp_path / "pictures", tmp_path / "cache"
    (folder / "class").mkdir(parents=True)
    Image.new("RGB", (64, 48), (10, 200, 30)).save(folder / "a.png")
    Image.new("L", (32, 32), 77).save(folder / "class" / "b.png")
    name, train, test = data.load_images(str(folder), cache)
    assert name == str(folder) and train.shape == (2, 3, 32, 32) and len(test) == 0
    assert train[0, :, 5, 5].tolist() == [10, 200, 30] and train[1].unique().tolist() == [77]
    (made,) = cache.iterdir()
    stamp = made.stat().st_mtime_ns
    assert torch.equal(data.image_folder(folder, cache), train) and made.stat().st_mtime_ns == stamp
    Image.new("L", (32, 32), 78).save(folder / "class" / "c.png")
    assert len(data.image_folder(folder, cache)) == 3  # the cache of other files is not used
    (folder / "d.png").write_text("no image")
    with pytest.raises(data.DataUnavailableError, match=r"d\.png"):
        data.image_folder(folder, cache)
    with pytest.raises(data.DataUnavailableError, match="no images"):
        data.image_folder(cache, cache)
