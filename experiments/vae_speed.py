"""Question 1: the speed of the VAE beside the textbook loop."""

from typing import Any

import benchmarks.vae
from experiments.options import Options

MINUTES = {"quick": 0.2, "full": 2}


def run(options: Options) -> dict[str, Any]:
    """The benchmark, cut down in the quick profile."""
    return benchmarks.vae.measure(*((1, 0.02) if options.quick else (7, 0.2)))
