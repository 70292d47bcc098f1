"""The static binarised MNIST of Larochelle and Murray (2011), from its publisher or a mirror."""

import hashlib
import http.client
import io
import shutil
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from data.files import DataUnavailableError, read_arrays
from lab.files import atomic_write

SOURCES = {
    "publisher": "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_{split}.amat",
    "mirror": "https://raw.githubusercontent.com/mingzhang-yin/ARM-gradient/"
    "bac893cfcec486bbd00b755b12cf8402053b0e84/binarized_mnist_{split}.amat",
}
# SHA-256 of the packed rows in sorted order, so the order of the images does not matter.
SHA256 = {
    "train": "aae6de292e6b68d898acf52062a1ac62907fc7ab417c59582d6523a1da0f9a61",
    "valid": "d10b4edf2e0765693846b51a5895f81f69fa37b6459b7f665bfa9c8cc9723622",
    "test": "87ff96664646cc41575aeb3ae4fbbabc1475ca3d42be4659d7a829d9f22c845a",
}
PIXELS = 784
SECONDS = 20  # that a source may be silent


class Splits(NamedTuple):
    """Training, validation and test images: uint8, 0 or 1, shape ``(N, 784)``."""

    train: Tensor
    valid: Tensor
    test: Tensor


def binarized_mnist(root: str | Path) -> Splits:
    """Load the static binarised MNIST, 50,000 / 10,000 / 10,000 images, downloading it once.

    Reads ``root/binarized_mnist.npz``: arrays ``train``, ``valid`` and ``test`` of 98 bytes a row, the 784 pixels of an
    image packed by ``numpy.packbits``. If the file is missing, it is written from the publisher's text files or else
    from a mirror's MATLAB files, once every split has the right checksum.

    Raises:
        DataUnavailableError: No source can be reached, or a file does not hold the images of the data set.

    Source:
        Larochelle and Murray (2011), The neural autoregressive distribution estimator.
    """
    path = Path(root) / "binarized_mnist.npz"
    if not path.exists():
        downloaded = {split: _fetch(split, path) for split in SHA256}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            np.savez(temporary, **downloaded)  # type: ignore[arg-type]
    advice = "Delete it to download it again."
    packed = read_arrays(path, SHA256, advice)
    for split, digest in SHA256.items():
        if packed[split].ndim != 2 or checksum(packed[split]) != digest:
            raise DataUnavailableError(f"{path}: the images of {split} are not those of the data set. {advice}")
    return Splits(*(torch.from_numpy(np.unpackbits(packed[split], axis=1)) for split in SHA256))


def binary_file(path: str | Path) -> Splits:
    """Load your own binary images: the three splits, uint8, ``(N, D)``.

    Args:
        path: An ``.npz`` file with the arrays ``train``, ``valid`` and ``test``, each ``(N, D)`` or ``(N, H, W)`` with
            values 0 and 1, of a real or boolean type, all with the same D = H · W.

    Raises:
        DataUnavailableError: The file cannot be read, or holds something else.
    """
    arrays = read_arrays(path, Splits._fields)
    shape = arrays["train"].shape[1:]
    for name, array in arrays.items():
        if array.dtype.kind not in "buif" or not np.isin(array, (0, 1)).all():
            raise DataUnavailableError(f"{path}: {name} holds {array.dtype} with values other than the numbers 0 and 1")
        if array.ndim < 2 or not array.size or array.shape[1:] != shape or len(array) < 2:
            raise DataUnavailableError(f"{path}: {name} has shape {array.shape}, not two or more images as in train")
    return Splits(*(torch.from_numpy(x.astype(np.uint8).reshape(len(x), -1)) for x in arrays.values()))


def checksum(packed: np.ndarray) -> str:
    """SHA-256 of the rows in lexicographic order."""
    return hashlib.sha256(packed[np.lexsort(packed.T[::-1])].tobytes()).hexdigest()


def decode(raw: bytes) -> np.ndarray:
    """Decode a published file to packed images: lines of 784 digits, or a MATLAB file with the key ``X``.

    Raises:
        ValueError: The bytes are neither, or not a whole number of images.
    """
    if not set(raw[:PIXELS]) <= set(b"01 \r\n"):
        try:
            from scipy.io import loadmat  # only the mirror's format needs it

            pixels = np.asarray(loadmat(io.BytesIO(raw))["X"])
        except Exception as error:  # a broken file raises many kinds
            raise ValueError(f"neither text nor MATLAB data ({type(error).__name__})") from None
        pixels = pixels if pixels.shape[-1] == PIXELS else pixels.T
    else:
        pixels = np.frombuffer(raw.translate(None, b" \r\n"), np.uint8) - ord("0")
    if pixels.size == 0 or pixels.size % PIXELS or not np.isin(pixels, (0, 1)).all():
        raise ValueError(f"{pixels.size} values are not binary images of {PIXELS} pixels")
    return np.packbits(pixels.reshape(-1, PIXELS).astype(np.uint8), axis=1)


def _fetch(split: str, path: Path) -> np.ndarray:
    failures = []
    for name, template in SOURCES.items():
        url = template.format(split=split)
        try:
            packed = decode(_download(url, f"binarised MNIST, {split}, from the {name}"))
            if checksum(packed) == SHA256[split]:
                return packed
            failures.append(f"{url} (wrong checksum)")
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{url} ({error})")
    raise DataUnavailableError(
        f"{path} is missing, and its {split} split could not be downloaded. Tried: {'; '.join(failures)}. "
        "Put the file there by hand (the README says how), name its folder with --data FOLDER, or use --dataset digits."
    )


def _download(url: str, label: str) -> bytes:
    """Download a file, with a bar. A download that ends early does not have its checksum."""
    content = io.BytesIO()
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(response, "read", total=size or None, desc=label) as file:
            shutil.copyfileobj(file, content)
    return content.getvalue()
