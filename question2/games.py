"""Runs of the dirac game (question 2.6): played over the cores, measured beside theory, and drawn."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

import dirac
from lab import checkpoint, jobs
from lab.device import usable_cores
from lab.files import read_json, write_json
from lab.options import determining
from lab.record import Record
from question2 import dirac_theory
from question2.configurations import Hyperparameters, Run


def run_games(runs: Sequence[Run], progress: bool = True) -> dict[str, dict[str, Any]]:
    """Play dirac games over the cores, and draw all of a seed side by side. Results by label.

    If a folder holds another configuration's run, nothing is played.
    """
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        alike = dataclasses.astuple(dataclasses.replace(run.hp, generator_alpha_ema=None, seed=0))
        groups.setdefault((alike, run.hp.generator_alpha_ema or Hyperparameters.generator_alpha_ema), []).append(run)
    workers = min(len(groups), runs[0].management.workers or usable_cores())
    calls = {group[0].label: (group,) for group in groups.values()}
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.claim())
        bar = stack.enter_context(tqdm(total=len(runs), desc="dirac", unit="game", disable=not progress))
        if workers > 1:
            done = lambda name: bar.update(len(calls[name][0]))  # noqa: E731
            played = jobs.run_in_processes(run_together, calls, workers, 1, done)
        else:
            played = {name: run_together(*arguments) for name, arguments in calls.items()}
            bar.update(len(runs))
        results = {label: result for group in played.values() for label, result in group.items()}
        for seed in dict.fromkeys(run.hp.seed for run in runs):
            shown = [run for run in runs if run.hp.seed == seed and run.management.viz]
            games = [(run.name, run.hp.game, t) for run in shown if (t := load_trajectory(run))]
            if len(games) > 1:
                from question2 import dirac_plots

                dirac_plots.overview(Path(shown[0].management.exp_path) / f"dirac-{seed}.png", games)
    return {run.label: results[run.label] for run in runs}


def load_trajectory(run: Run) -> dirac.Trajectory | None:
    """The trajectory that a run left in its folder, or None; a damaged one, or another run's, is played again."""
    path = run.folder / "checkpoint.pt"
    try:
        state = checkpoint.load(path)
    except FileNotFoundError:
        return None
    except checkpoint.DamagedError as error:
        print(f"{error}; the game is played again", file=sys.stderr)
        return None
    if state.pop("origin", None) != determining(run.hp):
        print(f"{path} has other options; the game is played again", file=sys.stderr)
        return None
    return dirac.Trajectory(**{name: value.numpy() for name, value in state.items()})


def run_together(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Play the games of some runs that differ in seed and average alone side by side. Results by label."""
    missing = [run for run in runs if load_trajectory(run) is None]
    for run in missing:
        (run.folder / "result.json").unlink(missing_ok=True)
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
            checkpoint.save(run.folder / "checkpoint.pt", {"origin": determining(run.hp), **state})
    return {run.label: finish_game(run) for run in runs}


def finish_game(run: Run) -> dict[str, Any]:
    """Set what theory predicts beside what a game did, write its metrics, and draw it, unless all of this is there."""
    hp, folder = run.hp, run.folder
    last = folder / ("trajectory.png" if run.management.viz else "metrics.jsonl")
    if last.exists() and (finished := read_json(folder / "result.json")) is not None:
        return finished
    trajectory = load_trajectory(run)
    assert trajectory is not None, folder
    result = dirac_theory.compare(hp.game, trajectory)
    columns = {"theta": trajectory.theta, "psi_0": trajectory.psi[:, 0], "psi_1": trajectory.psi[:, 1]}
    if trajectory.averaged is not None:
        columns["theta_averaged"] = trajectory.averaged
    with Record(folder) as record:
        for step in range(0, hp.max_iters + 1, run.management.log_every):
            line = {name: float(values[step, 0]) for name, values in columns.items()}
            if not all(map(math.isfinite, line.values())):
                break  # the game has diverged, and JSON cannot represent it
            record.add(step, **line)
    write_json(folder / "result.json", result)
    if run.management.viz:
        from question2 import dirac_plots

        dirac_plots.final_plot(folder / "trajectory.png", run.name, hp.game, trajectory)
    return result


def animate(runs: Sequence[Run]) -> list[Path]:
    """Make films of games that have been played; their paths."""
    from question2 import dirac_plots

    played = [(run, t) for run in runs if (t := load_trajectory(run))]
    return [dirac_plots.animate(run.folder, run.name, run.hp.game, t) for run, t in played]
