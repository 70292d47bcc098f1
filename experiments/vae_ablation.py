"""Question 1.6: what each part of the tuned recipe brings, alone and together with the others."""

from itertools import combinations
from typing import Any

from experiments.options import Options
from experiments.vae import first_seeds, train_vaes
from experiments.vae_tuned import TUNED

MINUTES = {"full": 20}
NEEDS = ("vae", "vae_tuned")
USES = ("dataset",)
SEEDS = 3
PARTS: dict[str, dict[str, Any]] = {
    "schedule": {name: TUNED[name] for name in ("schedule", "learning_rate")},
    "path": {"gradient": TUNED["gradient"]},
    "hidden": {"input_dropout": 0.1},
}


def run(options: Options) -> dict[str, Any]:
    """Train with every subset of the parts in several seeds, with the assignment's number of epochs."""
    known = {"": options.result("vae"), "schedule+path": options.result("vae_tuned")["settings"]["tuned"]}
    rows = []
    for count in range(len(PARTS) + 1):
        for parts in combinations(PARTS, count):
            label = "+".join(parts)
            if label in known:
                setting = first_seeds(known[label], SEEDS)
            else:
                changes = {name: value for part in parts for name, value in PARTS[part].items()}
                setting, _ = train_vaes(options, label, SEEDS, changes)
            kept = {key: setting[key] for key in ("options", "valid_elbo", "test_log_px", "train_minutes")}
            rows.append({"parts": list(parts), **kept})
    return {"rows": rows}
