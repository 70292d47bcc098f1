"""The numbers of the study of question 2.7: each run by itself, configurations over seeds, and their differences."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from scipy.stats import spearmanr, ttest_rel

from lab.estimates import spread
from question2 import score
from question2.configurations import Run

LAST = 500  # updates, over which the metric at the end is averaged


def configurations(runs: Sequence[Run], results: Mapping[str, Any], suffix: str) -> list[dict[str, Any]]:
    """A summary of each configuration: its runs, and means with their spread over seeds.

    ``results`` are what the runs left, by label; ``suffix`` is what follows the scores' names.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        hp = run.hp
        setting = {
            "name": run.name,
            "loss": hp.loss_type,
            "spectral_norm": hp.critic_use_sn,
            "penalty": hp.critic_reg_type,
            "weight": hp.critic_reg_cf if hp.critic_reg_type else None,
            "runs": [],
        }
        summary = {"seed": hp.seed, **summarise_run(results[run.label], suffix)}
        rows.setdefault(run.name, setting)["runs"].append(summary)
    for row in rows.values():
        for key in ("final", "final_without_average"):
            names = row["runs"][0]["final_without_average"]
            row[key] = {name: spread([run[key][name] for run in row["runs"]]) for name in names}
        found = [run["rank_correlations"] for run in row["runs"]]
        row["rank_correlations"] = {name: _spread([each[name] for each in found]) for name in found[0]}
        for key in ("last_metric", "rank_correlation", "rank_correlation_later"):
            row[key] = _spread([run[key] for run in row["runs"]])
    return list(rows.values())


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """The spread of the known values with their range, or None if there are none."""
    known = [value for value in values if value is not None]
    return {**spread(known), "range": [min(known), max(known)]} if known else None


def summarise_run(result: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """A run's curves, its last scores, and the rank correlations of metric and scores.

    The metric belongs to the trained generator, so it is compared with that generator's scores, and with the averaged
    generator's FID beside them.
    """
    lines, final = result["metrics"], result["final"]
    fid, inception = f"FID{suffix}", f"IS{suffix}"
    metric = [(line["step"], line["metric"]) for line in lines if "metric" in line]
    evaluations = [line for line in lines if fid in line][:-1]
    steps = [line["step"] for line in evaluations]
    means = [statistics.mean(value for step, value in metric if a < step <= b) for a, b in pairwise([0, *steps])]
    # A score counts with the sign by which it falls as the images improve: +1 means that the metric falls, too.
    signs = {f"{fid}_trained": 1, fid: 1, f"{inception}_trained": -1, f"KID{suffix}_trained": 1}
    scores = {key: [sign * line[key] for line in evaluations] for key, sign in signs.items() if key in final}
    correlations = {key: rank_correlation(means, values) for key, values in scores.items()}
    # The first evaluations hide the rest: both fall at first, whatever the loss.
    later = sum(4 * step <= metric[-1][0] for step in steps)
    # The median, because a run may have waited on other work.
    timed = [(0, 0.0), *((line["step"], line["seconds"]) for line in lines if "seconds" in line)]
    pace = statistics.median((end - start) / (after - before) for (before, start), (after, end) in pairwise(timed))
    names = [f"{key}{suffix}" for key in score.KEYS if f"{key}{suffix}" in final]
    return {
        "metric": metric,
        "curve": curve(lines, fid, inception),
        "trained_curve": curve(lines, f"{fid}_trained", f"{inception}_trained"),
        "critic": curve(lines, "cp", "cq"),
        "final": final,
        "final_without_average": {name: final[f"{name}_trained"] for name in names},
        "last_metric": statistics.mean(value for step, value in metric if step > metric[-1][0] - LAST),
        "rank_correlations": correlations,
        "rank_correlation": correlations[f"{fid}_trained"],
        "rank_correlation_later": rank_correlation(means[later:], scores[f"{fid}_trained"][later:]),
        "milliseconds": 1e3 * pace,
    }


def curve(lines: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[float, ...]]:
    """Update and values at each evaluation but the last, which has another number of samples."""
    scored = [line for line in lines if names[0] in line]
    return [(line["step"], *(line[name] for name in names)) for line in scored[:-1]]


def rank_correlation(metric: Sequence[float], distance: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None if there are too few values or one is constant."""
    if len(metric) <= 2 or len(set(metric)) == 1 or len(set(distance)) == 1:
        return None
    return float(spearmanr(metric, distance).statistic)


def differences(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences of each two configurations' final scores, second from first, seed by seed, averaged generators.

    ``interval`` is Student's 95 % interval of the mean, None with one seed.
    """
    found = []
    for first, second in combinations(rows, 2):
        scores = {}
        for name in first["final"]:
            ours, theirs = (row["final"][name]["values"] for row in (first, second))
            interval = list(ttest_rel(ours, theirs).confidence_interval()) if len(ours) > 1 else None
            scores[name] = {**spread([a - b for a, b in zip(ours, theirs, strict=True)]), "interval": interval}
        found.append({"first": first["name"], "second": second["name"], "scores": scores})
    return found
