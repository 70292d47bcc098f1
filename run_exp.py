"""Question 2 from the command line: the dirac game and the GANs of images.

    python run_exp.py --list
    python run_exp.py --config dirac-jsd-2 --seed 20012345
    python run_exp.py --config 'cifar10-*'

A name or pattern chooses configurations; any hyper-parameter can be overridden (``--max_iters 2000``). Each run has a
folder, ``OUT/NAME-SEED``, and resumes when started again. In a notebook, :func:`main` does one run.
"""

from lab import interruption

# isort: split
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lab import jobs
from lab.device import usable_cores
from lab.options import InputError, parse_all
from question2.configurations import CONFIGURATIONS, Hyperparameters, Management, Run, plan, table

DESCRIPTION = "Play the dirac game and train GANs of images (question 2)."
EXAMPLES = """examples:
  run_exp.py --config dirac-jsd-2 --seed 20012345 --animate     one game from your own seed, with a film of it
  run_exp.py --config 'dirac-*'                                 all of them
  run_exp.py --config cifar10-jsd-3 --dataset digits --generator_dimh 8 --critic_dimh 8 --generator_lr 2e-3
             --critic_lr 4e-3 --generator_alpha_ema 0.99 --max_iters 800      digits from a small GAN, in minutes
  run_exp.py --config 'cifar10-*' --seed 1 2 3 --executor slurm --job_gpus 1 --summary"""


@dataclass
class Request:
    """What to do."""

    config: str = ""  # a configuration's name, or a pattern such as 'cifar10-*'
    seed: list[int] = field(default_factory=list)  # one run for each; left out, 31415. Put your matricule number here
    list: bool = False  # print the configurations, and stop
    summary: bool = False  # print the means and deviations over seeds of the finished runs in --out
    animate: bool = False  # make films of the dirac games


GROUPS = {"request": Request, "management": Management, "changed": Hyperparameters, "resources": jobs.Resources}


def main(management: Management, hyperparameters: Hyperparameters) -> dict[str, Any] | None:
    """Do one run, as a notebook asks for it; in a notebook a dirac game's final plot is shown.

    Args:
        management: Where and how. ``exp_name`` names the folder; left empty, the configuration whose hyper-parameters
            these are names it, or the task where there is none.
        hyperparameters: What to run.

    Returns:
        The result, or None where ``max_minutes`` were up before the end; the same call resumes.

    Raises:
        InputError: The folder holds another configuration's run, or there is no such device.
        data.DataUnavailableError: The data set is not available.
    """
    run = Run(name_of(hyperparameters), hyperparameters, management)
    result = run_all([run])[run.label]
    picture = run.folder / "trajectory.png"
    if management.viz and picture.exists() and "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(picture))
    return result


def name_of(hyperparameters: Hyperparameters) -> str:
    """The configuration that hyper-parameters are, in any seed; the task where they are none."""
    same = [name for name, hp in CONFIGURATIONS.items() if replace(hp, seed=hyperparameters.seed) == hyperparameters]
    return same[0] if same else hyperparameters.task.lower()


def run_all(runs: Sequence[Run], progress: bool = True) -> dict[str, dict[str, Any] | None]:
    """Do runs: dirac games over the cores, image runs one after the other. Results by label, None where time was up."""
    results: dict[str, dict[str, Any] | None] = {}
    if games := [run for run in runs if run.hp.task == "dirac"]:
        from question2.games import run_games

        results.update(run_games(games, progress))
    if image_runs := [run for run in runs if run.hp.task == "CIFAR10"]:
        from question2 import images

        results.update(images.run_all(image_runs, progress)[2])
    return results


def run_alone(run: Run) -> None:
    """One run, to its end: what a job does.

    Raises:
        TimeoutError: Its time was up before.
    """
    if None in run_all([run], progress=False).values():
        raise TimeoutError("time was up (--max_minutes); run the same command to resume")


def why_it_failed(run: Run) -> str:
    """Do one run in a process of this machine; the empty string, or why it failed, which stops no other run."""
    try:
        run_alone(run)
    except (InputError, OSError, FloatingPointError) as error:
        return str(error)
    return ""


def run_as_jobs(runs: Sequence[Run], resources: jobs.Resources) -> dict[str, str]:
    """Do each run in a process or a job of its own. The runs that failed, and why."""
    calls = {run.label: (run,) for run in runs}
    if resources.executor == "slurm":
        return jobs.run_on_slurm(run_alone, calls, Path(runs[0].management.exp_path) / "jobs", resources)
    workers = min(len(runs), resources.parallel or usable_cores())
    with tqdm(total=len(runs), desc="local", unit="run") as bar:
        threads = usable_cores() // workers
        results = jobs.run_in_processes(why_it_failed, calls, workers, threads, lambda name: bar.update())
    return {label: why for label, why in results.items() if why}


def cli(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = parse_all(DESCRIPTION, argv, GROUPS, typed=["changed"], examples=EXAMPLES)
    request, management, failed = asked.request, asked.management, {}
    with interruption.one_line_errors():
        if request.list:
            print(table(request.config or "*"))
            return
        if not request.config and not request.summary:
            raise InputError("--config takes a configuration's name or a pattern; --list shows them")
        runs = plan(request.config, request.seed, management, **asked.changed) if request.config else []
        from question2 import summary

        if runs and asked.resources.executor == "none":
            print(summary.report(runs, run_all(runs)))
        elif runs:
            failed = run_as_jobs(runs, asked.resources)
        if request.animate:
            from question2.games import animate

            print("\n".join(f"film: {path}" for path in animate([run for run in runs if run.hp.task == "dirac"])))
        if runs:
            print(f"everything is in {management.exp_path}")
        for name, why in failed.items():
            print(f"{name} failed: {why}", file=sys.stderr)
        if request.summary:
            print(summary.write(management.exp_path))
        if failed:
            raise SystemExit(1)


if __name__ == "__main__":
    cli()
