"""What a run of the experiments is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import data
from lab.files import read_json
from lab.options import check, option


@dataclass
class Options:
    """What to run."""

    # assignment: what it asks, in one seed; full: every seed, tuned and long runs, ablations; quick: small data, few
    # steps, no network
    profile: Literal["assignment", "full", "quick"] = "assignment"
    data: str = option(default_factory=data.default_root)  # folder where data sets lie or are put
    # of the VAE: auto, binarized_mnist, digits or a file NAME.npz; the quick profile always takes digits
    dataset: str = "auto"
    only: list[str] = option(default_factory=list)  # experiments by name or pattern, such as 'vae*', to run these alone
    # the first of the seeds of every experiment; left out, those of the published results
    seed: int | None = option(None, at_least=0)
    gan_seeds: int = option(1, at_least=1, at_most=3)  # seeds of each configuration in the study of question 2.7
    device: str = "auto"  # auto, cpu, cuda, ...
    out: str = ""  # folder of the runs, their results and figures; left empty, runs/PROFILE

    def __post_init__(self) -> None:
        check(self)

    @property
    def quick(self) -> bool:
        """Whether everything is to be small."""
        return self.profile == "quick"

    @property
    def images(self) -> str:
        """The data set of the VAE."""
        return "digits" if self.quick else self.dataset

    @property
    def folder(self) -> Path:
        """The folder of everything."""
        return Path(self.out or f"runs/{self.profile}")

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.folder / "figures"

    def result_path(self, name: str) -> Path:
        """The file of an experiment's result."""
        return self.folder / "results" / f"{name}.json"

    def result(self, name: str) -> dict[str, Any]:
        """The result of an experiment that the one that asks NEEDS."""
        result = read_json(self.result_path(name))
        assert result is not None, f"{name} is not in NEEDS"
        return result

    def seeds(self, published: Sequence[int]) -> list[int]:
        """As many seeds as the published results have: those, or the ones from ``--seed`` on."""
        return list(published) if self.seed is None else [self.seed + i for i in range(len(published))]
