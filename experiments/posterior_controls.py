"""Question 3.10: what the loss of a planar posterior is owed to, one choice at a time, and a recipe without it."""

from typing import Any

from experiments.options import Options
from experiments.vae import train_vaes
from experiments.vae_tuned import LONG, TUNED

FOUR = {"posterior": "planar", "num_layers": 4}
SCALE: dict[str, Any] = {"flow_scale": 0.03}
# Name, number of seeds, changes to the defaults.
SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("tuned", 3, TUNED),
    ("tuned-planar-4", 3, {**TUNED, **FOUR, **SCALE}),
    ("tuned-planar-16", 3, {**TUNED, **FOUR, **SCALE, "num_layers": 16}),
    ("long-planar-4", 3, {**LONG, **FOUR, **SCALE}),
    ("sampled", 3, {"posterior": "planar"}),  # no layers: normal, with the divergence estimated from the draw
    ("path", 3, {**FOUR, "gradient": "path"}),
    ("scale", 3, {**FOUR, **SCALE}),
]


def run(options: Options) -> dict[str, Any]:
    """Train each setting in several seeds."""
    settings = {}
    for name, seeds, changes in SETTINGS:
        folder = name if name.startswith(("tuned", "long")) or name == "sampled" else f"planar-4-{name}"
        settings[name], _ = train_vaes(options, folder, seeds, changes)
    return {"dataset": options.dataset, "settings": settings}
