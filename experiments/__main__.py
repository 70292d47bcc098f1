"""Every experiment of the report, one after the other: python -m experiments --profile full|quick

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
from experiments import dirac, flow, flow_posterior, gan, gan_fast, speed, vae
from experiments.options import Options
from lab import checkpoint, command_line
from lab.device import choose_device

EXPERIMENTS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "vae": vae.run,
    "dirac": dirac.run,
    "gan": gan.run,
    "gan_fast": gan_fast.run,
    "flow": flow.run,
    "flow_posterior": flow_posterior.run,
    "vae_speed": speed.vae,
    "gan_speed": speed.gan,
    "flow_speed": speed.flow,
}
FOR_CUDA = ("gan", "gan_fast")  # without it they take hours, and run only when they are asked for


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
    if name in ("vae", "flow_posterior", "vae_speed"):
        values["dataset"] = options.dataset
    return values | ({"gan_seeds": options.gan_seeds} if name == "gan" else {})


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Options, "Run every experiment of the report.", argv, program="python -m experiments")
    with command_line.one_line_errors():
        if unknown := set(options.only) - set(EXPERIMENTS):
            raise ValueError(f"no experiment {', '.join(sorted(unknown))}: there are {', '.join(EXPERIMENTS)}")
        options.dataset, _ = data.load(options.dataset, options.data)
        on_cuda = choose_device(options.device).type == "cuda"
        for name in options.only or EXPERIMENTS:
            if name in FOR_CUDA and not (options.only or options.quick or on_cuda):
                print(f"{name}: not run without CUDA, the report has the reference; --only {name} runs a reduced one")
                continue
            path = Path(options.out) / "results" / f"{name}.json"
            if (checkpoint.read_json(path) or {}).get("asked") == asked(name, options):
                print(f"{name}: done before, {path} has it")
                continue
            path.parent.mkdir(parents=True, exist_ok=True)  # where nothing can be written, nothing is run
            print(f"{name}: running", flush=True)
            started = time.perf_counter()
            result = EXPERIMENTS[name](options)
            minutes = (time.perf_counter() - started) / 60
            frame = {
                "profile": options.profile,
                "asked": asked(name, options),
                "environment": environment(),
                "minutes": minutes,
            }
            checkpoint.write_json(path, {**frame, **result})
            print(f"{name}: {minutes:.1f} minutes, written to {path}")


if __name__ == "__main__":  # also what keeps a worker process, which imports this file, from starting over
    main()
