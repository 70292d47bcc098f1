"""Question 2.7: the speed of an update, by the fast path and by the plain one."""

from typing import Any

import benchmarks.gan
from experiments.options import Options

MINUTES = {"quick": 0.2, "full": 3}


def run(options: Options) -> dict[str, Any]:
    """The benchmark, cut down in the quick profile."""
    small = {"rounds": 1, "updates": 2, "width": 4, "full": 4} if options.quick else {}
    return benchmarks.gan.measure(device=options.device, **small)
