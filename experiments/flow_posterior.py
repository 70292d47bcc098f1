"""Question 3.10: a posterior with k planar layers beside the normal one, with the same budget."""

from typing import Any

from experiments.options import Options
from experiments.vae import train_vaes

# Name, number of seeds, changes to the defaults.
SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("assignment", 3, {}),
    *((f"planar-{k}", 3, {"posterior": "planar", "num_layers": k}) for k in (4, 16)),
]


def run(options: Options) -> dict[str, Any]:
    """Train each setting in several seeds; of the assignment's profile the two smallest, in one."""
    chosen = SETTINGS[:2] if options.profile == "assignment" else SETTINGS
    settings = {}
    for name, seeds, changes in chosen:
        settings[name], _ = train_vaes(options, name, 1 if options.profile == "assignment" else seeds, changes)
    return {"dataset": options.dataset, "settings": settings}
