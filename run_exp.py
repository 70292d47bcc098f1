"""Question 2 from the command line: the dirac game and the GANs of images.

    python run_exp.py --list
    python run_exp.py --config dirac-jsd-2 --seed 20012345
    python run_exp.py --config 'cifar10-*'

A name or pattern chooses configurations; any hyper-parameter can be overridden (``--max_iters 2000``). Each run has a
folder, ``OUT/NAME-SEED``, and started again goes on where it stopped.
"""

import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

import data
import dirac
from lab import checkpoint, command_line, jobs
from model import Generator
from question2 import dirac_plots, image_gan, score, summary
from question2.configurations import CONFIGURATIONS, UNIMPORTANT, Hyperparameters, Management, matching, table

GROUPS = {"management": Management, "resources": jobs.Resources}
SCORES = {None: "none", "": "inception", "-C": "classifier"}


@dataclasses.dataclass(eq=False)
class Run:
    """One configuration in one seed."""

    name: str
    hp: Hyperparameters
    management: Management

    @property
    def folder(self) -> Path:
        """Where it lives."""
        return Path(self.management.out) / f"{self.name}-{self.hp.seed}"

    @property
    def config(self) -> dict[str, Any]:
        """What its ``config.json`` holds."""
        return {**vars(self.management), **vars(self.hp), "config": self.name}


DESCRIPTION = "Play the dirac game and train GANs of images (question 2)."


def plan(argv: Sequence[str] | None = None) -> list[Run]:
    """The runs that a command line asks for.

    Raises:
        ValueError: No configuration has such a name.
    """
    management = command_line.parse_all(DESCRIPTION, argv, hp=Hyperparameters, **GROUPS).management
    if not management.config:
        raise ValueError("--config takes a configuration's name or a pattern; --list shows them")
    runs = []
    for name in matching(management.config):
        # Parsed again with the configuration's values as defaults, so that what is typed overrides them.
        hp = command_line.parse_all(DESCRIPTION, argv, hp=CONFIGURATIONS[name], **GROUPS).hp
        task = CONFIGURATIONS[name].task  # no flag, so the parser knows only its default
        runs += [
            Run(name, dataclasses.replace(hp, seed=seed, task=task), management)
            for seed in dict.fromkeys(management.seed)
        ]
    return runs


def held_trajectory(folder: Path) -> dirac.Trajectory | None:
    """The trajectory that a run left in its folder, or None."""
    state = checkpoint.load(folder / "checkpoint.pt")
    return state and dirac.Trajectory(**{name: value.numpy() for name, value in state.items()})


def run_together(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Play the games of some runs side by side, those with a moving average and those without; one process's work.

    They differ in nothing but their starting points and in whether the average is kept.
    """
    missing = [run for run in runs if held_trajectory(run.folder) is None]
    if missing:
        hp = max((run.hp for run in missing), key=lambda hp: hp.alpha_ema is not None)
        starts = zip(*(dirac.starting_points(run.hp.seed, run.hp.games) for run in missing), strict=True)
        theta, psi = (torch.cat(parts, dim=-1) for parts in starts)
        together = dirac.play(hp.game, theta, psi, hp.max_iters)
        for i, run in enumerate(missing):
            mine = slice(i * hp.games, (i + 1) * hp.games)
            kept = {name: v for name, v in vars(together).items() if name != "averaged" or run.hp.alpha_ema is not None}
            state = {name: torch.from_numpy(v[..., mine].copy()) for name, v in kept.items()}
            checkpoint.save(run.folder / "checkpoint.pt", state)
    return [finish_game(run) for run in runs]


def finish_game(run: Run) -> dict[str, Any]:
    """Measure a game that was played, write its metrics, and draw it."""
    hp, folder = run.hp, run.folder
    trajectory = held_trajectory(folder)
    result = dirac.report(hp.game, trajectory)
    with image_gan.Record(folder, -1) as record:
        for step in range(0, hp.max_iters + 1, run.management.log_every):
            values = {"theta": trajectory.theta, "psi_0": trajectory.psi[:, 0], "psi_1": trajectory.psi[:, 1]}
            if trajectory.averaged is not None:
                values["theta_averaged"] = trajectory.averaged
            line = {name: float(value[step, 0]) for name, value in values.items()}
            if not all(map(math.isfinite, line.values())):
                break  # the game has diverged, and JSON has no word for it
            record.add(step, **line)
        record.say(f"predicted {result['predicted']['verdict']}, measured {result['measured']['verdict']}")
    checkpoint.write_json(folder / "result.json", result)
    dirac_plots.final_plot(folder / "trajectory.png", run.name, hp.game, trajectory)
    if run.management.animate:
        dirac_plots.animate(folder, run.name, hp.game, trajectory)
    return result


@dataclasses.dataclass
class Images:
    """Training images on the device, and what scores generated ones."""

    dataset: str
    train: Tensor
    scorer: score.Network | None
    sums: dict[str, Tensor]


def load_images(management: Management) -> Images:
    """The images and the reference of the scores that a command line asks for.

    Raises:
        ValueError: There is no such device or data set.
        data.DataUnavailableError: The data set, or the weights of the network that scores, cannot be had.
    """
    device = command_line.choose_device(management.device)
    dataset, train, test = data.load_images(management.dataset, management.data)
    if management.scores == "none" or (management.scores == "auto" and dataset != "cifar10"):
        return Images(dataset, train.to(device), None, {})
    scorer = score.network(management.scores, management.inception_weights or None, device)
    real = (train if management.fid_reference == "train" else test).to(device)
    cache = Path(management.data) / f"reference{scorer.suffix}-{management.fid_reference}-{Path(dataset).name}.pt"
    return Images(dataset, train.to(device), scorer, score.reference(scorer, real, cache))


def run_images(run: Run, images: Images, deadline: float = math.inf, progress: bool = True) -> dict[str, Any] | None:
    """Train one configuration on images. The result, or None where time was up before the end."""
    hp, management, path = run.hp, run.management, run.folder / "result.json"
    if path.exists():
        return json.loads(path.read_text())

    def evaluate(generator: Generator, last: bool) -> dict[str, float]:
        count = management.final_samples if last else management.eval_samples
        batches = score.generated(generator, hp.dimz, count, hp.seed)
        return score.score(images.scorer, images.sums, batches, images.train.device) | {"samples": count}

    players, lines, step = image_gan.train(
        hp, management, images.train, run.folder, evaluate if images.scorer else None, deadline, run.name, progress
    )
    if step < hp.max_iters:
        return None
    image_gan.save_generator(run.folder / "generator.pt", players.averaged, hp)
    result = {"dataset": images.dataset, "metrics": lines}
    if images.scorer:
        # The averaged generator was scored at the end of training; beside it, the one that was trained.
        result["final"] = next(line for line in reversed(lines) if "samples" in line)
        result["final_without_average"] = evaluate(players.generator.eval(), True)
    checkpoint.write_json(path, result)
    return result


def run_all(runs: Sequence[Run], progress: bool = True) -> dict[str, dict[str, Any] | None]:
    """Do runs: dirac games over the cores, image runs one after the other. Results by the folders' names.

    Raises:
        ValueError: A folder holds another configuration's run, or there is no such device. Nothing has been run then.
        data.DataUnavailableError: The data set cannot be had.
    """
    games, image_runs = ([run for run in runs if (run.hp.task == "DIRAC") == kind] for kind in (True, False))
    if image_runs:
        management = image_runs[0].management
        limit = 60 * management.max_minutes or math.inf
        deadline = time.monotonic() + limit
        images = load_images(management)
        resolved = {
            "dataset": images.dataset,
            "scores": SCORES[images.scorer and images.scorer.suffix],
            "device": images.train.device.type,
            "fast": "yes" if image_gan.use_fast(management, images.train.device) else "no",
        }
        for run in image_runs:
            run.management = dataclasses.replace(management, **resolved)
    for run in runs:
        checkpoint.claim_folder(run.folder, run.config, UNIMPORTANT)
    results: dict[str, dict[str, Any] | None] = dict(run_games(games, progress))
    for run in image_runs:
        results[run.folder.name] = run_images(run, images, deadline, progress)
    return results


def run_games(games: Sequence[Run], progress: bool = True) -> dict[str, dict[str, Any]]:
    """Play dirac games over the cores, and draw all of a seed side by side. Results by the folders' names."""
    if not games:
        return {}
    groups: dict[Any, list[Run]] = {}
    for run in games:
        groups.setdefault(dataclasses.astuple(dataclasses.replace(run.hp, alpha_ema=None)), []).append(run)
    jobs = min(len(groups), games[0].management.jobs or os.cpu_count() or 1)
    results: dict[str, dict[str, Any]] = {}
    with (
        tqdm(total=len(games), desc="dirac", unit=" runs", disable=not progress) as bar,
        contextlib.ExitStack() as stack,
    ):
        map_: Any = map
        if jobs > 1:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,))
            map_ = stack.enter_context(pool).map
        for group, of_group in zip(groups.values(), map_(run_together, groups.values()), strict=True):
            results.update({run.folder.name: result for run, result in zip(group, of_group, strict=True)})
            bar.update(len(group))
    for seed in dict.fromkeys(run.hp.seed for run in games):
        of_seed = [run for run in games if run.hp.seed == seed]
        if len(of_seed) > 1:
            path = Path(of_seed[0].management.out) / f"dirac-{seed}.png"
            dirac_plots.overview(path, [(run.name, run.hp.game, held_trajectory(run.folder)) for run in of_seed])
    return {run.folder.name: results[run.folder.name] for run in games}


def print_games(results: dict[str, dict[str, Any]]) -> None:
    """The table of predicted and measured behaviour."""
    print(f"{'':22} {'verdict':>24} {'period':>15} {'decay an update':>19} {'distance at the end':>19} {'average':>9}")
    for name, result in results.items():
        if not result or "predicted" not in result:
            continue
        both = [result["predicted"], result["measured"]]
        cells = [f"{'/'.join(side['verdict'] for side in both):>24}"]
        for key, width in (("period", 15), ("rate", 19), ("amplitude", 19)):
            values = "/".join("-" if side[key] is None else f"{side[key]:.4g}" for side in both)
            cells.append(f"{values:>{width}}")
        averaged = result["measured"].get("averaged")
        cells.append(f"{averaged['amplitude']:9.2g}" if averaged else f"{'-':>9}")
        print(f"{name:22} {' '.join(cells)}")
    print("predicted/measured; periods in updates; medians over the starting points")


def run_as_jobs(runs: Sequence[Run], argv: Sequence[str], resources: jobs.Resources) -> dict[str, str]:
    """Do each run in a job of its own. The runs that failed, and why."""
    only = {run: ["--config", run.name, "--seed", str(run.hp.seed), "--executor", "none"] for run in runs}
    tasks = {run.folder.name: jobs.Task([*argv, *flags]) for run, flags in only.items()}
    return jobs.run_jobs(tasks, Path(runs[0].management.out) / "jobs", resources)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    asked = command_line.parse_all(DESCRIPTION, argv, hp=Hyperparameters, **GROUPS)
    out = asked.management.out
    failed: dict[str, str] = {}
    try:
        if asked.management.list:
            print(table())
            return
        if asked.management.summary and not asked.management.config:
            print_summary(out)
            return
        runs = plan(argv)
        if asked.resources.executor == "none":
            print_results(runs, run_all(runs))
        else:
            failed = run_as_jobs(runs, argv, asked.resources)
        if asked.management.summary:
            print_summary(out)
    except (ValueError, FloatingPointError, data.DataUnavailableError) as error:
        command_line.fail(error)
    for name, why in failed.items():
        print(f"{name} failed: {why}", file=sys.stderr)
    print(f"everything is in {out}")
    if failed:
        raise SystemExit(1)


def print_results(runs: Sequence[Run], results: dict[str, dict[str, Any] | None]) -> None:
    """The last numbers of each run."""
    if any(run.hp.task == "DIRAC" for run in runs):
        print_games(results)
    for run in runs:
        if run.hp.task != "DIRAC":
            result = results[run.folder.name]
            last = result["metrics"][-1] if result else {}
            numbers = ", ".join(f"{key} {value:.5g}" for key, value in last.items())
            print(f"{run.folder.name}: {numbers or 'time was up; the same command goes on'}")


def print_summary(out: str) -> None:
    """The table of the finished runs, kept as ``summary.json`` too."""
    rows = summary.collect(out, UNIMPORTANT)
    checkpoint.write_json(Path(out) / "summary.json", rows)
    print(summary.table(rows))


if __name__ == "__main__":
    main()
