"""The configurations of question 2: hyper-parameters, what manages a run, the names of ``run_exp.py``, and runs."""

import contextlib
import dataclasses
import fnmatch
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import data
from dirac import Game
from lab.claim import claim
from lab.files import read_json
from lab.options import InputError, check, option


def _optional(kind: type) -> Callable[[str], Any]:
    return lambda text: None if text.lower() == "none" else kind(text)


@dataclass
class Hyperparameters:
    """What a run's numbers depend on. A configuration's name sets them; any can be overridden."""

    task: Literal["CIFAR10", "dirac"] = option("CIFAR10", cmd=False)  # images, or the dirac game
    batch_size: int = option(64, at_least=1)  # images: per batch
    # of networks, batches and noise, or of the dirac game's starting points
    seed: int = option(31415, at_least=0, cmd=False)
    dirac_target: float = 0.0  # dirac game: the real point
    games: int = option(8, at_least=1)  # dirac game: starting points, of which one game each is played
    generator_dimz: int = option(100, at_least=1)  # images: size of the noise vector
    generator_dimh: int = option(128, at_least=1)  # images: width of the generator, in channels
    # α of the generator's moving average, which after each update is α · average + (1 - α) · generator; or none
    generator_alpha_ema: float | None = option(0.998, above=0, below=1, type=_optional(float), metavar="{number,none}")
    critic_dimh: int = option(128, at_least=1)  # images: width of the critic, in channels
    # images: spectral normalisation, which divides the critic's weights by their largest singular value
    critic_use_sn: bool = False
    optimizer: Literal["Adam", "SGD"] = "Adam"  # of both players
    generator_lr: float = option(2e-4, above=0)  # step size
    # Adam's decay rates of gradient and squared gradient
    generator_betas: tuple[float, float] = option((0.0, 0.99), at_least=0, below=1)
    generator_wd: float = option(0.0, at_least=0)  # weight decay, an L2 term in the gradient
    critic_lr: float = option(4e-4, above=0)  # step size
    critic_betas: tuple[float, float] = option((0.0, 0.99), at_least=0, below=1)
    critic_wd: float = option(1e-6, at_least=0)  # weight decay, an L2 term in the gradient
    loss_type: Literal["JSD", "W1"] = "JSD"  # what the critic maximises and the generator minimises
    # penalty on the critic's gradient: around 1 between the data (GP), around 0 at real data (R1), or none
    critic_reg_type: Literal["GP", "R1"] | None = option(None, type=_optional(str), metavar="{GP,R1,none}")
    critic_reg_cf: float = option(0.1, above=0)  # weight of the penalty
    critic_inner_iters: int = option(2, at_least=1)  # critic updates for each generator update
    max_iters: int = option(100_000, at_least=1)  # generator updates

    def __post_init__(self) -> None:
        check(self)
        for name in ("generator_betas", "critic_betas"):
            setattr(self, name, tuple(map(float, getattr(self, name))))  # torch's Adam refuses (0, 0.99)
            if len(getattr(self, name)) != 2:
                raise InputError(f"{name} must be two numbers, got {getattr(self, name)}")

    @property
    def game(self) -> Game:
        """The dirac game with these hyper-parameters."""
        theirs = {"alpha_ema": "generator_alpha_ema", "target": "dirac_target"}
        theirs |= {name: f"critic_{name}" for name in ("reg_type", "reg_cf")}
        return Game(**{f.name: getattr(self, theirs.get(f.name, f.name)) for f in dataclasses.fields(Game)})


@dataclass
class Management:
    """Where and how runs are done, and what scores images."""

    exp_path: str = option("runs/gan", bookkeeping=True, alias=["--out"])  # folder of the runs; each gets NAME-SEED
    exp_name: str = option("", bookkeeping=True)  # NAME of a run's folder; left empty, the configuration's
    # folder of the data sets
    data_path: str = option(default_factory=data.default_root, bookkeeping=True, alias=["--data"])
    # images: cifar10, digits (a stand-in that needs no download), auto (the first to be had), or a folder of images
    dataset: str = "auto"
    log_every: int = option(500, at_least=1)  # updates between two lines of metrics
    eval_every: int = option(2000, at_least=1)  # updates between two evaluations
    checkpoint_minutes: float = option(1.0, bookkeeping=True, at_least=0)  # minutes between two checkpoints, at least
    # minutes after which to stop; the same command resumes. 0 for no limit
    max_minutes: float = option(0.0, bookkeeping=True, at_least=0)
    device: str = option("auto", bookkeeping=True)  # auto, cpu, cuda, cuda:1, ...; moves the last digits
    # channels last, fused Adam, bfloat16 where it is native, and on CUDA graphs (auto, yes), or the plain loop (no)
    fast: Literal["auto", "yes", "no"] = "auto"
    workers: int = option(0, bookkeeping=True, at_least=0)  # processes for dirac games; 0 for one a core
    viz: bool = option(True, bookkeeping=True)  # draw the dirac games' plots
    # inception (IS and FID), classifier (IS-C and FID-C, which need no download), none, or auto (the first to be had)
    scores: Literal["auto", "inception", "classifier", "none"] = "auto"
    # file of Inception's weights; left empty, torch's cache, or a download
    inception_weights: str = option("", bookkeeping=True)
    fid_reference: Literal["train", "test"] = "train"  # the real images of the FID
    eval_samples: int = option(10_000, at_least=10)  # generated images of an evaluation
    final_samples: int = option(50_000, at_least=10)  # generated images of the last one

    def __post_init__(self) -> None:
        check(self)


_DIRAC = Hyperparameters(
    task="dirac", optimizer="SGD", generator_lr=0.1, critic_lr=0.1, critic_wd=0.0, critic_inner_iters=1, max_iters=5000
)
_PENALTIES: list[tuple[Any, float]] = [(None, 0.1), ("R1", 0.01), ("R1", 0.1), ("GP", 0.01), ("GP", 0.1)]
CONFIGURATIONS = {
    f"dirac-{loss.lower()}-{i}": dataclasses.replace(
        _DIRAC, loss_type=loss, generator_alpha_ema=alpha, critic_reg_type=penalty, critic_reg_cf=weight
    )
    for loss in ("JSD", "W1")
    for i, (alpha, (penalty, weight)) in enumerate(itertools.product((None, 0.998), _PENALTIES), start=1)
} | {
    "cifar10-jsd-1": Hyperparameters(),
    "cifar10-jsd-2": Hyperparameters(critic_use_sn=True),
    "cifar10-w1-2": Hyperparameters(loss_type="W1", critic_use_sn=True),
    "cifar10-jsd-3": Hyperparameters(critic_reg_type="R1", critic_reg_cf=1.0),
    "cifar10-w1-3": Hyperparameters(loss_type="W1", critic_reg_type="R1", critic_reg_cf=1.0),
}


def matching(pattern: str) -> list[str]:
    """The names of configurations that a name or pattern stands for; at least one.

    Example:
        >>> matching("cifar10-w1-*")
        ['cifar10-w1-2', 'cifar10-w1-3']
    """
    names = [name for name in CONFIGURATIONS if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise InputError(f"no configuration {pattern!r}: --list shows their names")
    return names


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

    def claim(self) -> contextlib.AbstractContextManager[None]:
        """Reserve the folder for this run, as :func:`lab.claim.claim` does."""
        return claim(self.folder, self.management, self.hp, may_grow=["max_iters"], config=self.name)


def plan(pattern: str, seeds: Sequence[int] = (), management: Management | None = None, **overrides: Any) -> list[Run]:
    """The runs of some configurations, seed by seed, so that a study that is cut short has each configuration.

    Args:
        pattern: A configuration's name, or a pattern such as ``cifar10-*``.
        seeds: One run of each configuration for each of them; none for the configuration's own.
        management: Where and how; None for the defaults.
        overrides: Hyper-parameters with other values than the configurations'.

    Example:
        >>> [run.label for run in plan("dirac-w1-[12]", seeds=[7], max_iters=100)]
        ['dirac-w1-1-7', 'dirac-w1-2-7']
    """
    management = management or Management()
    configurations = {name: dataclasses.replace(CONFIGURATIONS[name], **overrides) for name in matching(pattern)}
    if management.exp_name and len(configurations) > 1:
        raise InputError(f"exp_name names the folder of one configuration, and {pattern} means {len(configurations)}")
    changes_by_seed: list[dict[str, Any]] = [{"seed": seed} for seed in dict.fromkeys(seeds)] or [{}]
    return [
        Run(name, dataclasses.replace(hp, **changes), management)
        for changes in changes_by_seed
        for name, hp in configurations.items()
    ]


RESULTS = Path(__file__).parent.parent / "report" / "results"  # of the published experiments
T4 = 8.1e12  # operations a second of an NVIDIA T4 in float32, at its peak, says its data sheet
LEGEND = """\
loss: Jensen-Shannon divergence or Wasserstein distance. penalty: on the critic's gradient, with its weight, GP around
1 between the data, R1 around 0 at real data. EMA: the share that a moving average of the generator keeps. updates: of
the generator. 2 cores: the time that we measured, for images without evaluations. T4: the least that this GPU needs,
from the number of operations. In less time: --generator_dimh 32 --critic_dimh 32 --max_iters 10000, {} minutes
on the two cores."""


def table(pattern: str = "*") -> str:
    """The configurations of a pattern, a line each, by what sets them apart and by their time; the columns' meaning."""
    speed, games = (read_json(RESULTS / f"{name}.json") or {} for name in ("gan_speed", "dirac"))
    lines = [f"{'name':14} {'loss':5} {'penalty':8} {'spectral norm':14} {'EMA':6} {'updates':8} {'2 cores':8} T4"]
    for name in matching(pattern):
        c = CONFIGURATIONS[name]
        penalty = f"{c.critic_reg_type} {c.critic_reg_cf:g}" if c.critic_reg_type else "-"
        sn = "yes" if c.critic_use_sn else "-"
        cores, gpu = f"{games['seconds'] / len(games['rows']):.0f} s", "-"
        if c.task == "CIFAR10":
            kind = "JSD, R1" if c.critic_reg_type else "JSD, spectral norm" if c.critic_use_sn else "JSD"
            full = speed["kinds"][kind]["full"]
            cores = f"{c.max_iters * full['milliseconds'] / 3.6e6:.0f} h"
            gpu = f"{c.max_iters * full['operations'] / T4 / 3600:.1f} h"
        lines.append(
            f"{name:14} {c.loss_type:5} {penalty:8} {sn:14} {c.generator_alpha_ema or '-':<6} {c.max_iters:<8}"
            f" {cores:8} {gpu}"
        )
    minutes = [kind["median"]["fast"] * 10_000 / 60_000 for kind in speed["kinds"].values()]
    return "\n".join([*lines, LEGEND.format(f"{min(minutes):.0f} to {max(minutes):.0f}")])
