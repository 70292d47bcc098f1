"""Question 3.10: what the loss of a planar posterior is owed to, one choice at a time, and a recipe without it."""

from typing import Any

from experiments.options import Options
from experiments.vae import first_seeds, train_vaes
from experiments.vae_tuned import LONG, TUNED

MINUTES = {"full": 70}
NEEDS = ("vae_tuned",)
USES = ("dataset",)
SEEDS = 3
FOUR = {"posterior": "planar", "num_layers": 4}
SCALE: dict[str, Any] = {"flow_scale": 0.03}
# Changes to the defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "tuned-planar-4": {**TUNED, **FOUR, **SCALE},
    "tuned-planar-16": {**TUNED, **FOUR, **SCALE, "num_layers": 16},
    "long-planar-4": {**LONG, **FOUR, **SCALE},
    "sampled": {"posterior": "planar"},  # no layers: normal, with the divergence estimated from the draw
    "path": {**FOUR, "gradient": "path"},
    "scale": {**FOUR, **SCALE},
}


def run(options: Options) -> dict[str, Any]:
    """Train each setting in several seeds."""
    settings = {"tuned": first_seeds(options.result("vae_tuned")["settings"]["tuned"], SEEDS)}
    for name, changes in SETTINGS.items():
        settings[name], _ = train_vaes(options, f"controls-{name}", SEEDS, changes)
    return {"settings": settings}
