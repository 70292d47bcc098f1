"""Runs of question 2: which ones a choice of configurations and seeds means, and doing them."""

import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

import data
import dirac
from gan import EvalStep
from lab import checkpoint, jobs
from lab.device import choose_device
from lab.record import Record
from model import Critic, Generator
from question2 import dirac_plots, dirac_theory, image_gan, score
from question2.configurations import CONFIGURATIONS, FORMER_NAMES, Hyperparameters, Management, matching


@dataclass(frozen=True)
class Run:
    """One configuration in one seed."""

    name: str
    hp: Hyperparameters
    management: Management

    @property
    def folder(self) -> Path:
        """Where it lives."""
        return Path(self.management.exp_path) / f"{self.management.exp_name or self.name}-{self.hp.seed}"

    @property
    def label(self) -> str:
        """Its folder's name."""
        return self.folder.name

    def claimed(self) -> contextlib.AbstractContextManager[None]:
        """Reserve the folder for this run, as :func:`lab.checkpoint.claimed` does."""
        return checkpoint.claimed(self.folder, self.management, self.hp, former=FORMER_NAMES, config=self.name)


def plan(pattern: str, seeds: Sequence[int] = (), management: Management | None = None, **overrides: Any) -> list[Run]:
    """The runs of some configurations.

    Args:
        pattern: A configuration's name, or a pattern such as ``cifar10-*``.
        seeds: One run of each configuration for each of them; none for the configuration's own.
        management: Where and how; None for the defaults.
        overrides: Hyper-parameters with other values than the configurations'.

    Raises:
        ValueError: No configuration has such a name, or a value is out of its range.
        TypeError: There is no such hyper-parameter.

    Example:
        >>> [run.label for run in plan("dirac-w1-[12]", seeds=[7], max_iters=100)]
        ['dirac-w1-1-7', 'dirac-w1-2-7']
    """
    management = management or Management()
    configurations = {name: dataclasses.replace(CONFIGURATIONS[name], **overrides) for name in matching(pattern)}
    if management.exp_name and len(configurations) > 1:
        raise ValueError(f"exp_name names the folder of one configuration, and {pattern} means {len(configurations)}")
    # Seed by seed, so that a study that is cut short has each configuration.
    return [
        Run(name, dataclasses.replace(hp, seed=hp.seed if seed is None else seed), management)
        for seed in dict.fromkeys(seeds or [None])
        for name, hp in configurations.items()
    ]


@dataclass
class Outcome:
    """What runs came to."""

    runs: list[Run]  # as they were done: with the data set, the scores and the device that "auto" stood for
    results: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # by label; None where time was up
    images: "Images | None" = None  # of image runs


def run_all(runs: Sequence[Run], progress: bool = True) -> Outcome:
    """Do runs: dirac games over the cores, image runs one after the other.

    Raises:
        ValueError: A folder holds another configuration's run, or there is no such device. Nothing has been run then.
        data.DataUnavailableError: The data set cannot be had.
    """
    images, deadline = None, math.inf
    of_images = [run for run in runs if run.hp.task == "CIFAR10"]
    if of_images:
        management = of_images[0].management
        deadline = time.monotonic() + (60 * management.max_minutes or math.inf)
        images = load_images(management)
        resolved = dataclasses.replace(
            management,
            dataset=images.dataset,
            scores=images.scores,
            device=images.train.device.type,
            fast="yes" if image_gan.use_fast(management) else "no",
        )
        runs = [dataclasses.replace(run, management=resolved) if run in of_images else run for run in runs]
    with contextlib.ExitStack() as folders:
        for run in runs:
            folders.enter_context(run.claimed())
        games = run_games([run for run in runs if run.hp.task == "dirac"], progress)
        outcome = Outcome(list(runs), dict(games), images)
        for run in runs:
            if images and run.hp.task == "CIFAR10":
                outcome.results[run.label] = run_images(run, images, deadline, progress)
    return outcome


def run_as_jobs(runs: Sequence[Run], resources: jobs.Resources, progress: bool = True) -> dict[str, str]:
    """Do each run in a job of its own. The runs that failed, and why.

    Raises:
        ValueError: There is no such cluster here, or it refuses the jobs.
    """
    tasks = {run.label: jobs.Task(run_alone, (run,)) for run in runs}
    return jobs.run_jobs(tasks, Path(runs[0].management.exp_path) / "jobs", resources, progress)


def run_alone(run: Run) -> None:
    """One run, to its end: what a job does.

    Raises:
        TimeoutError: Its time was up before.
    """
    if None in run_all([run], progress=False).results.values():
        raise TimeoutError("time was up (--max_minutes): the same command goes on")


# Dirac games


def load_trajectory(folder: Path) -> dirac.Trajectory | None:
    """The trajectory that a run left in its folder, or None; what is damaged is played again."""
    try:
        state = checkpoint.load(folder / "checkpoint.pt")
    except checkpoint.DamagedError as error:
        print(f"{error}; the game is played again", file=sys.stderr)
        return None
    return dirac.Trajectory(**{name: value.numpy() for name, value in state.items()}) if state else None


def run_games(runs: Sequence[Run], progress: bool = True) -> dict[str, dict[str, Any]]:
    """Play dirac games over the cores, and draw all of a seed side by side. Results by label."""
    if not runs:
        return {}
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        alike = dataclasses.astuple(dataclasses.replace(run.hp, generator_alpha_ema=None, seed=0))
        groups.setdefault((alike, run.hp.generator_alpha_ema or Hyperparameters.generator_alpha_ema), []).append(run)
    workers = min(len(groups), runs[0].management.workers or os.cpu_count() or 1)
    results: dict[str, dict[str, Any]] = {}
    with (
        tqdm(total=len(runs), desc="dirac", unit=" runs", disable=not progress) as bar,
        contextlib.ExitStack() as stack,
    ):
        map_: Any = map
        if workers > 1:
            map_ = stack.enter_context(jobs.pool(workers, threads=1)).map
        for group, of_group in zip(groups.values(), map_(run_together, groups.values()), strict=True):
            results.update({run.label: result for run, result in zip(group, of_group, strict=True)})
            bar.update(len(group))
    for seed in dict.fromkeys(run.hp.seed for run in runs):
        of_seed = [run for run in runs if run.hp.seed == seed]
        if len(of_seed) > 1 and of_seed[0].management.viz:
            path = Path(of_seed[0].management.exp_path) / f"dirac-{seed}.png"
            games = [(run.name, run.hp.game, load_trajectory(run.folder)) for run in of_seed]
            dirac_plots.overview(path, [(name, game, played) for name, game, played in games if played])
    return {run.label: results[run.label] for run in runs}


def run_together(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Play the games of some runs side by side; one process's work.

    They differ in nothing but their seeds, and so their starting points, and in whether the average is kept.
    """
    missing = [run for run in runs if load_trajectory(run.folder) is None]
    if missing:
        hp = max((run.hp for run in missing), key=lambda hp: hp.generator_alpha_ema is not None)
        starts = zip(*(dirac.starting_points(run.hp.seed, run.hp.games) for run in missing), strict=True)
        theta, psi = (torch.cat(parts, dim=-1) for parts in starts)
        together = dirac.play(hp.game, theta, psi, hp.max_iters)
        for i, run in enumerate(missing):
            mine = slice(i * hp.games, (i + 1) * hp.games)
            state = {
                name: torch.from_numpy(values[..., mine].copy())
                for name, values in vars(together).items()
                if values is not None and (name != "averaged" or run.hp.generator_alpha_ema is not None)
            }
            checkpoint.save(run.folder / "checkpoint.pt", state)
    return [finish_game(run) for run in runs]


def finish_game(run: Run) -> dict[str, Any]:
    """Set what theory predicts beside what a game did, write its metrics, and draw it."""
    hp, folder = run.hp, run.folder
    trajectory = load_trajectory(folder)
    assert trajectory is not None, folder
    result = dirac_theory.compare(hp.game, trajectory)
    columns = {"theta": trajectory.theta, "psi_0": trajectory.psi[:, 0], "psi_1": trajectory.psi[:, 1]}
    if trajectory.averaged is not None:
        columns["theta_averaged"] = trajectory.averaged
    with Record(folder, -1) as record:
        for step in range(0, hp.max_iters + 1, run.management.log_every):
            line = {name: float(values[step, 0]) for name, values in columns.items()}
            if not all(map(math.isfinite, line.values())):
                break  # the game has diverged, and JSON has no word for it
            record.add(step, **line)
        predicted = result["predicted"]["verdict"] if result["predicted"] else "nothing"
        record.say(f"predicted {predicted}, measured {result['measured']['verdict']}")
    checkpoint.write_json(folder / "result.json", result)
    if run.management.viz:
        dirac_plots.final_plot(folder / "trajectory.png", run.name, hp.game, trajectory)
    return result


def animate(runs: Sequence[Run]) -> list[Path]:
    """Films of games that have been played; their paths."""
    films = []
    for run in runs:
        if run.hp.task == "dirac" and (trajectory := load_trajectory(run.folder)):
            films.append(dirac_plots.animate(run.folder, run.name, run.hp.game, trajectory))
    return films


# Image runs


@dataclass
class Images:
    """Images on the device, and what scores generated ones against them."""

    dataset: str
    train: Tensor
    test: Tensor
    network: score.Network | None
    management: Management

    @property
    def scores(self) -> Literal["none", "inception", "classifier"]:
        """What scores, by the name that ``--scores`` has for it."""
        if self.network is None:
            return "none"
        return "classifier" if self.network.suffix else "inception"

    def evaluation(self, dimz: int) -> EvalStep:
        """The evaluation step for generators of a noise size, against the reference that was asked for."""
        assert self.network is not None
        reference = self.management.fid_reference
        real = self.train if reference == "train" else self.test
        label = f"{reference}-{Path(self.dataset).name}"
        return score.make_evaluation(self.network, real, dimz, self.management.data_path, label)


def load_images(management: Management) -> Images:
    """The images, and the network that scores.

    Raises:
        ValueError: There is no such device or data set.
        data.DataUnavailableError: The data set, or the weights of the network that scores, cannot be had.
    """
    device = choose_device(management.device)
    dataset, train, test = data.load_images(management.dataset, management.data_path)
    network = None
    if management.scores != "none" and not (management.scores == "auto" and dataset != "cifar10"):
        network = score.network(management.scores, management.inception_weights or None, device)
    held_out = test if len(test) > 1 else train  # a folder of a few images has too few others for an FID
    return Images(dataset, train.to(device), held_out.to(device), network, management)


def run_images(run: Run, images: Images, deadline: float = math.inf, progress: bool = True) -> dict[str, Any] | None:
    """Train one configuration on images. The result, or None where time was up before the end."""
    hp, management, path = run.hp, run.management, run.folder / "result.json"
    if (finished := checkpoint.read_json(path)) is not None:
        return finished
    evaluate = None
    if images.network:
        eval_step, network = images.evaluation(hp.generator_dimz), images.network

        def evaluate(critic: Critic, kept: Generator, trained: Generator, last: bool) -> dict[str, float]:
            """Scores of both generators; the critic's means belong to the one that it is trained against."""
            count = management.final_samples if last else management.eval_samples
            # By their calls: their batch-norm statistics are their own already, and need not be taken anew.
            of_kept, of_trained = (
                eval_step(score.batches(images.test, count), critic, generator.__call__)[1]
                for generator in (kept, trained)
            )
            line = {"samples": count, "cp": of_trained["cp"], "cq": of_trained["cq"]}
            for ending, scores in (("", of_kept), ("_trained", of_trained)):
                line |= {f"{key}{network.suffix}{ending}": scores[key] for key in score.KEYS}
            return line

    players, lines, step = image_gan.train(
        hp, management, images.train, run.folder, evaluate, deadline, run.name, progress
    )
    if step < hp.max_iters:
        return None
    kept = image_gan.as_kept(image_gan.averaged_of(players, hp))
    image_gan.save_generator(run.folder / "generator.pt", kept, hp)
    result: dict[str, Any] = {"dataset": images.dataset, "metrics": lines}
    if images.network:
        result["final"] = next(line for line in reversed(lines) if "samples" in line)
    checkpoint.write_json(path, result)
    return result
