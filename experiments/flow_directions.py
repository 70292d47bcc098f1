"""Questions 3.7 and 3.9: what either divergence gives up where it cannot have everything."""

from typing import Any

from data.densities import TARGETS
from experiments.options import Options
from lab.figures import captioned
from question3 import directions, plots

MINUTES = {"quick": 0.1, "full": 1}


def run(options: Options, name: str = "arcs", num_layers: int = 2) -> dict[str, Any]:
    """Flows of few layers by either divergence, of several starts each the best by its own, and both measures of both.

    Few layers cannot have everything, so one sees what each divergence gives up.
    """
    starts, steps, cells = (2, 50, 40) if options.quick else (8, 1500, 100)
    grid, target = directions.square(cells=cells), TARGETS[name]
    best, measures = {}, {}
    for direction in ("forward", "reverse"):
        flows = [directions.fit(target, direction, num_layers, seed, grid, steps) for seed in range(starts)]
        measured = [directions.measure(target, flow, grid) for flow in flows]
        chosen = min(range(starts), key=lambda i: measured[i][direction])
        best[direction], measures[direction] = flows[chosen], measured[chosen]
    caption = f"{name}: the target, and flows of {num_layers} layers with the least forward and the least reverse KL."
    plots.directions(captioned(options.figures / "flow_directions_arcs.png", caption), target, best)
    return {"data": name, "num_layers": num_layers, "starts": starts, "measures": measures}
