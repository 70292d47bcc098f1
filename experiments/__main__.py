"""The experiments of the report, one after the other: python -m experiments --profile assignment|full|quick

Each writes what it measured to ``runs/PROFILE/results/*.json`` and its pictures to ``runs/PROFILE/figures``. An
experiment that was interrupted goes on where it stopped; one that is done is not run again.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import data
from experiments import (
    dirac,
    dirac_long,
    flow,
    flow_directions,
    flow_posterior,
    flow_tuned,
    gan,
    gan_small,
    inference_gap,
    posterior_controls,
    vae,
    vae_ablation,
    vae_tuned,
)
from experiments.options import Options
from lab import interruption
from lab.device import choose_device
from lab.files import read_json, write_json
from lab.options import InputError, parse

EXPERIMENTS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "vae": vae.run,
    "vae_tuned": vae_tuned.run,
    "vae_ablation": vae_ablation.run,
    "dirac": dirac.run,
    "dirac_long": dirac_long.run,
    "gan": gan.run,
    "gan_small": gan_small.run,
    "flow": flow.run,
    "flow_tuned": flow_tuned.run,
    "flow_directions": flow_directions.run,
    "flow_posterior": flow_posterior.run,
    "posterior_controls": posterior_controls.run,
    "inference_gap": inference_gap.run,
}
FOR_CUDA = ("gan",)  # without it they take hours, and run only when they are asked for
# What each profile runs, with the minutes that it takes on two cores: for the announcement, and for the time left.
PROFILES: dict[str, dict[str, float]] = {
    "quick": {
        "vae": 0.3,
        "vae_tuned": 0.3,
        "dirac": 0.3,
        "dirac_long": 0.4,
        "gan_small": 1.2,
        "flow": 0.2,
        "flow_tuned": 0.1,
        "flow_directions": 0.1,
        "flow_posterior": 0.5,
    },
    "assignment": {"vae": 1.2, "dirac": 1.6, "gan_small": 1.5, "flow": 2.0, "flow_posterior": 3.0},
    "full": {
        "vae": 8,
        "vae_tuned": 40,
        "vae_ablation": 25,
        "dirac": 1.6,
        "dirac_long": 10,
        "gan": 600,
        "gan_small": 1.5,
        "flow": 5,
        "flow_tuned": 3,
        "flow_directions": 1,
        "flow_posterior": 25,
        "posterior_controls": 75,
        "inference_gap": 20,
    },
}


def environment() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cores": os.cpu_count(),
    }


def asked(name: str, options: Options) -> dict[str, Any]:
    """What was asked for, as far as an experiment's result depends on it; kept with the result."""
    values = {"profile": options.profile, "seed": options.seed, "device": choose_device(options.device).type}
    if name.startswith("vae") or name in ("flow_posterior", "posterior_controls", "inference_gap"):
        values["dataset"] = options.dataset
    return values | ({"gan_seeds": options.gan_seeds} if name == "gan" else {})


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(Options, "Run every experiment of the report.", argv, program="python -m experiments")
    with interruption.one_line_errors():
        if unknown := set(options.only) - set(EXPERIMENTS):
            raise InputError(f"no experiment {', '.join(sorted(unknown))}: there are {', '.join(EXPERIMENTS)}")
        options.dataset, _ = data.load(options.dataset, options.data)
        names, left = options.only or planned(options), {}
        for name in names:
            if (read_json(result_path(name, options)) or {}).get("asked") == asked(name, options):
                print(f"{name}: done before, {result_path(name, options)} has it")
            else:
                left[name] = PROFILES[options.profile].get(name) or PROFILES["full"][name]
        print(f"{', '.join(left) or 'nothing'} to run: about {sum(left.values()):.0f} minutes on two cores", flush=True)
        pace = 1.0  # minutes here for one of those above
        begun, expected = time.perf_counter(), 0.0
        for place, name in enumerate(left, start=1):
            remaining = pace * (sum(left.values()) - expected)
            print(f"[{place} of {len(left)}] {name}; about {remaining:.0f} minutes left in all", flush=True)
            run_one(name, options)
            expected += left[name]
            pace = (time.perf_counter() - begun) / 60 / expected


def planned(options: Options) -> list[str]:
    """The profile's experiments, as far as this machine can do them."""
    on_cuda = choose_device(options.device).type == "cuda"
    names = [name for name in EXPERIMENTS if name in PROFILES[options.profile]]
    for name in set(names) & set(FOR_CUDA) if not on_cuda else ():
        print(f"{name}: not run without CUDA, the report has the reference; --only {name} runs a reduced one")
    return [name for name in names if on_cuda or name not in FOR_CUDA]


def result_path(name: str, options: Options) -> Path:
    """The file of an experiment's result."""
    return Path(options.out) / "results" / f"{name}.json"


def run_one(name: str, options: Options) -> None:
    """Run an experiment, and write its result with what it depends on and how long it took."""
    path = result_path(name, options)
    path.parent.mkdir(parents=True, exist_ok=True)  # where nothing can be written, nothing is run
    started = time.perf_counter()
    result = EXPERIMENTS[name](options)
    minutes = (time.perf_counter() - started) / 60
    frame = {
        "profile": options.profile,
        "asked": asked(name, options),
        "environment": environment(),
        "minutes": minutes,
    }
    write_json(path, {**frame, **result})
    print(f"{name}: {minutes:.1f} minutes, written to {path}", flush=True)


if __name__ == "__main__":  # also what keeps a worker process, which imports this file, from starting over
    main()
