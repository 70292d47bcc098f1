"""Arrays from files that may be damaged, or not what their name says."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lab.options import InputError


class DataUnavailableError(InputError):
    """A data set is not on this machine and cannot be fetched, or the file that should hold it is broken."""


def read_arrays(path: str | Path, names: Iterable[str], advice: str = "") -> dict[str, np.ndarray]:
    """The named arrays of an ``.npz`` file.

    Raises:
        DataUnavailableError: The file cannot be read, or lacks one of them; ``advice`` is what to do then.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in names}  # a member that is no array comes as bytes
    except Exception as error:  # a damaged archive raises almost anything, from zlib's errors to the tokenizer's
        raise DataUnavailableError(f"{path} cannot be read ({_reason(error)}). {advice}".strip()) from None


def read_array(path: str | Path) -> np.ndarray:
    """The array of an ``.npy`` file.

    Raises:
        DataUnavailableError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise DataUnavailableError(f"{path} cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
