"""Read arrays from files that may be damaged or of another kind."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lab.options import InputError


class DataUnavailableError(InputError):
    """A data set is missing and cannot be downloaded, or its file is broken."""


def read_arrays(path: str | Path, names: Iterable[str], advice: str = "") -> dict[str, np.ndarray]:
    """Read the named arrays of an ``.npz`` file.

    Raises:
        DataUnavailableError: The file cannot be read, or lacks one of them; the message ends with ``advice``.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in names}  # a member that is not an array is read as bytes
    except Exception as error:  # a damaged archive raises many kinds, from zlib's to the tokenizer's
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise DataUnavailableError(f"{path} cannot be read ({reason}). {advice}".strip()) from None
