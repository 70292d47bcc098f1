"""Question 3.10: a posterior with k planar layers beside the normal one, with the same budget."""

from typing import Any

from experiments.options import Options
from experiments.vae import train_vaes

SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("assignment", 3, {}),
    *((f"planar-{k}", 3, {"posterior": "planar", "num_layers": k}) for k in (4, 16)),
]


def run(options: Options) -> dict[str, Any]:
    """Train each setting in several seeds."""
    settings = {name: train_vaes(options, name, seeds, changes)[0] for name, seeds, changes in SETTINGS}
    return {"dataset": options.dataset, "settings": settings}
