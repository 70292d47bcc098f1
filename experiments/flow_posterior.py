"""Question 3.10: a posterior with k planar layers beside the normal one, with the same budget."""

from typing import Any

from experiments.options import Options
from experiments.vae import first_seeds, train_vaes

MINUTES = {"quick": 0.5, "assignment": 2.5, "full": 20}
NEEDS = ("vae",)
USES = ("dataset",)
SEEDS = 3
DEPTHS = [4, 16]


def run(options: Options) -> dict[str, Any]:
    """Train with each number of layers in several seeds; in the assignment's profile the smallest, in one."""
    depths, seeds = (DEPTHS[:1], 1) if options.profile == "assignment" else (DEPTHS, SEEDS)
    settings = {"assignment": first_seeds(options.result("vae"), seeds)}
    for k in depths:
        settings[f"planar-{k}"], _ = train_vaes(options, f"planar-{k}", seeds, {"posterior": "planar", "num_layers": k})
    return {"settings": settings}
