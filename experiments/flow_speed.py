"""Question 3: the speed of training flows beside the textbook loop."""

from typing import Any

import benchmarks.flow
from experiments.flow import DEPTHS
from experiments.options import Options

MINUTES = {"quick": 0.1, "full": 4}


def run(options: Options) -> dict[str, Any]:
    """The benchmark, cut down in the quick profile."""
    return benchmarks.flow.measure(*((1, 100, DEPTHS[:1]) if options.quick else ()))
