"""Question 3.7: the deepest flows by another recipe, and the limit that the number of points sets."""

from dataclasses import replace
from typing import Any

import train
from data.densities import TARGETS
from experiments.flow import DEPTHS, prescribed, summarise
from experiments.options import Options
from lab.figures import captioned
from question3 import natural, plots
from solution import Flow

MINUTES = {"quick": 0.1, "full": 3}
NEEDS = ("flow",)
TUNED_LR = 0.1  # peak of the one-cycle schedule


def run(options: Options) -> dict[str, Any]:
    """The deepest flows by another recipe, from the same data and from endless fresh points, with the data's limit.

    Points of a data set fix P parameters with an error that costs P/(2N) nats of expected log-likelihood in the mean
    (Wilks 1938, The large-sample distribution of the likelihood ratio, https://doi.org/10.1214/aoms/1177732360): what
    fresh points have not to pay.
    """
    asked = prescribed(options)
    k = max(DEPTHS)
    settings = {}
    recipes: dict[str, dict[str, Any]] = {"tuned": {}, "fresh": {"fresh": True, "source": ["samples"]}}
    for name, changes in recipes.items():
        out = str(options.folder / f"flow_{name}")
        one = replace(asked, num_layers=[k], recipe="tuned", lr=TUNED_LR, out=out, **changes)
        found = train.run(one)["runs"]
        trained = dict.fromkeys((run["source"], run["data"]) for run in found)
        settings[name] = [summarise(source, target, k, found) for source, target in trained]
    parameters = sum(parameter.numel() for parameter in Flow(2, k).parameters())
    points = len(TARGETS[asked.targets[0]].data_set())
    limit = {"parameters": parameters, "points": points, "limit_of_the_data": parameters / (2 * points)}
    result = {"lr": TUNED_LR, "damping": natural.DAMPING, "settings": settings, **limit}
    caption = "Distance from the limit over depth: each seed a point, their mean a line, tuned flows as crosses."
    path = captioned(options.figures / "flow_tuned_depth.svg", caption)
    plots.depth(path, options.result("flow")["settings"], result)
    return result
