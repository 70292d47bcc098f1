"""CIFAR-10 (Krizhevsky 2009) as whole tensors, and folders of images in its format."""

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.files import DataUnavailableError, read_arrays
from lab.checkpoint import atomic_write

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
KEYS = ("x_train", "y_train", "x_test", "y_test")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


class LabelledImages(NamedTuple):
    """Images, uint8, ``(N, 3, 32, 32)``, channels last in memory; classes, int64, ``(N,)``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def cifar10(root: str | Path) -> LabelledImages:
    """Load CIFAR-10, downloading it once.

    Reads ``root/cifar10.npz``: arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, uint8, images as
    ``(N, 32, 32, 3)``. Where the file is missing, torchvision downloads the published archive, checks its MD5, and the
    file is made from it.

    Args:
        root: Folder of the file.

    Returns:
        50,000 training and 10,000 test images with their classes 0 to 9.

    Raises:
        DataUnavailableError: There is no file and the publisher cannot be reached, or the file is broken.
    """
    path = Path(root) / "cifar10.npz"
    if not path.exists():
        arrays = _download(path)
        with atomic_write(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
    arrays = read_arrays(path, KEYS, "Delete it to download it again.")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].reshape(-1)  # Keras has labels as (N, 1)
        arrays[f"y_{part}"] = labels
        if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3):
            raise DataUnavailableError(
                f"{path}: x_{part} is {images.dtype} {images.shape}, not uint8 ({len(labels)}, 32, 32, 3)."
            )
        if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0 or labels.max() >= len(CLASSES):
            raise DataUnavailableError(f"{path}: y_{part} holds labels other than the whole numbers 0 to 9.")
    tensors = [torch.from_numpy(arrays[key]) for key in KEYS]
    return LabelledImages(*(t.permute(0, 3, 1, 2) if t.ndim == 4 else t.long() for t in tensors))


def _download(path: Path) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10

    arrays = {}
    try:
        for part in ("train", "test"):
            published = CIFAR10(str(path.parent), train=part == "train", download=True)
            arrays[f"x_{part}"] = published.data
            arrays[f"y_{part}"] = np.array(published.targets, dtype=np.uint8)
    except (OSError, RuntimeError) as error:
        raise DataUnavailableError(
            f"{path} is missing, and CIFAR-10 could not be downloaded ({error}). Put the file there by hand (the "
            "README says how), name its folder with DATA=FOLDER, or use --dataset digits."
        ) from None
    return arrays


def image_folder(folder: str | Path, cache: str | Path) -> Tensor:
    """All images below a folder as 32×32, resized so that the shorter side fits and cut at the centre.

    Args:
        folder: Images, in it or in folders of classes below.
        cache: Folder where the result is kept, under a name that depends on the files' names, sizes and times.

    Returns:
        uint8, ``(N, 3, 32, 32)``, in the order of the files' names.

    Raises:
        DataUnavailableError: There is no such folder, no image in it, or one that cannot be read.
    """
    from PIL import Image, ImageOps
    from tqdm.auto import tqdm

    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataUnavailableError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    try:
        stamp = "\n".join(f"{f.relative_to(folder)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    except OSError as error:  # a link to nothing, or a file that has gone
        raise DataUnavailableError(f"{error.filename} cannot be read as an image ({error.strerror})") from None
    path = Path(cache) / f"images-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.npz"
    if path.exists():
        with contextlib.suppress(DataUnavailableError):  # a damaged cache is made anew
            (cached,) = read_arrays(path, ["images"]).values()  # an archive, since that has a checksum
            if cached.dtype == np.uint8 and cached.shape == (len(files), 32, 32, 3):
                return torch.from_numpy(cached).permute(0, 3, 1, 2)
    images = np.empty((len(files), 32, 32, 3), np.uint8)
    for i, file in enumerate(tqdm(files, desc=f"reading {folder}", unit=" images", leave=False)):
        try:
            images[i] = np.asarray(ImageOps.fit(Image.open(file).convert("RGB"), (32, 32), Image.Resampling.LANCZOS))
        except Exception as error:  # damaged images raise almost anything, too large ones an error of their own
            raise DataUnavailableError(f"{file} cannot be read as an image ({error})") from None
    try:
        with atomic_write(path) as temporary:
            np.savez(temporary, images=images)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}): the images are read again next time", file=sys.stderr)
    return torch.from_numpy(images).permute(0, 3, 1, 2)
