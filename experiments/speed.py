"""The benchmarks, as experiments of the report; cut down in the quick profile."""

from typing import Any

import benchmarks.flow
import benchmarks.gan
import benchmarks.vae
from experiments.flow import DEPTHS
from experiments.options import Options


def vae(options: Options) -> dict[str, Any]:
    """Question 1 beside the textbook loop and the floor."""
    rounds, share = (1, 1.0) if options.quick else (7, 0.2)
    return benchmarks.vae.measure(options.dataset, options.data, rounds, share, options.seed or 0)


def gan(options: Options) -> dict[str, Any]:
    """Question 2.7, fast beside plain."""
    small: dict[str, Any] = {"width": 4, "rounds": 1, "updates": 2, "eval_samples": 100} if options.quick else {}
    return {"dataset": "none", **benchmarks.gan.measure(benchmarks.gan.Options(device=options.device, **small))}


def flow(options: Options) -> dict[str, Any]:
    """Question 3 beside the textbook loop."""
    num_iter, rounds, depths = (100, 1, DEPTHS[:1]) if options.quick else (20_000, 5, DEPTHS)
    return {"dataset": "none", **benchmarks.flow.measure(num_iter, rounds, iterations=100, depths=depths)}
