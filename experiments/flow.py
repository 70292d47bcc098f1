"""Questions 3.2, 3.7 and 3.9: planar layers, and planar flows from samples and from densities."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import torch

import train
from data.densities import TARGETS
from experiments.options import Options
from lab.command_line import determining
from lab.estimates import spread
from question3 import plots

DEPTHS = [2, 8, 32]
# Title, u, w and b of the layers in the figure of question 3.2.
TRANSFORMATIONS: list[tuple[str, Any, Any, Any]] = [
    (title, torch.tensor(u), torch.tensor(w), torch.tensor(b))
    for title, u, w, b in [
        ("expansion: w·u = 4", [2.0, 0.0], [2.0, 0.0], 0.0),
        ("contraction: w·u = -0.7", [-0.7, 0.0], [1.0, 0.0], 0.0),
        ("steeper: ‖w‖ = 6", [2.0, 0.0], [6.0, 0.0], 0.0),
        ("shifted: b = 3", [2.0, 0.0], [2.0, 0.0], 3.0),
        ("shear: u ⊥ w", [0.0, 2.0], [1.5, 0.0], 0.0),
    ]
]


def run(options: Options) -> dict[str, Any]:
    """Train flows of each depth in several seeds, and set them beside what no flow can pass."""
    out = Path(options.out) / "flow"
    asked = train.Hyperparameters(
        num_iter=300 if options.quick else 20_000,
        num_layers=DEPTHS,
        seed=options.seeds(range(1, 3 if options.quick else 6)),
        compile=not options.quick,
        out=str(out),
    )
    result = train.run(asked)
    for picture in out.glob("*.png"):
        shutil.copy(picture, options.figures / f"flow_{picture.name}")
    plots.transformations(options.figures / "flow_transformations.png", TRANSFORMATIONS)
    settings = [
        summarise(source, name, k, result["runs"])
        for source, name, k in itertools.product(asked.source, asked.data, asked.num_layers)
    ]
    plots.depth(options.figures / "flow_depth.svg", settings)
    limits = {
        name: {"log_z": TARGETS[name].log_z, "entropy": TARGETS[name].entropy, "half_width": TARGETS[name].half_width}
        for name in asked.data
    }
    return {
        "dataset": "none",
        "options": {**determining(asked), "seeds": len(asked.seed)},
        "limits": limits,
        "settings": settings,
        "seconds": result["wall_seconds"],
        "runs": [{key: value for key, value in r.items() if key != "curve"} for r in result["runs"]],
    }


def summarise(source: str, name: str, num_layers: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of one setting over its seeds, as far as the target is known."""
    rows = [r for r in runs if (r["source"], r["data"], r["num_layers"]) == (source, name, num_layers)]
    values: dict[str, list[float]] = {}
    for key in ("nll", "gap", "loss", "kl"):
        if all(key in row for row in rows):
            values[key] = [row[key]["mean"] if isinstance(row[key], dict) else row[key] for row in rows]
    errors = [row[key]["standard_error"] for row in rows for key in ("nll", "kl") if key in row]
    return {
        "source": source,
        "data": name,
        "num_layers": num_layers,
        "standard_error": max(errors, default=None),
        **{key: spread(value) for key, value in values.items()},
    }
