"""Questions 3.2, 3.7 and 3.9: planar layers, and planar flows from samples and from densities."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import train
from data.densities import TARGETS
from experiments.options import Options
from lab import checkpoint
from lab.command_line import determining
from lab.estimates import spread
from question3 import directions, plots
from question3.stacked_flows import unstack
from solution import Flow

DEPTHS = [2, 8, 32]
TUNED_LR = 1e-2  # peak of the one-cycle schedule
# Title, u, w and b of the layers in the figure of question 3.2.
TRANSFORMATIONS: list[tuple[str, Any, Any, Any]] = [
    (title, torch.tensor(u), torch.tensor(w), torch.tensor(b))
    for title, u, w, b in [
        ("expansion", [2.0, 0.0], [2.0, 0.0], 0.0),
        ("contraction", [-0.7, 0.0], [1.0, 0.0], 0.0),
        ("steeper", [2.0, 0.0], [6.0, 0.0], 0.0),
        ("shifted", [2.0, 0.0], [2.0, 0.0], 3.0),
        ("shear", [0.0, 2.0], [1.5, 0.0], 0.0),
        ("oblique", [1.5, 0.5], [1.0, 2.0], -1.0),
        ("fold", [-2.0, 0.0], [2.0, 0.0], 0.0),
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
    tuned = tuned_flows(options, asked)
    flows = median_flows(out, result["runs"])
    for source, name in itertools.product(asked.source, asked.data):
        of_depths = [flows[source, name, k] for k in asked.num_layers]
        plots.over_depth(options.figures / f"flow_{source}_{name}.png", TARGETS[name], source, of_depths)
    plots.transformations(options.figures / "flow_transformations.png", TRANSFORMATIONS)
    settings = [
        summarise(source, name, k, result["runs"])
        for source, name, k in itertools.product(asked.source, asked.data, asked.num_layers)
    ]
    plots.depth(options.figures / "flow_depth.svg", settings, tuned)
    limits = {
        name: {"log_z": TARGETS[name].log_z, "entropy": TARGETS[name].entropy, "half_width": TARGETS[name].half_width}
        for name in asked.data
    }
    return {
        "dataset": "none",
        "options": {**determining(asked), "seeds": len(asked.seed)},
        "limits": limits,
        "settings": settings,
        "tuned": tuned,
        "directions": both_directions(options),
        "seconds": result["wall_seconds"],
        "runs": [{key: value for key, value in r.items() if key != "curve"} for r in result["runs"]],
    }


def median_flows(out: Path, runs: list[dict[str, Any]]) -> dict[tuple[str, str, int], tuple[int, Flow]]:
    """For each source, target and depth, the seed that is the median of all, and its flow."""
    found = {}
    settings = dict.fromkeys((record["source"], record["data"], record["num_layers"]) for record in runs)
    for source, name, k in settings:
        of_group = [record for record in runs if (record["source"], record["num_layers"]) == (source, k)]
        places = [i for i, record in enumerate(of_group) if record["data"] == name]
        place = places[train.median_of([of_group[i] for i in places])]
        state = checkpoint.load(out / f"from_{source}_l{k}" / "checkpoint.pt")
        assert state is not None
        found[source, name, k] = of_group[place]["seed"], unstack(tuple(state["parameters"]))[place]
    return found


def both_directions(options: Options, name: str = "arcs", num_layers: int = 2) -> dict[str, Any]:
    """Flows of few layers by either divergence, of several starts each the best by its own, and both measures of both.

    Few layers cannot have everything, so one sees what each divergence gives up.
    """
    starts, steps, cells = (2, 50, 40) if options.quick else (8, 1500, 100)
    grid, target = directions.square(cells=cells), TARGETS[name]
    best, measures = {}, {}
    for direction in ("forward", "reverse"):
        flows = [
            directions.fit(target, direction, num_layers, seed, grid, steps, progress=True) for seed in range(starts)
        ]
        measured = [directions.measure(target, flow, grid) for flow in flows]
        chosen = min(range(starts), key=lambda i: measured[i][direction])
        best[direction], measures[direction] = flows[chosen], measured[chosen]
    plots.directions(options.figures / "flow_directions.png", target, best)
    return {"data": name, "num_layers": num_layers, "starts": starts, "measures": measures}


def tuned_flows(options: Options, asked: train.Hyperparameters) -> dict[str, Any]:
    """The deepest flows by another recipe, from the same data and from endless fresh points, with the data's limit.

    Points of a data set fix P parameters with an error that costs P/(2N) nats of expected log-likelihood in the mean
    (Wilks 1938, The large-sample distribution of the likelihood ratio, https://doi.org/10.1214/aoms/1177732360): what
    fresh points have not to pay.
    """
    k = max(DEPTHS)
    settings = {}
    recipes: dict[str, dict[str, Any]] = {"tuned": {}, "fresh": {"fresh": True, "source": ["samples"]}}
    for name, changes in recipes.items():
        out = str(Path(options.out) / f"flow_{name}")
        one = replace(asked, num_layers=[k], recipe="tuned", lr=TUNED_LR, out=out, **changes)
        found = train.run(one)["runs"]
        settings[name] = [summarise(source, target, k, found) for source in one.source for target in one.data]
    parameters = sum(parameter.numel() for parameter in Flow(2, k).parameters())
    points = len(TARGETS[asked.data[0]].data_set())
    return {
        "lr": TUNED_LR,
        "settings": settings,
        "parameters": parameters,
        "points": points,
        "limit_of_the_data": parameters / (2 * points),
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
