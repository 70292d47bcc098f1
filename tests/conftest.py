"""What the tests share: a steady Hypothesis profile and the folder of the real data."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

import data

# Deadlines measure the machine, not the code; derandomised, a failure here is a failure everywhere.
settings.register_profile("project", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("project")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by ``DATA``; the test is skipped where it holds no real data."""
    folder = Path(os.environ.get("DATA") or "datasets")
    if not (folder / "binarized_mnist.npz").exists():
        pytest.skip(f"no binarized_mnist.npz in {folder}: name its folder with DATA=FOLDER")
    return folder


@pytest.fixture(scope="session")
def real_cifar(tmp_path_factory):
    """CIFAR-10, from the folder named by ``DATA`` or ``datasets``; the test is skipped where it is in neither."""
    for folder in (os.environ.get("DATA") or "datasets", "datasets"):
        if (Path(folder) / "cifar10.npz").exists():
            return data.cifar10(folder)
    pytest.skip("no cifar10.npz: name its folder with DATA=FOLDER")
