"""The data sets: loaders that return whole tensors, and the small arrays that ship with the project."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from data.cifar import cifar10, image_folder
from data.files import DataUnavailableError
from data.mnist import Splits, binarized_mnist, binary_file
from data.stand_in import digit_images, digits
from lab.options import InputError


def default_root() -> str:
    """The folder of the data sets: the environment variable ``DATA``, or ``datasets``."""
    return os.environ.get("DATA") or "datasets"


def load(name: str, root: str | Path, seed: int = 0) -> tuple[str, Splits]:
    """Load binary images; returns the name of the data set that was loaded, and its splits.

    Args:
        name: ``binarized_mnist``, ``digits``, your own file (:func:`binary_file`), or ``auto``: the first, or with a
            warning the second if the first is not available.
        root: Folder for downloaded data sets.
        seed: Seed of the split of the stand-in.

    Raises:
        InputError: No data set has that name, or it is not available.
    """
    if name == "digits":
        return "digits", digits(seed)
    if name.endswith(".npz"):
        return name, binary_file(name)
    if name not in ("auto", "binarized_mnist"):
        raise InputError(f"unknown data set {name!r}: choose auto, binarized_mnist, digits or a file NAME.npz")
    try:
        return "binarized_mnist", binarized_mnist(root)
    except DataUnavailableError as error:
        if name != "auto":
            raise
        print(f"{error} Using the stand-in, scikit-learn's digits.", file=sys.stderr)
        return "digits", digits(seed)


def load_images(name: str, root: str | Path) -> tuple[str, Tensor, Tensor]:
    """Load colour images to train a GAN on; returns the name of the data set that was loaded and two sets of images.

    Training and test images are uint8, ``(N, 3, 32, 32)``. Of the digits and of a folder, every tenth is a test image.

    Args:
        name: ``cifar10``, ``digits``, the path of a folder of images, or ``auto``: CIFAR-10, or with a warning the
            digits if CIFAR-10 is not available.
        root: Folder for downloaded data sets.

    Raises:
        InputError: No data set has that name, or it is not available.
    """
    if name in ("auto", "cifar10"):
        try:
            published = cifar10(root)
            return "cifar10", published.train, published.test
        except DataUnavailableError as error:
            if name == "cifar10":
                raise
            print(f"{error} Using the stand-in, scikit-learn's digits.", file=sys.stderr)
            name = "digits"
    if name != "digits" and not Path(name).is_dir():
        raise InputError(f"unknown data set {name!r}: choose auto, cifar10, digits or a folder of images")
    images = digit_images() if name == "digits" else image_folder(name)
    test = torch.arange(len(images)) % 10 == 9
    return name, images[~test], images[test]
