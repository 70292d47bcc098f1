"""The data sets: loaders that hand out whole tensors, and the small arrays that ship with the project."""

import os
import warnings
from pathlib import Path

from data.mnist import DataUnavailableError, Splits, binarized_mnist
from data.stand_in import digits

__all__ = ["DataUnavailableError", "Splits", "binarized_mnist", "default_root", "digits", "load"]


def default_root() -> str:
    """The folder where data sets lie or are put: the environment's ``DATA``, else ``datasets``."""
    return os.environ.get("DATA") or "datasets"


def load(name: str, root: str | Path, seed: int = 0) -> tuple[str, Splits]:
    """Load binary images by the name of their data set.

    Args:
        name: ``binarized_mnist``, ``digits``, or ``auto``: the first, or with a warning the second where
            the first cannot be had.
        root: Folder for data sets that are downloaded.
        seed: Split of the stand-in; the real data set comes with its own.

    Returns:
        The name of the data set that was loaded, and its splits.

    Raises:
        DataUnavailableError: The data set was asked for by name and cannot be had.
        ValueError: There is no data set of that name.
    """
    if name == "digits":
        return "digits", digits(seed)
    if name not in ("auto", "binarized_mnist"):
        raise ValueError(f"unknown data set {name!r}: choose auto, binarized_mnist or digits")
    try:
        return "binarized_mnist", binarized_mnist(root)
    except DataUnavailableError as error:
        if name != "auto":
            raise
        warnings.warn(f"{error} Going on with the stand-in, scikit-learn's digits.", stacklevel=2)
        return "digits", digits(seed)
