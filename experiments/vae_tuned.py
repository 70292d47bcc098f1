"""Question 1.6: what "feel free to modify the hyper-parameters" allows with the same network."""

from typing import Any

from experiments.options import Options
from experiments.vae import SEEDS, train_vaes
from question1 import plots

TUNED = {"schedule": "one-cycle", "learning_rate": 3e-3, "gradient": "path"}
LONG = {**TUNED, "learning_rate": 2e-3, "epochs": 200, "batch_size": 128, "input_dropout": 0.1}
ASKED_FOR = -102.0  # nats, the validation ELBO of the assignment
# Name, number of seeds, changes to the defaults. The quick profile shortens them.
SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("tuned", 3, TUNED),
    ("long", 3, LONG),
]


def run(options: Options) -> dict[str, Any]:
    """Train the other settings in some seeds, and draw them beside the prescribed one."""
    settings = {name: train_vaes(options, name, seeds, changes)[0] for name, seeds, changes in SETTINGS}
    prescribed, _ = train_vaes(options, "assignment", SEEDS[options.profile], {})
    plots.training(options.figures / "vae_tuned_training.svg", {"assignment": prescribed, **settings}, ASKED_FOR)
    return {"dataset": options.dataset, "settings": settings}
