"""The experiments of the report, one after the other: python -m experiments --profile assignment|full|quick

Each writes what it measured to ``runs/PROFILE/results/NAME.json`` and its pictures to ``runs/PROFILE/figures``. An
experiment that was interrupted resumes; one that is done is not run again.
"""

from lab import interruption

# isort: split
import ast
import fnmatch
import importlib
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import data
import experiments
from experiments.options import Options
from lab.claim import claim
from lab.device import choose_device
from lab.files import read_json, write_json
from lab.options import InputError, parse


@dataclass(frozen=True)
class Experiment:
    """What an experiment's file states at its top."""

    name: str
    minutes: dict[str, float]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    def asked(self, options: Options) -> dict[str, Any]:
        """What was asked for, as far as the result depends on it; kept with the result."""
        values = {"profile": options.profile, "seed": options.seed, "device": choose_device(options.device).type}
        further = {"dataset": options.images, "gan_seeds": options.gan_seeds}
        return values | {name: value for name, value in further.items() if name in self.uses}


def listed() -> dict[str, Experiment]:
    """The experiments in the folder, by name: the files that state ``MINUTES``. None of them is imported."""
    found = {}
    for path in sorted(path for folder in experiments.__path__ for path in Path(folder).glob("*.py")):
        source = ast.parse(path.read_text(encoding="utf-8"))
        assigned = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
        stated = {key: ast.literal_eval(assigned[key]) for key in ("MINUTES", "NEEDS", "USES") if key in assigned}
        if "MINUTES" in stated:
            found[path.stem] = Experiment(path.stem, **{key.lower(): value for key, value in stated.items()})
    return found


def chosen(options: Options, known: dict[str, Experiment]) -> list[str]:
    """The names of the experiments that ``--only`` means, or of the profile's, as far as this machine can do them."""
    on_cuda = choose_device(options.device).type == "cuda"
    for pattern in options.only:
        if not fnmatch.filter(known, pattern):
            raise InputError(f"no experiment {pattern}: there are {', '.join(known)}")
    if options.only:
        return [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.only)]
    names = [name for name, one in known.items() if options.profile in one.minutes]
    left_out = [name for name in names if "cuda" in known[name].uses and not on_cuda]
    for name in left_out:
        print(f"{name}: not run without CUDA, the report has the reference; --only {name} runs a reduced one")
    return [name for name in names if name not in left_out]


def in_order(names: Iterable[str], known: dict[str, Experiment]) -> list[Experiment]:
    """Experiments, each after those whose results it reads."""
    ordered: dict[str, Experiment] = {}
    for name in names:
        ordered |= {one.name: one for one in in_order(known[name].needs, known)} | {name: known[name]}
    return list(ordered.values())


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    known = listed()
    about = {"program": "python -m experiments", "examples": f"experiments: {', '.join(known)}"}
    options = parse(Options, "Run the experiments of the report.", argv, **about)
    with interruption.one_line_errors():
        planned = in_order(chosen(options, known), known)
        with claim(options.folder):
            if any("dataset" in one.uses for one in planned):
                options = replace(options, dataset=data.load(options.images, options.data)[0])
            run_all(planned, options)


def run_all(planned: Sequence[Experiment], options: Options) -> None:
    """Run what is not done yet."""
    left = []
    for one in planned:
        if (read_json(options.result_path(one.name)) or {}).get("asked") == one.asked(options):
            print(f"{one.name}: done before; delete {options.result_path(one.name)} to run it again")
        else:
            left.append(one)
    minutes = [one.minutes.get(options.profile) or max(one.minutes.values()) for one in left]
    for place, one in enumerate(left):
        about = f"about {sum(minutes[place:]):.0f} minutes left on two cores"
        print(f"[{place + 1} of {len(left)}] {one.name}; {about}", flush=True)
        run_one(one, options)


def run_one(one: Experiment, options: Options) -> None:
    """Run an experiment, and write its result with what it depends on and how long it took."""
    path = options.result_path(one.name)
    path.parent.mkdir(parents=True, exist_ok=True)  # where nothing can be written, nothing is run
    started = time.perf_counter()
    result = importlib.import_module(f"experiments.{one.name}").run(options)
    minutes = (time.perf_counter() - started) / 60
    environment = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cores": os.cpu_count(),
    }
    frame = {"profile": options.profile, "asked": one.asked(options), "environment": environment, "minutes": minutes}
    write_json(path, {**frame, "dataset": options.images if "dataset" in one.uses else "none", **result})
    print(f"{one.name}: {minutes:.1f} minutes, written to {path}", flush=True)


if __name__ == "__main__":  # also what keeps a worker process, which imports this file, from starting over
    main()
