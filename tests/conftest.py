"""What the tests share: a steady Hypothesis profile and the folder of the real data."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

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
