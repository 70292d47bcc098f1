"""Questions 3.2, 3.7 and 3.9: planar layers, and planar flows from samples and from densities."""

from pathlib import Path
from typing import Any

import torch

import train
from data.densities import TARGETS
from experiments.options import Options
from lab import checkpoint
from lab.estimates import spread
from lab.figures import captioned
from lab.options import determining
from question3 import plots
from question3.stacked_flows import unstack
from solution import Flow

MINUTES = {"quick": 0.2, "assignment": 2.0, "full": 5}
DEPTHS = [2, 8, 32]
SEEDS = {"full": 5, "assignment": 1, "quick": 2}
# Title, u, w and b of the layers in the figure of question 3.2.
TRANSFORMATIONS = [
    ("expansion", [2.0, 0.0], [2.0, 0.0], 0.0),
    ("longer", [3.0, 0.0], [2.0, 0.0], 0.0),
    ("steeper", [2.0, 0.0], [6.0, 0.0], 0.0),
    ("shifted", [2.0, 0.0], [2.0, 0.0], 3.0),
    ("turned", [2.0, 0.0], [1.2, 1.6], 0.0),
    ("contraction", [-0.7, 0.0], [1.0, 0.0], 0.0),
    ("shear", [0.0, 2.0], [1.5, 0.0], 0.0),
    ("oblique", [1.5, 0.5], [1.0, 2.0], -1.0),
    ("fold", [-2.0, 0.0], [2.0, 0.0], 0.0),
]


def run(options: Options) -> dict[str, Any]:
    """Train flows of each depth in several seeds, and set them beside what no flow can pass."""
    asked = prescribed(options)
    result = train.run(asked)
    flows = median_flows(Path(asked.out), result["runs"])
    for source in asked.source:
        learnt = [name for name in asked.targets if source == "density" or TARGETS[name].sampler]
        rows = {TARGETS[name]: [flows[source, name, k] for k in asked.num_layers] for name in learnt}
        caption = f"Targets and flows that learnt them from {source}, by number of layers: densities and draws."
        plots.compare(captioned(options.figures / f"flow_{source}.svg", caption), source, rows)
    caption = "Single planar layers applied to a standard normal distribution and to a square grid."
    layers: Any = [(title, *map(torch.tensor, layer)) for title, *layer in TRANSFORMATIONS]
    plots.transformations(captioned(options.figures / "flow_transformations.svg", caption), layers)
    return {
        "options": {**determining(asked), "seeds": len(asked.seed)},
        "limits": {name: {"log_z": TARGETS[name].log_z, "entropy": TARGETS[name].entropy} for name in asked.targets},
        "settings": [summarise(*setting, result["runs"]) for setting in sorted(flows)],
        "seconds": result["wall_seconds"],
        "runs": [{key: value for key, value in r.items() if key != "curve"} for r in result["runs"]],
    }


def prescribed(options: Options) -> train.Hyperparameters:
    """The runs with the assignment's hyper-parameters."""
    return train.Hyperparameters(
        num_iter=300 if options.quick else 20_000,
        num_layers=DEPTHS,
        seed=options.seeds(range(1, 1 + SEEDS[options.profile])),
        compile=not options.quick,
        out=str(options.folder / "flow"),
    )


def median_flows(out: Path, runs: list[dict[str, Any]]) -> dict[tuple[str, str, int], tuple[int, Flow]]:
    """For each source, target and depth, the seed that is the median of all, and its flow."""
    found = {}
    for source, name, k in dict.fromkeys((record["source"], record["data"], record["num_layers"]) for record in runs):
        records = [record for record in runs if (record["source"], record["num_layers"]) == (source, k)]
        places = [i for i, record in enumerate(records) if record["data"] == name]
        place = places[train.median_of([records[i] for i in places])]
        state = checkpoint.load(out / records[place]["folder"] / "checkpoint.pt")
        found[source, name, k] = records[place]["seed"], unstack(tuple(state["parameters"]))[place]
    return found


def summarise(source: str, name: str, num_layers: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of one setting over its seeds, as far as the target is known."""
    rows = [r for r in runs if (r["source"], r["data"], r["num_layers"]) == (source, name, num_layers)]
    values: dict[str, list[float]] = {}
    for key in ("nll", "gap", "loss", "kl", "share_inside"):
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
