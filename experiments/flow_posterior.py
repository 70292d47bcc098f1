"""Question 3.10: posteriors with planar layers beside the normal one, and what their training owes to each choice."""

from typing import Any

from experiments.options import Options
from experiments.vae import TUNED, train_vaes

FOUR = {"posterior": "planar", "num_layers": 4}
SIXTEEN = {"posterior": "planar", "num_layers": 16}
# Name, seeds, changes to the defaults. The first of each schedule is what the others are compared with.
SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("assignment", 3, {}),
    ("sampled", 3, {"divergence": "sampled"}),
    ("planar-4", 3, FOUR),
    ("planar-16", 3, SIXTEEN),
    ("planar-4-everywhere", 3, {**FOUR, "u_hat": "everywhere"}),
    ("planar-4-identity", 3, {**FOUR, "flow_scale": 0.01}),
    ("planar-4-warmup", 3, {**FOUR, "warmup": 10}),
    ("planar-4-path", 3, {**FOUR, "gradient": "path"}),
    ("tuned", 3, TUNED),
    ("tuned-planar-4", 3, {**TUNED, **FOUR, "flow_scale": 0.01}),
    ("tuned-planar-16", 3, {**TUNED, **SIXTEEN, "flow_scale": 0.01}),
]


def run(options: Options) -> dict[str, Any]:
    """Train each setting in several seeds."""
    settings = {name: train_vaes(options, name, seeds, changes)[0] for name, seeds, changes in SETTINGS}
    return {"dataset": options.dataset, "settings": settings}
