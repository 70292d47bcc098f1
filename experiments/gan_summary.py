"""The numbers of the study of question 2.7: each run by itself, and configurations over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from scipy.stats import spearmanr

from lab.estimates import spread
from question2.configurations import Run

LAST = 500  # updates, over which the metric at the end is averaged


def configurations(
    runs: Sequence[Run], results: Mapping[str, Mapping[str, Any] | None], scores: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A summary of each configuration: its runs, and means with their spread over seeds.

    Args:
        runs: All runs.
        results: What they left, by label.
        scores: The names of ``fid`` and ``is`` in them.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        hp, result = run.hp, results[run.label]
        assert result is not None  # no run of the study is limited in time
        setting = {
            "name": run.name,
            "loss": hp.loss_type,
            "spectral_norm": hp.critic_use_sn,
            "penalty": hp.critic_reg_type,
            "weight": hp.critic_reg_cf if hp.critic_reg_type else None,
            "runs": [],
        }
        rows.setdefault(run.name, setting)["runs"].append({"seed": hp.seed, **summarise_run(result, scores)})
    for row in rows.values():
        for key in ("last_metric", "rank_correlation", "rank_correlation_later"):
            values = [run[key] for run in row["runs"] if run[key] is not None]
            row[key] = spread(values) if values else None
        for key in ("final", "final_without_average"):
            row[key] = {name: spread([run[key][name] for run in row["runs"]]) for name in row["runs"][0][key]}
    return list(rows.values())


def summarise_run(result: Mapping[str, Any], scores: Mapping[str, str]) -> dict[str, Any]:
    """A run's curves, its last scores, and the rank correlation of metric and distance.

    The metric belongs to the generator that is trained, and so does the distance that it is compared with.
    """
    names = [scores["fid"], scores["is"]]
    trained_names = [f"{name}_trained" for name in names]
    metric = [(line["step"], line["metric"]) for line in result["metrics"] if "metric" in line]
    trained = curve(result["metrics"], *trained_names)
    steps, distances = [step for step, *_ in trained], [distance for _, distance, _ in trained]
    means = [
        statistics.mean(value for step, value in metric if low < step <= high) for low, high in pairwise([0, *steps])
    ]
    # The first evaluations hide the rest: both fall at first, whatever the loss.
    later = sum(4 * step <= metric[-1][0] for step in steps)
    # The median, because a run may have waited on other work.
    timed = [(0, 0.0), *((line["step"], line["seconds"]) for line in result["metrics"] if "seconds" in line)]
    pace = statistics.median((end - start) / (after - before) for (before, start), (after, end) in pairwise(timed))
    return {
        "metric": metric,
        "curve": curve(result["metrics"], *names),
        "trained_curve": trained,
        "critic": curve(result["metrics"], "cp", "cq"),
        "final": {name: result["final"][name] for name in names},
        "final_without_average": {name: result["final"][f"{name}_trained"] for name in names},
        "last_metric": statistics.mean(value for step, value in metric if step > metric[-1][0] - LAST),
        "rank_correlation": rank_correlation(means, distances),
        "rank_correlation_later": rank_correlation(means[later:], distances[later:]),
        "milliseconds": 1e3 * pace,
    }


def curve(lines: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[float, ...]]:
    """Update and values at each evaluation but the last, which has another number of samples."""
    scored = [line for line in lines if names[0] in line]
    return [(line["step"], *(line[name] for name in names)) for line in scored[:-1]]


def rank_correlation(metric: Sequence[float], distance: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where there are too few values or one is constant."""
    if len(metric) <= 2 or len(set(metric)) == 1 or len(set(distance)) == 1:
        return None
    return float(spearmanr(metric, distance).statistic)
