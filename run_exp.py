"""Question 2 from the command line: the dirac game and the GANs of images.

    python run_exp.py --list
    python run_exp.py --config dirac-jsd-2 --seed 20012345
    python run_exp.py --config 'cifar10-*'

A name or pattern chooses configurations; any hyper-parameter can be overridden (``--max_iters 2000``). Each run has a
folder, ``OUT/NAME-SEED``, and started again goes on where it stopped. In a notebook, :func:`main` does one run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lab import command_line, jobs
from question2 import runs, summary
from question2.configurations import (
    CONFIGURATIONS,
    DiracParameters,
    Hyperparameters,
    ImageParameters,
    Management,
    PaceParameters,
    PlayParameters,
    ScoreParameters,
    matching,
    table,
)

DESCRIPTION = "Play the dirac game and train GANs of images (question 2)."
EXAMPLES = """examples:
  run_exp.py --config dirac-jsd-2 --seed 20012345 --animate     one game from your own seed, with a film of it
  run_exp.py --config 'dirac-*'                                 all of them
  run_exp.py --config cifar10-jsd-3 --dataset digits --generator_dimh 8 --critic_dimh 8 --max_iters 500
  run_exp.py --config 'cifar10-*' --seed 1 2 3 --executor slurm --job_gpus 1 --summary"""
PARAMETERS = {"play": PlayParameters, "dirac": DiracParameters, "images": ImageParameters}


@dataclass
class Request:
    """What to do."""

    config: str = ""  # a configuration's name, or a pattern such as 'cifar10-*'
    seed: list[int] = field(default_factory=list)  # one run for each: put your matricule number here (default: 31415)
    list: bool = False  # print the configurations, and stop
    summary: bool = False  # print the means and deviations over seeds of the finished runs in --out
    animate: bool = False  # make films of the dirac games


def main(management: Management, hyperparameters: Hyperparameters) -> dict[str, Any] | None:
    """Do one run, as a notebook asks for it; in a notebook a dirac game's final plot is shown.

    Args:
        management: Where and how. ``exp_name`` names the folder; left empty, the configuration whose hyper-parameters
            these are names it, or the task where there is none.
        hyperparameters: What to run.

    Returns:
        The result, or None where ``max_minutes`` were up before the end; the same call goes on.

    Raises:
        ValueError: The folder holds another configuration's run, or there is no such device.
        data.DataUnavailableError: The data set cannot be had.
    """
    run = runs.Run(name_of(hyperparameters), hyperparameters, management)
    result = runs.run_all([run]).results[run.label]
    picture = run.folder / "trajectory.png"
    if management.viz and picture.exists() and "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(picture))
    return result


def name_of(hyperparameters: Hyperparameters) -> str:
    """The configuration that hyper-parameters are, in any seed; the task where they are none."""
    same = [name for name, hp in CONFIGURATIONS.items() if replace(hp, seed=hyperparameters.seed) == hyperparameters]
    return same[0] if same else hyperparameters.task.lower()


def parse(argv: Sequence[str] | None = None) -> tuple[Request, list[runs.Run], jobs.Resources, Management]:
    """What a command line asks for.

    Raises:
        ValueError: No configuration has such a name, or a value is out of its range.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # The help shows the values of the configuration that is named beside it.
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("--config", default="cifar10-jsd-1")
    first = CONFIGURATIONS[matching(named.parse_known_args(argv)[0].config)[0]]
    groups: dict[str, Any] = {"request": Request, "pace": PaceParameters}
    for name, group in PARAMETERS.items():
        groups[name] = group(**{field.name: getattr(first, field.name) for field in fields(group)})
    groups |= {"scores": ScoreParameters, "resources": jobs.Resources}
    asked = command_line.parse_all(DESCRIPTION, argv, groups, typed=tuple(PARAMETERS), examples=EXAMPLES)
    management = Management(**vars(asked.pace), **vars(asked.scores))
    overrides = {key: value for name in PARAMETERS for key, value in getattr(asked, name).items()}
    if asked.request.list or (asked.request.summary and not asked.request.config):
        return asked.request, [], asked.resources, management
    if not asked.request.config:
        raise ValueError("--config takes a configuration's name or a pattern; --list shows them")
    planned = runs.plan(asked.request.config, asked.request.seed, management, **overrides)
    return asked.request, planned, asked.resources, management


def cli(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    failed: dict[str, str] = {}
    with command_line.one_line_errors():
        request, planned, resources, management = parse(argv)
        out = Path(management.exp_path)
        if request.list:
            print(table(request.config or "*"))
            return
        if planned and resources.executor == "none":
            print(summary.report(runs.run_all(planned)))
        elif planned:
            failed = runs.run_as_jobs(planned, resources)
        if request.animate:
            print("\n".join(f"film: {path}" for path in runs.animate(planned)))
        if request.summary:
            print(summary.write(out))
        for name, why in failed.items():
            print(f"{name} failed: {why}", file=sys.stderr)
        if planned:
            print(f"everything is in {out}")
        if failed:
            raise SystemExit(1)


if __name__ == "__main__":
    cli()
