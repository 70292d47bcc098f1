"""Planar flows from samples and from densities (questions 3.7 and 3.9), many at a time.

    python train.py --from samples density --targets arcs sine --num_layers 2 8 32 --seed 1 2 3 --out runs/flow

Flows of the same depth and source are trained side by side, as ``stacked_flows.py`` does an update of them. Nothing is
shared between them: each flow has its own seed, batches and optimiser state, and is the flow that it would be alone.
"""

from lab import interruption

# isort: split
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data.densities import TARGETS, Target
from lab import jobs
from lab.checkpoint import Checkpoint
from lab.claim import claim
from lab.device import one_thread, usable_cores, warn_if_busy
from lab.files import fingerprint, write_json
from lab.options import InputError, check, determining, option, parse
from lab.record import Record
from question3 import natural, stacked_flows
from question3.scores import score_from_density, score_from_samples
from solution import Flow

CHUNK = 1000  # iterations between two checkpoints, for which batches are drawn ahead
COMPILE_FROM = 5000  # updates: in shorter runs, compiling would cost more time than it saves


@dataclass
class Hyperparameters:
    """The runs. The defaults are the assignment's."""

    # what a flow learns from: samples of the target, or its density
    source: list[Literal["samples", "density"]] = option(
        default_factory=lambda: ["samples", "density"], alias=["--from"], type=str
    )
    targets: list[str] = field(default_factory=lambda: list(TARGETS))  # densities to learn
    num_layers: list[int] = option(default_factory=lambda: [2, 8, 32], at_least=1)  # numbers k of planar layers
    num_iter: int = option(20_000, at_least=1)  # updates
    lr: float = option(5e-4, above=0)  # RMSprop's step size; the natural gradient's peak, where 0.1 is about right
    # assignment: RMSprop; tuned: natural gradient, one-cycle step size, from layers whose hyperplanes are spread
    recipe: Literal["assignment", "tuned"] = "assignment"
    batch_size: int = option(128, at_least=1)  # points per update
    seed: list[int] = option(default_factory=lambda: [1], at_least=0)  # a flow for each: initial values and batches
    fresh: bool = False  # from samples: new points of the target in every batch, in place of the data set
    # torch.compile the update of long runs, where there is a compiler; moves the last digits
    compile: bool = option(True, bookkeeping=True)
    workers: int = option(0, bookkeeping=True, alias=["--jobs"], at_least=0)  # processes; 0 for one a core
    out: str = option("runs/flow", bookkeeping=True)  # folder of the runs

    def __post_init__(self) -> None:
        check(self)
        if not set(self.targets) <= set(TARGETS):
            raise InputError(f"no targets {self.targets}: there are {', '.join(TARGETS)}; README says how to add one")
        self.seed = list(dict.fromkeys(self.seed))


@dataclass
class Group:
    """Flows that are trained side by side: every target in every seed, with one source and depth."""

    source: str
    num_layers: int
    targets: dict[str, Target]
    options: Hyperparameters
    dim: int = 2
    launched: bool = False  # from a notebook, where a second call with another setting must not find these flows

    @property
    def names(self) -> list[tuple[str, int]]:
        """Target and seed of each flow, in the order of the leading dimension."""
        return [(name, seed) for name in self.targets for seed in self.options.seed]

    @property
    def label(self) -> str:
        """The group's name, and that of its folder. That of a launched group names its setting too."""
        name = f"from_{self.source}_l{self.num_layers}"
        return f"{name}_{fingerprint(self.origin(), self.options.num_iter)[:8]}" if self.launched else name

    @property
    def out(self) -> Path:
        """The group's folder."""
        return Path(self.options.out) / self.label

    def origin(self) -> dict[str, Any]:
        """What the numbers of the flows depend on: options, and points or energies."""
        fixed = torch.randn(100, self.dim, generator=torch.Generator().manual_seed(0))
        learned = [t.data_set() if self.source == "samples" else t.energy(fixed) for t in self.targets.values()]
        left_out = {"source", "targets", *may_grow(self.options)}
        values = {key: value for key, value in determining(self.options).items() if key not in left_out}
        return {**values, "source": self.source, "num_layers": self.num_layers, "targets": fingerprint(*learned)}


def may_grow(options: Hyperparameters) -> tuple[str, ...]:
    """What a later start may ask more of: updates, where the step size does not depend on their number."""
    return ("num_iter",) if options.recipe == "assignment" else ()


def draw(group: Group, generators: Sequence[torch.Generator], steps: int) -> Tensor:
    """Batches for some iterations, ``(steps, R, B, d)``: points of the data set, or noise."""
    batches, size = [], group.options.batch_size
    for (name, _), generator in zip(group.names, generators, strict=True):
        if group.source == "density":
            batches.append(torch.randn(steps, size, group.dim, generator=generator))
        elif group.options.fresh:
            seed = int(torch.randint(2**31, (), generator=generator))
            points = torch.from_numpy(group.targets[name].draw(seed, steps * size))
            batches.append(points.view(steps, size, group.dim))
        else:
            points = group.targets[name].data_set()
            batches.append(points[torch.randint(len(points), (steps, size), generator=generator)])
    # Coordinates outside, points inside in memory: the compiled loops then run over points.
    return torch.stack(batches, dim=1).transpose(-1, -2).contiguous().transpose(-1, -2)


def train_group(group: Group, workers: int = 1, progress: bool = True) -> tuple[list[Flow], list[dict[str, Any]]]:
    """Train the flows of a group, or resume from the checkpoint in its folder.

    Returns the flows in the order of ``group.names``, and the lines of their mean losses.
    """
    options = group.options
    generators = [torch.Generator().manual_seed(seed) for _, seed in group.names]
    flows = []
    for _, seed in group.names:
        torch.manual_seed(seed)
        flows.append(Flow(group.dim, group.num_layers))
        if options.recipe == "tuned":
            natural.spread(flows[-1])
    parameters = stacked_flows.stack(flows)
    energies = tuple(target.energy for target in group.targets.values()) if group.source == "density" else None
    updater: Any = stacked_flows.RMSprop(parameters, energies, options.lr)
    if options.recipe == "tuned":
        updater = natural.NaturalGradient(parameters, energies, natural.one_cycle(options.lr, options.num_iter))
    parts = {"parameters": parameters, "generators": generators, "updater": updater.state}
    state = Checkpoint(group.out / "checkpoint.pt", group.origin(), **parts)
    done = state.restore()
    step, lines = done.get("step", 0), done.get("lines", [])
    if options.compile and options.num_iter - step >= COMPILE_FROM:
        updater.function = stacked_flows.compile_flows(updater.function)

    label = f"from {group.source}, k = {group.num_layers}"
    shown = {"total": options.num_iter, "initial": step, "desc": label, "unit": "update", "disable": not progress}
    with (
        interruption.Interruption("up to a thousand updates") as stop,
        Record(group.out, lines) as record,
        jobs.bar(workers, **shown) as bar,
    ):
        while step < options.num_iter:
            if stop.requested:
                stop.stop(f"{group.out}: stopped at update {step}, saved")
            total = torch.zeros(len(flows))
            count = min(CHUNK, options.num_iter - step)
            for i, x in enumerate(draw(group, generators, count)):
                updater.update(step + i, x, total)
                bar.update()
            step += count
            losses = (total / count).tolist()
            if not all(map(math.isfinite, losses)):
                raise FloatingPointError(f"{group.out}, update {step}: the losses are {losses}; {state.last_good()}")
            record.add(step, **{f"{name}/seed_{seed}": x for (name, seed), x in zip(group.names, losses, strict=True)})
            state.save(step=step, lines=record.lines)
        if stop.requested:
            stop.stop(f"{group.out}: trained, saved")
    return stacked_flows.unstack(parameters), record.lines


def score(record: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """Name, mean and standard error of the first that is known of a flow: NLL, divergence, loss, NLL of its data."""
    return next((key, record[key]) for key in ("nll", "kl", "loss", "train_nll") if key in record)


def median_of(records: Sequence[dict[str, Any]]) -> int:
    """The place of the median record among those of several seeds; of an even number, the better of the middle two."""
    order = sorted(range(len(records)), key=lambda i: score(records[i])[1]["mean"])
    return order[(len(records) - 1) // 2]


def draw_pictures(group: Group, flows: Sequence[Flow], records: Sequence[dict[str, Any]]) -> None:
    """One picture per target on the plane, of the flow of the median seed."""
    from question3 import plots  # drawing libraries take seconds to import

    count = len(group.options.seed)
    stem = "learned_density_data" if group.source == "samples" else "samples"
    for start, (name, target) in zip(range(0, len(flows), count), group.targets.items(), strict=True):
        place = start + median_of(records[start : start + count])
        path = group.out.parent / f"{stem}_{name}_l{group.num_layers}.png"
        plots.over_depth(path, target, group.source, [(records[place]["seed"], flows[place])])


def run_group(group: Group, workers: int = 1, progress: bool = True) -> list[dict[str, Any]]:
    """Train, evaluate and draw a group: the work of one process."""
    group.out.mkdir(parents=True, exist_ok=True)
    score_flow = score_from_samples if group.source == "samples" else score_from_density
    # The work of an update is too small to share: one thread is fastest, and leaves the cores to other groups.
    with one_thread():
        flows, lines = train_group(group, workers, progress)
        records = [
            {
                "source": group.source,
                "data": name,
                "num_layers": group.num_layers,
                "seed": seed,
                **score_flow(flow, group.targets[name]),
                "curve": [[line["step"], line[f"{name}/seed_{seed}"]] for line in lines],
                "folder": group.out.name,  # in the run's folder; it holds the checkpoint
            }
            for (name, seed), flow in zip(group.names, flows, strict=True)
        ]
        if group.dim == 2:
            draw_pictures(group, flows, records)
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

    Writes ``learned_density_data_{name}_l{k}.png`` for each target on the plane and each depth. The same call resumes.

    Args:
        density_dict: Name to samples, an array or a tensor ``(N, dim)``; or to an energy, which stands for the data set
            of that name, ``data_arcs`` or ``data_sine``.
        num_layers_list, dim, lr, num_iter: Depths k, dimension of the points, RMSprop's step size, number of updates.
        options: ``seeds`` (1,), ``out`` (the working folder), ``workers`` (1 process), ``progress`` (True), and fields
            of :class:`Hyperparameters`.

    Returns:
        Per flow its setting, held-out negative log-likelihood and gap to the entropy where that is known, the curve of
        its loss, and the folder of its checkpoint. For your own points there is ``train_nll`` instead, on these points.
    """
    targets = {}
    for name, value in density_dict.items():
        if callable(value) and name not in TARGETS:
            raise InputError(f"{name} needs samples: an energy stands for a data set only as {' or '.join(TARGETS)}")
        points = TARGETS[name].data_set() if callable(value) else torch.as_tensor(value)
        if points.ndim != 2 or points.shape[1] != dim:
            raise InputError(f"the samples of {name} have shape {tuple(points.shape)}, not (N, {dim})")
        # What is known of a data set is known of its own points only.
        known = name in TARGETS and torch.equal(points.double(), TARGETS[name].data_set().double())
        targets[name] = TARGETS[name] if known else Target(name, _unknown, points=points)
    return _launch("samples", targets, num_layers_list, dim, num_iter=num_iter, lr=lr, **options)


def launch_experiments_from_density(
    density_dict: Mapping[str, Any],
    num_layers_list: Sequence[int],
    dim: int = 2,
    lr: float = 5e-4,
    num_iter: int = 20_000,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train flows that map noise to a target density by minimising the divergence (question 3.9).

    As :func:`launch_experiments_from_samples`, but ``density_dict`` maps each name to an energy, a function of points
    ``(N, dim)`` that returns ``(N,)``; pictures are ``samples_{name}_l{k}.png``; each flow has its loss, and its
    divergence from the target where that is known.
    """
    if data := [name for name, value in density_dict.items() if not callable(value)]:
        raise InputError(f"{', '.join(data)}: a density is learnt from an energy, a function of points")
    # What is known of a target is known of its own energy only.
    known = {name: target for name, target in TARGETS.items() if target.energy is density_dict.get(name)}
    targets = {name: known.get(name, Target(name, energy)) for name, energy in density_dict.items()}
    return _launch("density", targets, num_layers_list, dim, num_iter=num_iter, lr=lr, **options)


def _unknown(z: Tensor) -> Tensor:
    raise InputError("samples came without an energy")


def _launch(
    source: str,
    targets: dict[str, Target],
    num_layers_list: Sequence[int],
    dim: int,
    seeds: Sequence[int] = (1,),
    out: str | Path = ".",
    workers: int = 1,
    progress: bool = True,
    **options: Any,
) -> list[dict[str, Any]]:
    hyperparameters = Hyperparameters(seed=list(seeds), out=str(out), **options)
    groups = [Group(source, k, targets, hyperparameters, dim, launched=True) for k in num_layers_list]
    return run_groups(groups, workers, progress)


def run_groups(groups: Sequence[Group], workers: int, progress: bool = True) -> list[dict[str, Any]]:
    """Run groups one after the other, or several at once in processes of their own."""
    workers = min(workers, len(groups))
    if workers == 1:
        return [record for group in groups for record in run_group(group, progress=progress)]
    # The deepest flows take longest: started first, they do not keep the others waiting at the end.
    order = sorted(groups, key=lambda group: -group.num_layers)
    calls = {group.label: (group, workers, progress) for group in order}
    results = jobs.run_in_processes(run_group, calls, workers)
    return [record for group in groups for record in results[group.label]]


def run(options: Hyperparameters, progress: bool = True) -> dict[str, Any]:
    """Train, score and draw what the options ask for; write ``result.json`` and the pictures."""
    groups = []
    for source in options.source:
        targets = {}
        for name in options.targets:
            if source == "samples" and TARGETS[name].sampler is None:
                print(f"{name} has no sampler: nothing to learn from samples")
            else:
                targets[name] = TARGETS[name]
        groups += [Group(source, k, targets, options) for k in options.num_layers if targets]
    if not groups:
        raise InputError("there is nothing to learn")
    warn_if_busy()
    with claim(options.out, options, may_grow=may_grow(options)):
        started = time.perf_counter()
        records = run_groups(groups, options.workers or usable_cores(), progress)
        result = {"runs": records, "wall_seconds": time.perf_counter() - started}
        write_json(Path(options.out) / "result.json", result)
        return result


def report(result: dict[str, Any]) -> str:
    """The numbers of each flow, a line each."""
    lines = [f"{'from':8} {'data':5} {'k':>3} {'seed':>5}  result in nats, ± standard error"]
    for record in result["runs"]:
        setting = f"{record['source']:8} {record['data']:5} {record['num_layers']:3} {record['seed']:5}"
        key, value = score(record)
        text = f"{key} {value['mean']:.4f} ± {value['standard_error']:.4f}"
        text += " (the divergence less log Z, which is unknown)" if key == "loss" else ""
        gap = f", gap to the entropy {record['gap']:.4f}" if "gap" in record else ""
        lines.append(f"{setting}  {text}{gap}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(
        Hyperparameters, "Train planar flows from samples and from densities (questions 3.7 and 3.9).", argv
    )
    with interruption.one_line_errors():
        result = run(options)
        print(report(result))
        print(f"{len(result['runs'])} flows in {result['wall_seconds']:.0f} s; everything is in {options.out}")


if __name__ == "__main__":
    main()
