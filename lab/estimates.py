"""Means and how uncertain they are: standard errors over samples, deviations over seeds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


def mean_and_error(values: Tensor) -> dict[str, float]:
    """The mean of values ``(N,)`` and its standard error, their deviation over √N, in their unit."""
    values = values.cpu().double()  # not every device has float64
    return {"mean": values.mean().item(), "standard_error": (values.std() / math.sqrt(len(values))).item()}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds, with the values themselves; of one value there is no deviation.

    Example:
        >>> spread([1.0, 3.0])["mean"]
        2.0
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "values": list(values)}


def format_spread(entry: dict[str, Any], mean: str = ".2f", deviation: str | None = None) -> str:
    """A :func:`spread` as text, such as 2.00 ± 1.41."""
    after = "" if entry["deviation"] is None else f" ± {entry['deviation']:{deviation or mean}}"
    return f"{entry['mean']:{mean}}{after}"
