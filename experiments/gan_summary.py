"""The numbers of the study of question 2.7: each run by itself, configurations over seeds, and their differences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from scipy.stats import spearmanr, t

from lab.estimates import spread
from question2 import score
from question2.configurations import Run

LAST = 500  # updates, over which the metric at the end is averaged


def configurations(runs: Sequence[Run], results: Sequence[dict[str, Any]], suffix: str) -> list[dict[str, Any]]:
    """A summary of each configuration: its runs, and means with their spread over seeds."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for run, result in zip(runs, results, strict=True):
        rows.setdefault(run.name, []).append({"seed": run.hp.seed, **summarise_run(result, suffix)})
    first = {run.name: run for run in reversed(runs)}
    return [_configuration(first[name], of_seeds) for name, of_seeds in rows.items()]


def _configuration(run: Run, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A configuration from the summaries of its runs."""
    hp, of_average = run.hp, "final_without_average"
    later = [row["rank_correlation_later"] for row in rows if row["rank_correlation_later"] is not None]
    ranks = {key: [row["rank_correlations"][key] for row in rows] for key in rows[0]["rank_correlations"]}
    found = {key: [rank for rank in values if rank is not None] for key, values in ranks.items()}
    correlations = {key: _with_range(values) if values else None for key, values in found.items()}
    return {
        "name": run.name,
        "loss": hp.loss_type,
        "spectral_norm": hp.critic_use_sn,
        "penalty": hp.critic_reg_type,
        "weight": hp.critic_reg_cf if hp.critic_reg_type else None,
        "runs": list(rows),
        **{
            key: {name: spread([row[key][name] for row in rows]) for name in rows[0][of_average]}
            for key in ("final", of_average)
        },
        "last_metric": spread([row["last_metric"] for row in rows]),
        "rank_correlations": correlations,
        "rank_correlation": next(iter(correlations.values())),
        "rank_correlation_later": spread(later) if later else None,
        "milliseconds": statistics.median(row["milliseconds"] for row in rows),
    }


def _with_range(values: Sequence[float]) -> dict[str, Any]:
    return {**spread(values), "range": [min(values), max(values)]}


def summarise_run(result: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """A run's curves, its last scores, and the rank correlations of metric and scores.

    The metric belongs to the generator that is trained, and so do the scores that it is compared with, but for the
    averaged generator's FID beside them.
    """
    fid, inception = f"FID{suffix}", f"IS{suffix}"
    metrics = [(line["step"], line["metric"]) for line in result["metrics"] if "metric" in line]
    end = metrics[-1][0]
    evaluations = [line for line in result["metrics"] if fid in line][:-1]
    means = metric_since(metrics, [line["step"] for line in evaluations])
    # The first evaluations hide the rest: both fall at first, whatever the loss.
    later = sum(4 * line["step"] <= end for line in evaluations)
    trained = [line[f"{fid}_trained"] for line in evaluations]
    # The median, because a run may have waited on other work.
    timed = [(0, 0.0), *((line["step"], line["seconds"]) for line in result["metrics"] if "seconds" in line)]
    pace = statistics.median((end - start) / (after - before) for (before, start), (after, end) in pairwise(timed))
    final = result["final"]
    signs = {f"{fid}_trained": 1, fid: 1, f"{inception}_trained": -1, f"KID{suffix}_trained": 1}
    names = [f"{key}{suffix}" for key in score.KEYS if f"{key}{suffix}" in final]
    return {
        "metric": metrics,
        "curve": curve(result["metrics"], fid, inception),
        "trained_curve": curve(result["metrics"], f"{fid}_trained", f"{inception}_trained"),
        "critic": curve(result["metrics"], "cp", "cq"),
        "final": final,
        "final_without_average": {name: final[f"{name}_trained"] for name in names},
        "last_metric": statistics.mean(value for step, value in metrics if step > end - LAST),
        "rank_correlations": {
            key: rank_correlation(means, [sign * line[key] for line in evaluations])
            for key, sign in signs.items()
            if key in final
        },
        "rank_correlation": rank_correlation(means, trained),
        "rank_correlation_later": rank_correlation(means[later:], trained[later:]),
        "milliseconds": 1e3 * pace,
    }


def curve(lines: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[float, ...]]:
    """Update and values at each evaluation but the last, which has another number of samples."""
    scored = [line for line in lines if names[0] in line]
    return [(line["step"], *(line[name] for name in names)) for line in scored[:-1]]


def metric_since(metrics: Sequence[tuple[int, float]], steps: Sequence[int]) -> list[float]:
    """The metric at some updates: its mean since the one before."""
    bounds = pairwise([0, *steps])
    return [float(np.mean([value for step, value in metrics if low < step <= high])) for low, high in bounds]


def rank_correlation(metric: Sequence[float], score: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where there are too few values or one is constant.

    A score counts with the sign by which it falls as the images improve. So +1 says that the metric falls, too.
    """
    if len(metric) <= 2 or len(set(metric)) == 1 or len(set(score)) == 1:
        return None
    return float(spearmanr(metric, score).statistic)


def differences(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences of each two configurations' final scores, second from first, seed by seed, averaged generators.

    ``interval`` is Student's 95 % interval of the mean, None with one seed.
    """
    found = []
    for first, second in combinations(rows, 2):
        scores = {}
        for name in first["final"]:
            pairs = zip(first["final"][name]["values"], second["final"][name]["values"], strict=True)
            entry = spread([a - b for a, b in pairs])
            scores[name] = {**entry, "interval": _interval(entry)}
        found.append({"first": first["name"], "second": second["name"], "scores": scores})
    return found


def _interval(entry: dict[str, Any], level: float = 0.95) -> list[float] | None:
    count = len(entry["values"])
    if count == 1:
        return None
    half = float(t.ppf((1 + level) / 2, count - 1)) * entry["deviation"] / math.sqrt(count)
    return [entry["mean"] - half, entry["mean"] + half]
