"""Yours beside ours: the numbers of one's own runs, the published ones, and what to think of their difference."""

import ast
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scipy.stats import t

from lab.files import read_json
from lab.options import InputError

HERE = Path(__file__).parent
DEVIATIONS = 3  # published standard deviations within which a number is as expected
DATA = {
    "binarized_mnist": "the static binarised MNIST",
    "cifar10": "CIFAR-10",
    "digits": "scikit-learn's digits (a stand-in)",
}
# What is shown of a result, wherever in it: its name, unit and decimals.
SHOWN = {
    "valid_elbo": ("validation ELBO", "nats", 2),
    "test_log_px": ("test log p(x), K = 200", "nats", 2),
    "nll": ("NLL", "nats", 3),
    "kl": ("KL(q‖p)", "nats", 3),
    "approximation": ("approximation gap", "nats", 2),
    "amortisation": ("amortisation gap", "nats", 2),
    "forward": ("forward KL", "nats", 2),
    "reverse": ("reverse KL", "nats", 2),
    "verdict": ("behaviour", "", 0),
    "measured": ("measured", "", 3),
    "rank_correlation": ("rank correlation of metric and distance", "", 2),
    **{name: (name, "", 2) for name in ("FID", "IS", "KID", "FID-C", "IS-C", "KID-C")},
    **dict.fromkeys(("times_faster", "times_faster_than_textbook"), ("times as fast as the textbook loop", "", 1)),
}
SKIPPED = {"runs", "predicted", "final_without_average", "rank_correlations", "differences", "anchors", "widths"}
# Parts of a result that a label need not name.
UNNAMED = {"settings", "configurations", "rows", "families", "kinds", "final", "measured", "measures"}
# Options that differ between runs that are compared, or on which no number depends.
BESIDE_THE_POINT = {"dataset", "seed", "seeds", "compile"}


def compare(label: str, yours: Any, ours: Any, unit: str = "", decimals: int = 2) -> dict[str, str]:
    """One line of the report: a number of one's own beside the published one, if there is one.

    Numbers are :func:`lab.estimates.spread` over seeds, plain ones, or words. ``judged`` is ``expected``, ``differs``
    or, where nothing is published or the spread of what is published is unknown, ``no``.
    """
    judged, verdict = judge(yours, ours, unit, decimals)
    row = {"label": f"{label} ({unit})" if unit else label, "judged": judged, "verdict": verdict}
    row |= {"yours": shown(yours, decimals), "published": shown(ours, decimals)}
    return {**row, "sentence": "{label}: {yours}, published {published}: {verdict}".format(**row)}


def judge(yours: Any, ours: Any, unit: str, decimals: int) -> tuple[str, str]:
    """Whether a number is as expected, and what to say of it."""
    if ours is None:
        return "no", "nothing published"
    if isinstance(ours, str):
        return ("expected", "as expected") if yours == ours else ("differs", "differs")
    deviation = ours.get("deviation") if isinstance(ours, dict) else None
    if not deviation:
        return "no", "not judged"
    difference = mean(yours) - mean(ours)
    if abs(difference) <= DEVIATIONS * deviation:
        return "expected", "as expected"
    amount = " ".join([f"{abs(difference):.{decimals}f}", *unit.split(), "above" if difference > 0 else "below"])
    return "differs", f"{amount}, {abs(difference) / deviation:.1f} deviations"


def mean(value: Any) -> float:
    """The number itself, or its mean over seeds."""
    return value["mean"] if isinstance(value, dict) else value


def shown(value: Any, decimals: int = 2) -> str:
    """A number as text, with its spread and how many seeds it is of."""
    if value is None or isinstance(value, str):
        return value or "–"
    number = f"{mean(value):z.{decimals}f}".replace("-", "−")
    if not isinstance(value, dict) or value.get("deviation") is None:
        return number
    return f"{number} ± {value['deviation']:.{decimals}f} over {len(value['values'])} seeds"


def numbers(result: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any, str, int]]:
    """What is shown of a result: label, value, unit and decimals."""
    for key, value in result.items():
        inside = place if key in UNNAMED else f"{place}{key.replace('_', ' ')}: "
        if key in SHOWN and (key == "verdict" or isinstance(value, (int, float)) or "mean" in (value or ())):
            name, unit, decimals = SHOWN[key]
            yield f"{place}{name}", value, unit, decimals
        elif key not in SKIPPED:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    yield from numbers(item, inside if item is value else f"{inside}{item_name(item)}: ")


def item_name(item: Mapping[str, Any]) -> str:
    """What distinguishes an item of a list in a result."""
    if "source" in item:
        return f"{item['data']} from {item['source']}, k = {item['num_layers']}"
    if "step" in item:
        return f"h = {item['step']}"
    return item.get("name") or " + ".join(item.get("parts", ())) or "plain"


def data_name(result: Mapping[str, Any]) -> str:
    """The data set of a result in words; empty where there is none."""
    name = result.get("dataset", "none")
    return "" if name == "none" else DATA.get(name, Path(name).name)


def obstacle(yours: Mapping[str, Any], ours: Mapping[str, Any] | None) -> str:
    """Why a result cannot be compared with the published one; empty if it can."""
    if ours is None:
        return "There are no published numbers."
    if yours["profile"] == "quick":
        return "The quick profile takes small data and few steps: it shows that everything runs, not how well."
    data = [name for name in (data_name(yours), data_name(ours)) if name]
    if len(set(data)) > 1:
        return f"The data are {data[0]}; the published numbers are for {data[1]}."
    if yours.get("scale") != ours.get("scale"):
        return f"The study is {yours['scale']}, the published one {ours['scale']}."
    return ""


def causes(yours: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Where a difference may come from: other options, another machine."""
    return [
        f"{key.replace('_', ' ')} {value} (published {ours[part][key]})"
        for part in ("options", "environment")
        for key, value in yours.get(part, {}).items()
        if key not in BESIDE_THE_POINT and value != ours.get(part, {}).get(key, value)
    ]


def about(name: str) -> str:
    """The first line of what an experiment's file says of itself."""
    path = HERE.parent / "experiments" / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    return (text or name).splitlines()[0].rstrip(".")


def in_order(names: set[str]) -> list[str]:
    """Experiments in the order of the questions that they name first; what names a whole question last in it."""
    questions = {name: re.findall(r"\d+", re.split(r"[:,]| and", about(name))[0]) for name in names}
    return sorted(names, key=lambda name: ([*map(int, questions[name]), 99], name))


def command(runs: Path, like: Mapping[str, Any], name: str) -> str:
    """What runs an experiment with the options that another result in the folder was asked for with."""
    asked, profile = like["asked"], like["profile"]
    words = ["python", "-m", "experiments", "--profile", profile, "--only", name]
    for key, usual in (("seed", None), ("dataset", "binarized_mnist"), ("gan_seeds", 1)):
        if asked.get(key, usual) != usual and not (key == "dataset" and profile == "quick"):
            words += [f"--{key}", str(asked[key])]
    return shlex.join(words if runs == Path("runs", profile) else [*words, "--out", str(runs)])


def section(name: str, yours: dict[str, Any], ours: dict[str, Any] | None, runs: Path) -> dict[str, Any]:
    """What the report says of an experiment."""
    reason = obstacle(yours, ours)
    published = {label: value for label, value, *_ in numbers(ours)} if ours and not reason else {}
    return {
        "name": name,
        "about": about(name),
        "data": data_name(yours),
        "obstacle": reason,
        "rows": [
            compare(label, value, published.get(label), unit, digits) for label, value, unit, digits in numbers(yours)
        ],
        "causes": causes(yours, ours or yours),
        "command": command(runs, yours, name),
        "machine": "{device}, {cores} cores, Python {python}, torch {torch}".format(**yours["environment"]),
        "minutes": yours["minutes"],
    }


def comparison(runs: Path) -> dict[str, Any]:
    """What the report says of the results in a folder."""
    found = {path.stem: read_json(path) for path in runs.glob("results/*.json")}
    yours = {name: result for name, result in found.items() if result}
    if not yours:
        raise InputError(f"no result in {runs / 'results'} can be read")
    ours = {path.stem: read_json(path) for path in HERE.glob("results/*.json")}
    sections = [section(name, yours[name], ours.get(name), runs) for name in in_order(set(yours))]
    fullest = max(yours.values(), key=lambda result: len(result["asked"]))
    missing = in_order(set(ours) - set(yours))
    return {
        "runs": str(runs),
        "sections": sections,
        "missing": [{"about": about(name), "command": command(runs, fullest, name)} for name in missing],
        "by_chance": {str(seeds): by_chance(seeds) for seeds in (3, 5)},
    }


def by_chance(seeds: int) -> float:
    """The probability that one more seed is not as expected, given so many published ones of a normal distribution."""
    return float(2 * t.sf(DEVIATIONS / math.sqrt(1 + 1 / seeds), seeds - 1))
