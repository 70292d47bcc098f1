"""Planar flows from samples and from densities (questions 3.7 and 3.9), many at a time.

    python train.py --from samples density --data arcs sine --num_layers 2 8 32 --seed 1 2 3 --out runs/flow

Flows of the same depth and source are trained side by side, as ``stacked_flows.py`` does an update of them. Nothing is
shared between them: each flow has its own seed, batches and optimiser state, and is the flow that it would be alone.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from simple_parsing import field as option
from torch import Tensor

from data.densities import TARGETS, Target
from lab import checkpoint, command_line, jobs
from lab.command_line import bookkeeping
from lab.device import one_thread
from lab.record import Record
from question3 import natural, plots
from question3.scores import score_from_density, score_from_samples
from question3.stacked_flows import compile_flows, point_gradients, stack, unstack, update
from solution import Flow

SOURCES = ("samples", "density")
RECIPES = ("assignment", "tuned")
CHUNK = 1000  # iterations between two checkpoints, for which batches are drawn ahead


@dataclass
class Hyperparameters:
    """The runs. The defaults are the assignment's."""

    # what a flow learns from: samples of the target, or its density
    source: list[str] = option(default_factory=lambda: list(SOURCES), alias=["--from"])
    data: list[str] = field(default_factory=lambda: list(TARGETS))  # targets: arcs, sine
    num_layers: list[int] = field(default_factory=lambda: [2, 8, 32])  # numbers k of planar layers
    num_iter: int = 20_000  # updates
    lr: float = 5e-4  # RMSprop's step size; the peak of the natural gradient's, where 0.1 is about right
    # assignment: RMSprop; tuned: the natural gradient with a one-cycle step size, from layers whose hyperplanes are
    # spread
    recipe: Literal["assignment", "tuned"] = "assignment"
    batch_size: int = 128  # points per update
    seed: list[int] = field(default_factory=lambda: [1])  # one flow per seed, of initial parameters and batches
    fresh: bool = False  # from samples: new points of the target in every batch, in place of the data set
    compile: bool = bookkeeping(True)  # torch.compile the update, where there is a compiler; moves the last digits
    workers: int = bookkeeping(0, alias=["--jobs"])  # processes; 0 for one a core
    out: str = bookkeeping("runs/flow")  # folder of the runs

    def __post_init__(self) -> None:
        command_line.check_seeds(*self.seed)
        for name, known in {"source": SOURCES, "data": tuple(TARGETS)}.items():
            if not getattr(self, name) or not set(getattr(self, name)) <= set(known):
                raise ValueError(f"{name} takes {' and '.join(known)}, got {getattr(self, name)}")
        if min(self.num_layers, default=0) < 1 or self.num_iter < 1 or self.batch_size < 1 or not self.seed:
            raise ValueError("num_layers, num_iter and batch_size must be at least 1, and there must be a seed")
        if not 0 < self.lr < math.inf or self.workers < 0:
            raise ValueError("lr must be positive and workers at least 0")
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe}")


@dataclass
class Group:
    """Flows that are trained side by side: every target in every seed, with one source and depth."""

    source: str
    num_layers: int
    targets: dict[str, Target]
    seeds: list[int]
    num_iter: int
    lr: float
    batch_size: int
    compile: bool
    out: Path
    dim: int = 2
    points: dict[str, Tensor] = field(default_factory=dict)  # from samples: name to data (N, dim)
    recipe: str = "assignment"
    fresh: bool = False

    @property
    def names(self) -> list[tuple[str, int]]:
        """Target and seed of each flow, in the order of the leading dimension."""
        return [(name, seed) for name in self.targets for seed in self.seeds]


def draw(group: Group, generators: Sequence[torch.Generator], steps: int) -> Tensor:
    """Batches for some iterations, ``(steps, R, B, d)``: points of the data set, or noise."""
    batches = []
    for (name, _), generator in zip(group.names, generators, strict=True):
        if group.source == "density":
            batches.append(torch.randn(steps, group.batch_size, group.dim, generator=generator))
        elif group.fresh:
            seed = int(torch.randint(2**31, (), generator=generator))
            points = torch.from_numpy(group.targets[name].draw(seed, steps * group.batch_size))
            batches.append(points.view(steps, group.batch_size, group.dim))
        else:
            points = group.points[name]
            batches.append(points[torch.randint(len(points), (steps, group.batch_size), generator=generator)])
    # Coordinates outside, points inside in memory: the compiled loops then run over points.
    return torch.stack(batches, dim=1).transpose(-1, -2).contiguous().transpose(-1, -2)


def train_group(group: Group, workers: int = 1, progress: bool = True) -> tuple[list[Flow], dict[str, Any]]:
    """Train the flows of a group, or go on from the checkpoint in its folder.

    Returns:
        The flows, in the order of ``group.names``, and the curve of their losses with the seconds it took.
    """
    tuned = group.recipe == "tuned"
    generators = [torch.Generator().manual_seed(seed) for _, seed in group.names]
    flows = []
    for _, seed in group.names:
        torch.manual_seed(seed)
        flows.append(Flow(group.dim, group.num_layers))
        if tuned:
            natural.spread(flows[-1])
    parameters = stack(flows)
    square_averages = tuple(torch.zeros_like(parameter) for parameter in parameters)
    of_natural = natural.initial_state(parameters)
    state = checkpoint.Checkpoint(
        group.out / "checkpoint.pt",
        parameters=parameters,
        generators=generators,
        **({"natural": of_natural} if tuned else {"square_averages": square_averages}),
    )
    done = state.restore()
    step, seconds, curve = done.get("step", 0), done.get("seconds", 0.0), done.get("curve", [])

    energies = tuple(target.energy for target in group.targets.values()) if group.source == "density" else None
    steps = [torch.tensor(float(step)) for _ in parameters]
    compiled = compile_flows if group.compile and step < group.num_iter else lambda function: function
    advance = compiled(point_gradients if tuned else update)
    rates = natural.one_cycle(group.lr, group.num_iter) if tuned else torch.empty(0)  # the other recipe has one rate
    label = f"from {group.source}, k = {group.num_layers}"
    with (
        command_line.Interruption() as interruption,
        Record(group.out, step) as record,
        jobs.bar(workers, total=group.num_iter, initial=step, desc=label, unit=" updates", disable=not progress) as bar,
    ):
        while step < group.num_iter:
            if interruption.requested:
                interruption.stop(f"{group.out}: stopped at update {step}, saved")
            started = time.perf_counter()
            total = torch.zeros(len(flows))
            count = min(CHUNK, group.num_iter - step)
            for i, x in enumerate(draw(group, generators, count)):
                if tuned:
                    natural.update(parameters, of_natural, step + i, total, x, energies, rates[step + i], advance)
                else:
                    advance(parameters, square_averages, steps, total, x, energies, group.lr)
                bar.update()
            step += count
            seconds += time.perf_counter() - started
            losses = (total / count).tolist()
            if not all(map(math.isfinite, losses)):
                raise FloatingPointError(f"{group.out}, update {step}: the losses are {losses}; {state.last_good()}")
            curve.append({"step": step, "losses": losses})
            of_flow = {f"{name}/seed_{seed}": loss for (name, seed), loss in zip(group.names, losses, strict=True)}
            record.add(step, **of_flow)
            state.save(step=step, seconds=seconds, curve=curve)
    return unstack(parameters), {"seconds": seconds, "curve": curve}


def evaluate(group: Group, flows: Sequence[Flow]) -> list[dict[str, Any]]:
    """The final numbers of each flow of a group, as far as its target is known."""
    measure = score_from_samples if group.source == "samples" else score_from_density
    return [
        {"source": group.source, "data": name, "num_layers": group.num_layers, "seed": seed}
        | measure(flow, group.targets[name])
        for (name, seed), flow in zip(group.names, flows, strict=True)
    ]


def median_of(records: Sequence[dict[str, Any]]) -> int:
    """The place of the median record among those of several seeds; of an even number, the better of the middle two."""
    key = next((key for key in ("nll", "kl", "loss") if key in records[0]), None)
    if key is None:
        return 0
    order = sorted(range(len(records)), key=lambda i: records[i][key]["mean"] if key in records[i] else math.inf)
    return order[(len(records) - 1) // 2]


def draw_pictures(group: Group, flows: Sequence[Flow], records: Sequence[dict[str, Any]], out: Path) -> None:
    """One picture per target on the plane, of the flow of the median seed."""
    if group.dim != 2:
        return
    count = len(group.seeds)
    for start, (name, target) in zip(range(0, len(flows), count), group.targets.items(), strict=True):
        place = start + median_of(records[start : start + count])
        flow, seed = flows[place], records[place]["seed"]
        if group.source == "samples":
            path = out / f"learned_density_data_{name}_l{group.num_layers}.png"
            plots.learned_density(path, flow, target, group.points[name], seed)
        else:
            plots.samples(out / f"samples_{name}_l{group.num_layers}.png", flow, target, seed)


def run_group(group: Group, workers: int = 1, progress: bool = True) -> list[dict[str, Any]]:
    """Train, evaluate and draw a group; what one process does."""
    # The work of an update is too small to share: one thread is fastest, and leaves the cores to other groups.
    with one_thread():
        flows, training = train_group(group, workers, progress)
        records = evaluate(group, flows)
        draw_pictures(group, flows, records, group.out.parent)
        for i, record in enumerate(records):
            record["curve"] = [[point["step"], point["losses"][i]] for point in training["curve"]]
            record["seconds"] = training["seconds"]
            record["folder"] = group.out.name  # in the run's folder; it holds the checkpoint
        return records


def launch_experiments_from_samples(
    density_dict: Mapping[str, Any],
    num_layers_list: Sequence[int],
    dim: int = 2,
    lr: float = 5e-4,
    num_iter: int = 20_000,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train flows that map samples to noise by maximum likelihood (question 3.7).

    Writes ``learned_density_data_{name}_l{k}.png`` for each target on the plane and each depth. Called again with the
    same values it goes on where it stopped.

    Args:
        density_dict: Name to samples, an array or a tensor ``(N, dim)``; or to an energy, which then stands for the
            data set of that name, ``data_arcs`` or ``data_sine``.
        num_layers_list: Depths k.
        dim, lr, num_iter: Dimension of the points, RMSprop's step size, number of updates.
        options: ``seeds`` (1,), ``out`` (the working folder), ``batch_size`` (128), ``compile`` (True), ``workers`` (1
            process) and ``progress`` (True).

    Returns:
        Per flow its setting, held-out negative log-likelihood and gap to the entropy where that is known,
        the curve of its loss, and the folder of its checkpoint.

    Raises:
        ValueError: An energy's name is not that of a data set, or samples have another dimension.
    """
    targets, points = {}, {}
    for name, value in density_dict.items():
        if not callable(value):
            points[name] = torch.as_tensor(value)
        elif name in TARGETS:
            points[name] = TARGETS[name].data_set()
        else:
            raise ValueError(f"{name} needs samples: an energy stands for a data set only as {' or '.join(TARGETS)}")
        if points[name].ndim != 2 or points[name].shape[1] != dim:
            raise ValueError(f"the samples of {name} have shape {tuple(points[name].shape)}, not (N, {dim})")
        # What is known of a data set is known of its own points only.
        known = name in TARGETS and torch.equal(points[name].double(), TARGETS[name].data_set().double())
        targets[name] = TARGETS[name] if known else Target(name, _unknown)
    return _launch("samples", targets, num_layers_list, dim, lr, num_iter, points=points, **options)


def launch_experiments_from_density(
    density_dict: Mapping[str, Any],
    num_layers_list: Sequence[int],
    dim: int = 2,
    lr: float = 5e-4,
    num_iter: int = 20_000,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train flows that map noise to a target density by minimising the divergence (question 3.9).

    Writes ``samples_{name}_l{k}.png`` for each target on the plane and each depth. Called again with the same values
    it goes on where it stopped.

    Args:
        density_dict: Name to energy, a function of points ``(N, dim)`` that returns ``(N,)``.
        num_layers_list, dim, lr, num_iter, options: As for :func:`launch_experiments_from_samples`.

    Returns:
        Per flow its setting, loss, divergence from the target where that is known, the curve of its loss, and the
        folder of its checkpoint.

    Raises:
        ValueError: A target is no energy.
    """
    if data := [name for name, value in density_dict.items() if not callable(value)]:
        raise ValueError(f"{', '.join(data)}: a density is learnt from an energy, a function of points")
    # What is known of a target is known of its own energy only.
    known = {name: target for name, target in TARGETS.items() if target.energy is density_dict.get(name)}
    targets = {name: known.get(name, Target(name, energy)) for name, energy in density_dict.items()}
    return _launch("density", targets, num_layers_list, dim, lr, num_iter, **options)


def _unknown(z: Tensor) -> Tensor:
    raise ValueError("samples came without an energy")


def _launch(
    source: str,
    targets: dict[str, Target],
    num_layers_list: Sequence[int],
    dim: int,
    lr: float,
    num_iter: int,
    points: dict[str, Tensor] | None = None,
    seeds: Sequence[int] = (1,),
    out: str | Path = ".",
    batch_size: int = 128,
    compile: bool = True,
    workers: int = 1,
    progress: bool = True,
) -> list[dict[str, Any]]:
    seeds = list(dict.fromkeys(seeds))
    setting = (targets, seeds, num_iter, lr, batch_size, compile)
    # A folder for each setting: a second call with another one must not find the flows of the first.
    fixed_points = torch.randn(100, dim, generator=torch.Generator().manual_seed(0))
    learnt = points or {name: target.energy(fixed_points) for name, target in targets.items()}
    mark = checkpoint.digest([learnt, seeds, num_iter, lr, batch_size])[:8]
    groups = [
        Group(source, k, *setting, Path(out) / f"from_{source}_l{k}_{mark}", dim, points or {}) for k in num_layers_list
    ]
    return run_groups(groups, workers, progress)


def run_groups(groups: Sequence[Group], workers: int, progress: bool = True) -> list[dict[str, Any]]:
    """Run groups one after the other, or several at once in processes of their own."""
    if workers == 1 or len(groups) == 1:
        return [record for group in groups for record in run_group(group, progress=progress)]
    # The deepest flows take longest: started first, they do not keep the others waiting at the end.
    order = sorted(range(len(groups)), key=lambda i: -groups[i].num_layers)
    with jobs.pool(min(workers, len(groups))) as pool:
        futures = {i: pool.submit(run_group, groups[i], workers, progress) for i in order}
        return [record for i in range(len(groups)) for record in futures[i].result()]


def run(options: Hyperparameters, progress: bool = True) -> dict[str, Any]:
    """Everything that the command line asks for; writes ``result.json`` and the pictures.

    Raises:
        ValueError: The folder holds another configuration's run.
    """
    with checkpoint.claimed(options.out, options):
        return _run(options, progress)


def _run(options: Hyperparameters, progress: bool) -> dict[str, Any]:
    started = time.perf_counter()
    groups = []
    for source in options.source:
        targets = {name: TARGETS[name] for name in options.data}
        points = {name: target.data_set() for name, target in targets.items()} if source == "samples" else {}
        seeds = list(dict.fromkeys(options.seed))
        of_recipe: dict[str, Any] = {"recipe": options.recipe, "fresh": options.fresh}
        setting = (targets, seeds, options.num_iter, options.lr, options.batch_size, options.compile)
        groups += [
            Group(source, k, *setting, Path(options.out) / f"from_{source}_l{k}", points=points, **of_recipe)
            for k in options.num_layers
        ]
    records = run_groups(groups, options.workers or min(os.cpu_count() or 1, len(groups)), progress)
    result = {"runs": records, "wall_seconds": time.perf_counter() - started}
    checkpoint.write_json(Path(options.out) / "result.json", result)
    return result


def report(result: dict[str, Any]) -> str:
    """The numbers of each flow, a line each."""
    lines = [f"{'from':8} {'data':5} {'k':>3} {'seed':>5}  result in nats, ± standard error"]
    for record in result["runs"]:
        key = next((key for key in ("nll", "kl", "loss") if key in record), None)
        text = f"{key} {record[key]['mean']:.4f} ± {record[key]['standard_error']:.4f}" if key else "not available"
        gap = f", gap to the entropy {record['gap']:.4f}" if "gap" in record else ""
        lines.append(
            f"{record['source']:8} {record['data']:5} {record['num_layers']:3} {record['seed']:5}  {text}{gap}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Hyperparameters, "Train planar flows on the arcs and the sine.", argv)
    with command_line.one_line_errors():
        result = run(options)
        print(report(result))
        print(f"{len(result['runs'])} flows in {result['wall_seconds']:.0f} s; everything is in {options.out}")


if __name__ == "__main__":
    main()
