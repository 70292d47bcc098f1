"""What the tests share: a steady Hypothesis profile and the folder of the real data."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported, and inherited by the processes that tests start: workers that each take all the cores
    # spend their time waiting for one another.
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads))

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
