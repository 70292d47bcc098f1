"""The configurations of question 2: hyper-parameters, what manages a run, and the names of ``run_exp.py``."""

import fnmatch
import math
from dataclasses import dataclass
from typing import Literal

from simple_parsing import field

import data
from dirac import Game
from gan import AVAILABLE_LOSSES
from lab.command_line import bookkeeping, check_seeds

# Limit of targets, weights and step sizes. float32 ends at 3e38, and steps are multiplied: SGD's by the number of games
# that are played side by side, Adam's by up to 1 / (1 - β).
LARGEST = 1e20


def _optional_name(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _optional_number(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


@dataclass
class PlayParameters:
    """The game of both players: losses, penalty, step sizes."""

    loss_type: Literal["JSD", "W1"] = "JSD"  # what the critic maximises and the generator minimises
    # penalty on the critic's gradient: around 1 between the data (GP), around 0 at real data (R1), or none
    critic_reg_type: str | None = field(default=None, type=_optional_name, metavar="{GP,R1,none}")
    critic_reg_cf: float = 0.1  # weight of the penalty
    critic_inner_iters: int = 2  # critic updates for each generator update
    # α of the generator's moving average, which after each update is α · average + (1 - α) · generator; or none
    generator_alpha_ema: float | None = field(default=0.998, type=_optional_number, metavar="{number,none}")
    optimizer: Literal["Adam", "SGD"] = "Adam"  # of both players
    generator_lr: float = 2e-4  # step size
    critic_lr: float = 4e-4  # step size
    generator_betas: tuple[float, float] = (0.0, 0.99)  # Adam's decay rates of gradient and squared gradient
    critic_betas: tuple[float, float] = (0.0, 0.99)  # Adam's decay rates of gradient and squared gradient
    generator_wd: float = 0.0  # weight decay, an L2 term in the gradient
    critic_wd: float = 1e-6  # weight decay, an L2 term in the gradient
    max_iters: int = 100_000  # generator updates


@dataclass
class DiracParameters:
    """The dirac game."""

    dirac_target: float = 0.0  # the real point
    games: int = 8  # starting points, of which one game each is played


@dataclass
class ImageParameters:
    """Networks and batches of image runs."""

    batch_size: int = 64  # images
    generator_dimz: int = 100  # size of the noise vector
    generator_dimh: int = 128  # width of the generator, in channels
    critic_dimh: int = 128  # width of the critic, in channels
    critic_use_sn: bool = False  # spectral normalisation: divide the critic's weights by their largest singular value


@dataclass
class Hyperparameters(ImageParameters, DiracParameters, PlayParameters):
    """What a run's numbers depend on. A configuration's name sets them; any can be overridden."""

    task: Literal["CIFAR10", "dirac"] = "CIFAR10"  # images, or the dirac game
    seed: int = 31415  # of networks, batches and noise, or of the dirac game's starting points

    def __post_init__(self) -> None:
        check_seeds(self.seed)
        choices = {
            "task": ("CIFAR10", "dirac"),
            "optimizer": ("Adam", "SGD"),
            "loss_type": tuple(AVAILABLE_LOSSES),
            "critic_reg_type": ("GP", "R1", None),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                names = ", ".join("none" if choice is None else choice for choice in allowed)
                raise ValueError(f"{name} must be one of {names}, got {getattr(self, name)}")
        counts = "batch_size generator_dimz generator_dimh critic_dimh critic_inner_iters max_iters games"
        for name in counts.split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("generator_lr", "critic_lr", "critic_reg_cf"):
            if not 0 < getattr(self, name) < LARGEST:
                raise ValueError(f"{name} must be positive and below {LARGEST:g}, got {getattr(self, name)}")
        for name in ("generator_wd", "critic_wd"):
            if not 0 <= getattr(self, name) < LARGEST:
                raise ValueError(f"{name} must be at least 0 and below {LARGEST:g}, got {getattr(self, name)}")
        for name in ("generator_betas", "critic_betas"):
            setattr(self, name, tuple(map(float, getattr(self, name))))  # torch's Adam refuses (0, 0.99)
            if not (len(getattr(self, name)) == 2 and all(0 <= beta < 1 for beta in getattr(self, name))):
                raise ValueError(f"{name} must be two numbers in [0, 1), got {getattr(self, name)}")
        if self.generator_alpha_ema is not None and not 0 < self.generator_alpha_ema < 1:
            raise ValueError(f"generator_alpha_ema must be in (0, 1) or none, got {self.generator_alpha_ema}")
        if not abs(self.dirac_target) < LARGEST:
            raise ValueError(f"dirac_target must be between -{LARGEST:g} and {LARGEST:g}, got {self.dirac_target}")

    @property
    def game(self) -> Game:
        """The dirac game with these hyper-parameters."""
        return Game(
            self.loss_type,
            self.critic_reg_type,
            self.critic_reg_cf,
            self.generator_alpha_ema,
            self.dirac_target,
            self.generator_lr,
            self.critic_lr,
            self.critic_wd,
            self.generator_wd,
            self.critic_inner_iters,
            self.optimizer,
            (self.generator_betas[0], self.generator_betas[1]),
            (self.critic_betas[0], self.critic_betas[1]),
        )


# What fields were called in the config.json of earlier versions.
FORMER_NAMES = {
    "dimz": "generator_dimz",
    "alpha_ema": "generator_alpha_ema",
    "spectral_norm": "critic_use_sn",
    "reg_type": "critic_reg_type",
    "reg_cf": "critic_reg_cf",
}


@dataclass
class PaceParameters:
    """Folders, pace and device."""

    exp_path: str = bookkeeping("runs/gan", alias=["--out"])  # folder of the runs; each gets NAME-SEED in it
    exp_name: str = bookkeeping("")  # NAME of a run's folder; left empty, the configuration's
    data_path: str = bookkeeping(default_factory=data.default_root, alias=["--data"])  # folder of the data sets
    # images: cifar10, digits (a stand-in that needs no download), auto (the first to be had), or a folder of images
    dataset: str = "auto"
    log_every: int = 500  # updates between two lines of metrics
    eval_every: int = 2000  # updates between two evaluations
    checkpoint_minutes: float = bookkeeping(1.0)  # minutes between two checkpoints, at least
    max_minutes: float = bookkeeping(0.0)  # minutes after which to stop; the same command goes on. 0 for no limit
    device: str = bookkeeping("auto")  # auto, cpu, cuda, cuda:1, ...; moves the last digits
    # channels last, fused Adam, bfloat16 where it is native, and on CUDA graphs (auto: yes), or the plain loop (no)
    fast: Literal["auto", "yes", "no"] = "auto"
    workers: int = bookkeeping(0)  # processes for dirac games; 0 for one a core
    viz: bool = bookkeeping(True)  # draw the dirac games' plots


@dataclass
class ScoreParameters:
    """Scores of image runs."""

    # inception (IS and FID), classifier (IS-C and FID-C, which need no download), none, or auto (the first to be had)
    scores: Literal["auto", "inception", "classifier", "none"] = "auto"
    inception_weights: str = bookkeeping("")  # file of Inception's weights; left empty, torch's cache, or a download
    fid_reference: Literal["train", "test"] = "train"  # the real images of the FID
    eval_samples: int = 10_000  # generated images of an evaluation
    final_samples: int = 50_000  # generated images of the last one


@dataclass
class Management(ScoreParameters, PaceParameters):
    """Where and how runs are done."""

    def __post_init__(self) -> None:
        for name in ("log_every", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("workers", "checkpoint_minutes", "max_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("eval_samples", "final_samples"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name} must be at least 10, got {getattr(self, name)}")
        choices = {
            "fast": ("auto", "yes", "no"),
            "scores": ("auto", "inception", "classifier", "none"),
            "fid_reference": ("train", "test"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)}")


def _dirac(loss_type: Literal["JSD", "W1"], **changes: object) -> Hyperparameters:
    return Hyperparameters(
        task="dirac",
        loss_type=loss_type,
        optimizer="SGD",
        generator_lr=0.1,
        critic_lr=0.1,
        critic_wd=0.0,
        critic_inner_iters=1,
        max_iters=5000,
        **changes,  # type: ignore[arg-type]
    )


LOSSES: tuple[Literal["JSD", "W1"], ...] = ("JSD", "W1")
PENALTIES = [{}, *({"critic_reg_type": reg, "critic_reg_cf": cf} for reg in ("R1", "GP") for cf in (0.01, 0.1))]
CONFIGURATIONS: dict[str, Hyperparameters] = {
    f"dirac-{loss.lower()}-{i}": _dirac(loss, generator_alpha_ema=alpha, **penalty)
    for loss in LOSSES
    for i, (alpha, penalty) in enumerate(((a, p) for a in (None, 0.998) for p in PENALTIES), start=1)
} | {
    "cifar10-jsd-1": Hyperparameters(),
    "cifar10-jsd-2": Hyperparameters(critic_use_sn=True),
    "cifar10-w1-2": Hyperparameters(loss_type="W1", critic_use_sn=True),
    "cifar10-jsd-3": Hyperparameters(critic_reg_type="R1", critic_reg_cf=1.0),
    "cifar10-w1-3": Hyperparameters(loss_type="W1", critic_reg_type="R1", critic_reg_cf=1.0),
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


LEGEND = """\
loss: Jensen-Shannon divergence or Wasserstein distance. penalty: on the critic's gradient, with its weight, GP around
1 between the data, R1 around 0 at real data. EMA: the share that a moving average of the generator keeps. updates: of
the generator. All dirac games together take about a minute on two cores. The cifar10 runs are for a GPU; on two cores,
--generator_dimh 32 --critic_dimh 32 --max_iters 10000 makes one of them take hours."""


def table(pattern: str = "*") -> str:
    """The configurations of a pattern, a line each, by what sets them apart, and what the columns say."""
    lines = [f"{'name':14} {'loss':5} {'penalty':9} {'spectral norm':14} {'EMA':6} updates"]
    for name in matching(pattern):
        c = CONFIGURATIONS[name]
        penalty = f"{c.critic_reg_type} {c.critic_reg_cf:g}" if c.critic_reg_type else "-"
        sn = "yes" if c.critic_use_sn else "-"
        lines.append(f"{name:14} {c.loss_type:5} {penalty:9} {sn:14} {c.generator_alpha_ema or '-':<6} {c.max_iters}")
    return "\n".join([*lines, LEGEND])
