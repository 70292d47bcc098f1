"""Results of the runs as tables: each run beside its prediction, and means and standard deviations over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.estimates import format_spread, spread
from lab.files import read_json, write_json
from lab.options import InputError, determining
from question2.configurations import Hyperparameters, Management, Run

LEFT_OUT = ("step", "samples")
GAMES_LEGEND = """\
predicted/measured, medians over the starting points. Predicted: by the update's modified equation; the report's theory
is the linearised game. Period in updates; amplitude: the largest distance between the generated and the real point in
the last tenth of the updates; average: that of the moving average."""


def report(runs: Sequence[Run], results: Mapping[str, dict[str, Any] | None]) -> str:
    """The last numbers of each run, from the results by label."""
    games = {run.label: results[run.label] for run in runs if run.hp.task == "dirac"}
    lines = [games_table(games)] if games else []
    for run in runs:
        if run.label not in games:
            result = results[run.label]
            last = result["metrics"][-1] if result else {}
            numbers = ", ".join(f"{key} {value:.5g}" for key, value in last.items())
            lines.append(f"{run.label}: {numbers or 'out of time; run the same command to resume'}")
            if result:
                grids = f"{run.folder}/samples_{last['step']:06}.png"
                lines.append(
                    f"  samples of the averaged generator: {grids}; trained_{Path(grids).name}: of the trained"
                )
    return "\n".join(lines)


def games_table(results: Mapping[str, dict[str, Any] | None]) -> str:
    """Predicted and measured behaviour of dirac games, by label."""
    lines = [f"{'':22} {'verdict':>24} {'period':>15} {'decay per update':>19} {'amplitude':>19} {'average':>9}"]
    for name, result in results.items():
        if not result:
            continue
        both = [result["predicted"] or {}, result["measured"]]
        cells = [f"{'/'.join(side.get('verdict', '-') for side in both):>24}"]
        for key, width in (("period", 15), ("rate", 19), ("amplitude", 19)):
            values = "/".join("-" if side.get(key) is None else f"{side[key]:.4g}" for side in both)
            cells.append(f"{values:>{width}}")
        averaged = result["measured"].get("averaged")
        cells.append(f"{averaged['amplitude']:9.2g}" if averaged else f"{'-':>9}")
        lines.append(f"{name:22} {' '.join(cells)}")
    return "\n".join([*lines, GAMES_LEGEND])


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of one run to compare: a dirac game's behaviour, or the last metric and scores."""
    if "measured" in result:
        measured = result["measured"]
        values = {key: measured[key] for key in ("period", "rate", "amplitude")}
        values["averaged"] = measured.get("averaged", {}).get("amplitude")
    else:
        last = {"metric": [line["metric"] for line in result["metrics"] if "metric" in line][-1]}
        values = last | {key: value for key, value in result.get("final", {}).items() if key not in LEFT_OUT}
    return {key: value for key, value in values.items() if value is not None}


def collect(folder: str | Path) -> list[dict[str, Any]]:
    """Name, seeds and numbers of each configuration with finished runs, which must differ in the seed alone."""
    fixed = (determining(Management()) | determining(Hyperparameters())).keys() - {"seed"}
    groups: dict[str, list[tuple[dict, dict]]] = {}
    for path in sorted(Path(folder).glob("*/result.json")):
        result, config = read_json(path), read_json(path.parent / "config.json") or {}
        if result is None or "config" not in config:
            continue  # a run of another command, or damaged
        groups.setdefault(config["config"], []).append((config, numbers(result)))
    if not groups:
        raise InputError(f"no finished run in {folder}")
    rows = []
    for name, runs in groups.items():
        first = runs[0][0]
        for config, _ in runs[1:]:
            if other := [key for key in first if key in fixed and config.get(key) != first[key]]:
                differ = f"the runs of {name} in {folder} differ in {', '.join(other)} (seed {config['seed']})"
                raise InputError(f"{differ} and cannot be averaged")
        keys = set.intersection(*(set(values) for _, values in runs))
        columns = {key: spread([values[key] for _, values in runs]) for key in runs[0][1] if key in keys}
        rows.append({"name": name, "seeds": [config["seed"] for config, _ in runs], "numbers": columns})
    return rows


def write(folder: str | Path) -> str:
    """Save the rows of :func:`collect` as ``summary.json`` in the folder, and return them as text."""
    rows, path, lines = collect(folder), Path(folder) / "summary.json", []
    if path.exists() and not path.read_bytes().startswith(b'[\n {\n  "name": "'):
        raise InputError(f"{path} exists and is not a summary: not overwritten")
    write_json(path, rows)
    for row in rows:
        cells = [f"{key} {format_spread(value, '.5g', '.2g')}" for key, value in row["numbers"].items()]
        seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
        lines.append(f"{row['name']:14} {seeds:9} {', '.join(cells)}")
    return "\n".join(lines)
