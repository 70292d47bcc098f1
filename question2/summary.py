"""What the finished runs of a folder come to: mean and spread over seeds, configuration by configuration."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.estimates import spread

LEFT_OUT = ("step", "samples")


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of one run that are worth comparing: a dirac game's behaviour, or the last metric and scores."""
    if "measured" in result:
        measured = result["measured"]
        values = {key: measured[key] for key in ("period", "rate", "amplitude")}
        values["averaged"] = measured.get("averaged", {}).get("amplitude")
    else:
        last = {"metric": [line["metric"] for line in result["metrics"] if "metric" in line][-1]}
        values = last | {key: value for key, value in result.get("final", {}).items() if key not in LEFT_OUT}
    return {key: value for key, value in values.items() if value is not None}


def collect(folder: str | Path, unimportant: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row for each configuration of finished runs: its name, its seeds and its numbers.

    Args:
        folder: The folder of the runs, each in a folder of its own with ``config.json`` and ``result.json``.
        unimportant: Options that may differ between the seeds of one configuration.

    Raises:
        ValueError: Two runs of one name differ in more than the seed, or there is no finished run.
    """
    groups: dict[str, list[tuple[dict, dict]]] = {}
    for path in sorted(Path(folder).glob("*/result.json")):
        config = json.loads((path.parent / "config.json").read_text())
        if "config" not in config:
            continue  # a run of another command
        groups.setdefault(config["config"], []).append((config, numbers(json.loads(path.read_text()))))
    if not groups:
        raise ValueError(f"no finished run in {folder}")
    rows = []
    for name, runs in groups.items():
        first = runs[0][0]
        for config, _ in runs[1:]:
            if other := [key for key in first if key not in ("seed", *unimportant) and config.get(key) != first[key]]:
                raise ValueError(f"the runs of {name} in {folder} differ in {', '.join(other)}: no mean of them")
        keys = set.intersection(*(set(values) for _, values in runs))
        columns = {key: spread([values[key] for _, values in runs]) for key in runs[0][1] if key in keys}
        rows.append({"name": name, "seeds": [config["seed"] for config, _ in runs], "numbers": columns})
    return rows


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as text; with one seed there is no spread."""
    lines = []
    for row in rows:
        cells = []
        for key, value in row["numbers"].items():
            deviation = "" if value["deviation"] is None else f" ± {value['deviation']:.2g}"
            cells.append(f"{key} {value['mean']:.5g}{deviation}")
        seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
        lines.append(f"{row['name']:14} {seeds:9} {', '.join(cells)}")
    return "\n".join(lines)
