"""Trained models that ship with the project: ``load(name)``; ``python -m pretrained`` draws all of them."""

import fnmatch
import json
from pathlib import Path
from typing import Any

from lab import checkpoint
from lab.options import InputError
from model import Generator
from question1.autoencoder import VAE
from solution import Flow

HERE = Path(__file__).parent
CLASSES = {"vae": VAE, "flow": Flow, "generator": Generator}


def index() -> dict[str, dict[str, Any]]:
    """Name to what is known of a model: its kind, what it is, its scores, its file's SHA-256, its training command."""
    rows = json.loads((HERE / "index.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in rows}


def names(pattern: str = "*") -> list[str]:
    """The models' names, or those that match a pattern such as ``cifar10-*``."""
    return fnmatch.filter(index(), pattern)


def load(name: str | None = None) -> Any:
    """A trained model in evaluation mode, float32, on the CPU; without a name, the names.

    Raises:
        InputError: No model has that name.

    Example:
        >>> import torch
        >>> load("vae").decode(torch.randn(5, 100)).shape  # logits of five images
        torch.Size([5, 784])
        >>> z0, logdet = load("arcs-from-samples")(torch.randn(5, 2))  # points to noise
    """
    if name is None:
        return names()
    if name not in index():
        raise InputError(f"there is no model {name!r}: choose {', '.join(names())}")
    return read(HERE / f"{name}.pt", index()[name]["kind"])


def read(path: Path, kind: str) -> Any:
    """A model from its file, which holds the arguments of its class and its weights."""
    state = checkpoint.load(path)
    network = state.pop("network")
    module = CLASSES[kind](**state)
    module.load_state_dict(network)
    return module.eval()
