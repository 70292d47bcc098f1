"""The configurations of question 2: hyper-parameters, what manages a run, and the names of ``run_exp.py``."""

import dataclasses
import fnmatch
import math
from dataclasses import dataclass

from simple_parsing import field

import data
from gan import AVAILABLE_LOSSES, AVAILABLE_REGULARIZERS
from question2.dirac_theory import Game


def _optional_name(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _optional_number(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


@dataclass
class Hyperparameters:
    """What a run's numbers depend on. A configuration's name sets them; any can be overridden."""

    task: str = field(default="CIFAR10", cmd=False)  # CIFAR10 (images) or DIRAC, set by the configuration
    seed: int = field(default=31415, cmd=False)  # one run for each of the seeds that are asked for
    batch_size: int = 64  # images per update
    dimz: int = 100  # size of the noise vector
    generator_dimh: int = 128  # width of the generator
    critic_dimh: int = 128  # width of the critic
    spectral_norm: bool = False  # divide the critic's weights by their largest singular values
    loss_type: str = "JSD"  # JSD or W1
    reg_type: str | None = field(default=None, type=_optional_name)  # penalty on the critic's gradient: R1, GP or none
    reg_cf: float = 0.1  # weight of the penalty
    critic_inner_iters: int = 2  # critic updates per generator update
    alpha_ema: float | None = field(default=0.998, type=_optional_number)  # share of the average that stays; none
    generator_lr: float = 2e-4  # step size
    critic_lr: float = 4e-4  # step size
    beta1: float = 0.0  # Adam's, of both players
    beta2: float = 0.99  # Adam's, of both players
    generator_wd: float = 0.0  # weight decay
    critic_wd: float = 1e-6  # weight decay
    max_iters: int = 100_000  # generator updates
    dirac_target: float = 0.0  # the real point of the dirac game
    games: int = 8  # starting points of the dirac game

    def __post_init__(self) -> None:
        if self.loss_type not in AVAILABLE_LOSSES:
            raise ValueError(f"loss_type must be one of {', '.join(AVAILABLE_LOSSES)}, got {self.loss_type}")
        if self.reg_type not in AVAILABLE_REGULARIZERS:
            raise ValueError(f"reg_type must be GP, R1 or none, got {self.reg_type}")
        for name in ["batch_size", "dimz", "generator_dimh", "critic_dimh", "critic_inner_iters", "max_iters", "games"]:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("generator_lr", "critic_lr", "reg_cf"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("generator_wd", "critic_wd"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.alpha_ema is not None and not 0 < self.alpha_ema < 1:
            raise ValueError(f"alpha_ema must be in (0, 1) or none, got {self.alpha_ema}")
        if not math.isfinite(self.dirac_target):
            raise ValueError(f"dirac_target must be finite, got {self.dirac_target}")

    @property
    def game(self) -> Game:
        """The dirac game with these hyper-parameters."""
        return Game(
            self.loss_type,
            self.reg_type,
            self.reg_cf,
            self.alpha_ema,
            self.dirac_target,
            self.generator_lr,
            self.critic_lr,
            self.critic_wd,
            self.generator_wd,
            self.critic_inner_iters,
        )


PARTS = ("train", "test")
# What may differ between two starts of the same run, because no number depends on it.
UNIMPORTANT = (
    "data",
    "out",
    "list",
    "summary",
    "jobs",
    "animate",
    "checkpoint_minutes",
    "max_minutes",
    "inception_weights",
)


@dataclass
class Management:
    """Where and how runs are done; no number depends on it, but on the data set and on --fast."""

    config: str = ""  # a configuration's name or a pattern, such as 'cifar10-*'
    seed: list[int] = dataclasses.field(default_factory=lambda: [31415])  # one run each: put your matricule number here
    out: str = "runs/gan"  # folder of the runs; each gets CONFIGURATION-SEED in it
    # of the image runs: cifar10, digits (a stand-in that needs no download), auto, or a folder of images of your own
    dataset: str = field(default="auto", alias=["--data_path"])
    data: str = field(default_factory=data.default_root)  # folder where data sets lie or are put
    log_every: int = 500  # updates between two lines of metrics
    eval_every: int = 2000  # updates between two evaluations
    checkpoint_minutes: float = 1.0  # at least so long between two checkpoints
    scores: str = "auto"  # inception (IS, FID), classifier (IS-C, FID-C), none, or auto
    inception_weights: str = ""  # the weights' file; left empty, torch's cache, and a download if they are not there
    fid_reference: str = "train"  # the real images of the FID: train or test
    eval_samples: int = 10_000  # generated images of an evaluation
    final_samples: int = 50_000  # generated images of the last one
    max_minutes: float = 0.0  # stop cleanly after so long; the same command goes on. 0 for no limit
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    fast: str = "auto"  # bfloat16, channels last, fused Adam and, on CUDA, graphs: yes, no, or auto (yes on CUDA)
    jobs: int = 0  # processes for dirac runs; 0 takes one per core
    animate: bool = False  # dirac runs: an animation too
    summary: bool = False  # a table of the finished runs in --out: mean and spread over seeds
    list: bool = False  # print the configurations and stop

    def __post_init__(self) -> None:
        if self.fast not in ("auto", "yes", "no"):
            raise ValueError(f"fast must be auto, yes or no, got {self.fast}")
        if min(self.log_every, self.eval_every) < 1 or self.jobs < 0 or self.checkpoint_minutes < 0:
            raise ValueError("log_every and eval_every must be at least 1, jobs and checkpoint_minutes at least 0")
        if not self.seed:
            raise ValueError("seed needs at least one number")
        for name, choices in {"scores": ("auto", "inception", "classifier", "none"), "fid_reference": PARTS}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)}")
        if min(self.eval_samples, self.final_samples) < 10 or self.max_minutes < 0:
            raise ValueError("eval_samples and final_samples must be at least 10, max_minutes at least 0")


def _dirac(**changes: object) -> Hyperparameters:
    return Hyperparameters(
        task="DIRAC",
        generator_lr=0.1,
        critic_lr=0.1,
        critic_wd=0.0,
        critic_inner_iters=1,
        max_iters=5000,
        **changes,  # type: ignore[arg-type]
    )


PENALTIES = [{}, *({"reg_type": reg, "reg_cf": cf} for reg in ("R1", "GP") for cf in (0.01, 0.1))]
CONFIGURATIONS: dict[str, Hyperparameters] = {
    f"dirac-{loss.lower()}-{i}": _dirac(loss_type=loss, alpha_ema=alpha, **penalty)
    for loss in AVAILABLE_LOSSES
    for i, (alpha, penalty) in enumerate(((a, p) for a in (None, 0.998) for p in PENALTIES), start=1)
} | {
    "cifar10-jsd-1": Hyperparameters(),
    "cifar10-jsd-2": Hyperparameters(spectral_norm=True),
    "cifar10-w1-2": Hyperparameters(loss_type="W1", spectral_norm=True),
    "cifar10-jsd-3": Hyperparameters(reg_type="R1", reg_cf=1.0),
    "cifar10-w1-3": Hyperparameters(loss_type="W1", reg_type="R1", reg_cf=1.0),
}


def matching(pattern: str) -> list[str]:
    """The names of configurations that a name or pattern stands for.

    Raises:
        ValueError: There is none.

    Example:
        >>> matching("cifar10-w1-*")
        ['cifar10-w1-2', 'cifar10-w1-3']
    """
    names = [name for name in CONFIGURATIONS if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"no configuration {pattern!r}: --list shows their names")
    return names


def table() -> str:
    """The configurations, a line each, by what sets them apart."""
    lines = [f"{'name':14} {'loss':5} {'penalty':9} {'spectral norm':14} {'EMA':6} updates"]
    for name, c in CONFIGURATIONS.items():
        penalty = f"{c.reg_type} {c.reg_cf:g}" if c.reg_type else "-"
        sn = "yes" if c.spectral_norm else "-"
        lines.append(f"{name:14} {c.loss_type:5} {penalty:9} {sn:14} {c.alpha_ema or '-':<6} {c.max_iters}")
    return "\n".join(lines)
