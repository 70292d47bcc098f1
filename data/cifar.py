"""CIFAR-10 (Krizhevsky 2009) as whole tensors, and folders of images in its format."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from data.files import DataUnavailableError, read_arrays
from lab.files import atomic_write

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
KEYS = ("x_train", "y_train", "x_test", "y_test")
# Formats of image folders. Pillow reads more, and runs Ghostscript for EPS files, whatever their suffix.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


class LabelledImages(NamedTuple):
    """Images, uint8, ``(N, 3, 32, 32)``, channels last in memory; labels, int64, ``(N,)``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def cifar10(root: str | Path) -> LabelledImages:
    """Load CIFAR-10, 50,000 training and 10,000 test images with their labels 0 to 9, downloading it once.

    Reads ``root/cifar10.npz``: arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, uint8, images as
    ``(N, 32, 32, 3)``. If the file is missing, torchvision downloads the published archive and checks its MD5, and the
    file is written from it.

    Raises:
        DataUnavailableError: The file is missing and cannot be downloaded, or it is broken.
    """
    path = Path(root) / "cifar10.npz"
    if not path.exists():
        arrays = _download(path)
        with atomic_write(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
    arrays = read_arrays(path, KEYS, "Delete it to download it again.")
    tensors = []
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].reshape(-1)  # Keras has labels as (N, 1)
        if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3) or not np.isin(labels, range(10)).all():
            raise DataUnavailableError(
                f"{path}: x_{part} and y_{part} are not uint8 images (N, 32, 32, 3) and labels 0 to 9."
            )
        tensors += [torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64))]
    return LabelledImages(*tensors)


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
            "README says how), name its folder with --data FOLDER, or use --dataset digits."
        ) from None
    return arrays


def image_folder(folder: str | Path) -> Tensor:
    """Load all images below a folder, resized and cropped at the centre: uint8, ``(N, 3, 32, 32)``, by file name.

    Hidden files and folders (``._a.png``, ``.ipynb_checkpoints``) and files with other suffixes are skipped. Images are
    rotated by their EXIF orientation, and transparent ones are put over white.

    Raises:
        DataUnavailableError: The folder holds fewer than two images, or one that cannot be read.
    """
    folder = Path(folder)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    )
    if len(files) < 2:  # the FID compares covariances
        raise DataUnavailableError(f"{folder} holds {len(files)} images ({', '.join(SUFFIXES)}); a GAN needs two")
    images = np.empty((len(files), 32, 32, 3), np.uint8)
    for i, file in enumerate(tqdm(files, desc=f"reading {folder}", unit="image", leave=False)):
        try:
            with Image.open(file, formats=FORMATS) as image:
                images[i] = np.asarray(ImageOps.fit(_over_white(image), (32, 32), Image.Resampling.LANCZOS))
        except Exception as error:  # damaged and too large images raise many kinds
            raise DataUnavailableError(f"{file} cannot be read as an image ({error})") from None
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _over_white(image: Image.Image) -> Image.Image:
    """Convert an opened image to 8-bit RGB, upright, over white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")
