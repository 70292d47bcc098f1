"""Every experiment of the report, one after the other: python -m experiments --profile full|quick

Each writes what it measured to ``runs/PROFILE/results/*.json`` and its pictures to ``runs/PROFILE/figures``. An
experiment that was interrupted goes on where it stopped; one that is done is not run again.
"""

import itertools
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import benchmarks.flow
import benchmarks.gan
import benchmarks.vae
import data
import run_exp
import train
import vae
from data import densities
from experiments import gan as gan_study
from experiments import gan_fast as gan_paths
from lab import checkpoint, command_line
from lab.estimates import spread
from question1 import autoencoder
from question1 import plots as vae_plots
from question2 import configurations
from question3 import plots as flow_plots


@dataclass
class Options:
    """What to run."""

    profile: str = "full"  # full, or quick: small data, few steps, no network, about four minutes on two cores
    data: str = field(default_factory=data.default_root)  # folder where data sets lie or are put
    dataset: str = "auto"  # of the VAE: auto, binarized_mnist or digits; the quick profile always takes digits
    only: list[str] = field(default_factory=list)  # names of experiments, to run these alone
    seed: int = 1  # the first of the seeds
    gan_seeds: int = 1  # seeds of each configuration in the study of question 2.7, up to 3
    device: str = "auto"  # auto, cpu, cuda, ...
    out: str = ""  # folder of the runs, their results and figures; left empty, runs/PROFILE

    def __post_init__(self) -> None:
        if self.profile not in ("full", "quick"):
            raise ValueError(f"profile must be full or quick, got {self.profile!r}")
        if unknown := set(self.only) - set(EXPERIMENTS):
            raise ValueError(f"no experiment {', '.join(sorted(unknown))}: there are {', '.join(EXPERIMENTS)}")
        if not 1 <= self.gan_seeds <= len(gan_study.SEEDS):
            raise ValueError(f"gan_seeds must be in 1 to {len(gan_study.SEEDS)}, got {self.gan_seeds}")
        if self.profile == "quick":
            self.dataset, self.gan_seeds = "digits", 2
        self.out = self.out or f"runs/{self.profile}"


# The assignment's setting, and what "feel free to modify the hyper-parameters" allows with the same network:
# name, number of seeds, changes to the defaults. The quick profile shortens them.
TUNED = {"schedule": "one-cycle", "learning_rate": 3e-3, "gradient": "path"}
VAE_SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("assignment", 5, {}),
    ("tuned", 3, TUNED),
    ("long", 3, {**TUNED, "learning_rate": 2e-3, "epochs": 200, "batch_size": 128, "input_dropout": 0.1}),
]
BOUND_SAMPLES = [1, 10, 200, 5000]
FLOW_DEPTHS = [2, 8, 32]


def question1(options: Options) -> dict[str, Any]:
    """Questions 1.6 and 1.7: the VAE in each setting and seed, its bound as K grows, what its latents carry."""
    dataset, splits = data.load(options.dataset, options.data)
    settings = {}
    for name, seeds, changes in VAE_SETTINGS:
        bound = BOUND_SAMPLES if name == "assignment" else [200]
        settings[name], first = train_vaes(options, name, seeds, changes, bound)
        if name == "assignment":
            log_px = settings[name]["runs"][0]["test_log_px"]
            bounds = [{"k": int(k), **value} for k, value in log_px.items()]
            latent = dimensions(settings[name]["runs"][0]["kl_per_dimension"])
    figures = Path(options.out) / "figures"
    vae_plots.training(figures / "vae_training.svg", settings)
    vae_plots.bound(figures / "vae_bound.svg", bounds)
    vae_plots.dimensions(figures / "vae_kl.svg", latent["kl"])
    vae_plots.images(figures, first, splits.test)
    sizes = dict(zip(splits._fields, map(len, splits), strict=True))
    return {"dataset": dataset, "images": sizes, "settings": settings, "bounds": bounds, "latent": latent}


def train_vaes(
    options: Options, name: str, seeds: int, changes: dict[str, Any], bound: Sequence[int] = (200,)
) -> tuple[dict[str, Any], autoencoder.VAE]:
    """Train a setting in several seeds; its options and results, and the first seed's model.

    The log-likelihood is estimated with K = 200; the first seed's for every K of ``bound``.
    """
    quick, runs = options.profile == "quick", []
    if quick:
        changes = {**changes, "epochs": min(20, changes.get("epochs", 20))}
    for seed in range(options.seed, options.seed + (min(2, seeds) if quick else seeds)):
        out = Path(options.out) / "vae" / options.dataset / f"{name}-{seed}"
        samples = [k for k in bound if k <= 200 or not quick] if seed == options.seed else [200]
        where = {"dataset": options.dataset, "data": options.data, "device": options.device, "out": str(out)}
        run = vae.Hyperparameters(**where, seed=seed, num_samples=samples, **changes)
        print(f"VAE, {name}, seed {seed}, in {out}")
        runs.append((run, *vae.run(run)))
    run, model, *_ = runs[0]
    return {"options": public(run), **summarise([result for *_, result in runs])}, model


def public(options: vae.Hyperparameters) -> dict[str, Any]:
    """The options that a reader needs: not the folders of this machine, nor what differs between seeds."""
    return {k: v for k, v in asdict(options).items() if k not in ("data", "out", "seed", "num_samples")}


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "runs": list(results),
        "valid_elbo": spread([result["valid_elbo"]["mean"] for result in results]),
        "test_elbo": spread([result["test_elbo"]["mean"] for result in results]),
        "test_log_px": spread([result["test_log_px"]["200"]["mean"] for result in results]),
        "train_minutes": spread([result["train_seconds"] / 60 for result in results]),
    }


def dimensions(kl_per_dimension: Sequence[float], threshold: float = 0.1) -> dict[str, Any]:
    """The KL divergence per latent dimension, in falling order, and how many exceed ``threshold`` nats."""
    kl = sorted(kl_per_dimension, reverse=True)
    return {"kl": kl, "threshold": threshold, "active": sum(value > threshold for value in kl), "total": sum(kl)}


def question3(options: Options) -> dict[str, Any]:
    """Questions 3.7 and 3.9: planar flows from samples and from densities, each depth in several seeds."""
    quick, out = options.profile == "quick", Path(options.out)
    run = train.Hyperparameters(
        num_iter=300 if quick else 20_000,
        num_layers=FLOW_DEPTHS,
        seed=list(range(options.seed, options.seed + (2 if quick else 5))),
        compile=not quick,
        out=str(out / "flow"),
    )
    result = train.run(run)
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for picture in (out / "flow").glob("*.png"):
        shutil.copy(picture, figures / f"flow_{picture.name}")
    flow_plots.transformations(figures / "flow_transformations.png", TRANSFORMATIONS)
    settings = []
    for source, name, k in itertools.product(run.source, run.data, run.num_layers):
        rows = [r for r in result["runs"] if (r["source"], r["data"], r["num_layers"]) == (source, name, k)]
        values = (
            {"nll": [r["nll"]["mean"] for r in rows], "gap": [r["gap"] for r in rows]} if source == "samples" else {}
        )
        if source == "density":
            values = {"loss": [r["loss"]["mean"] for r in rows], "kl": [r["kl"]["mean"] for r in rows]}
        error = max(r["nll" if source == "samples" else "kl"]["standard_error"] for r in rows)
        summary = {key: spread(value) for key, value in values.items()}
        settings.append({"source": source, "data": name, "num_layers": k, "standard_error": error, **summary})
    flow_plots.depth(figures / "flow_depth.svg", settings)
    keep = {"num_iter": run.num_iter, "lr": run.lr, "batch_size": run.batch_size, "seeds": len(run.seed)}
    limits = {"log_z": densities.LOG_Z, "entropy": densities.ENTROPY, "log_z_strip": densities.LOG_Z_STRIP}
    return {
        "dataset": options.dataset,
        "options": keep,
        "limits": limits,
        "settings": settings,
        "seconds": result["wall_seconds"],
        "runs": [{key: value for key, value in r.items() if key != "curve"} for r in result["runs"]],
    }


# Title, u, w and b of the layers in the figure of question 3.2.
TRANSFORMATIONS = [
    (title, *(torch.tensor(values) for values in parameters))
    for title, *parameters in [
        ("expansion: w·u = 4", [2.0, 0.0], [2.0, 0.0], 0.0),
        ("contraction: w·u = -0.7", [-0.7, 0.0], [1.0, 0.0], 0.0),
        ("steeper: ‖w‖ = 6", [2.0, 0.0], [6.0, 0.0], 0.0),
        ("shifted: b = 3", [2.0, 0.0], [2.0, 0.0], 3.0),
        ("shear: u ⊥ w", [0.0, 2.0], [1.5, 0.0], 0.0),
    ]
]


DIRAC_SEED = 31415
DIRAC_SHOWN = ["dirac-jsd-3", "dirac-jsd-10", "dirac-w1-6"]
PLANAR_SETTINGS = [("assignment", 3, {})] + [
    (f"planar-{k}", 3, {"posterior": "planar", "num_flows": k}) for k in (4, 16)
]


def question3_posterior(options: Options) -> dict[str, Any]:
    """Question 3.10: a posterior with k planar layers beside the normal one, with the same budget."""
    settings = {}
    for name, seeds, changes in PLANAR_SETTINGS:
        settings[name], _ = train_vaes(options, name, seeds, changes)
    return {"dataset": options.dataset, "settings": settings}


def question2_dirac(options: Options) -> dict[str, Any]:
    """Question 2.6: all configurations of the dirac game, theory beside practice."""
    out = Path(options.out)
    argv = ["--config", "dirac-*", "--seed", str(DIRAC_SEED), "--out", str(out / "dirac")]
    if options.profile == "quick":
        argv += ["--max_iters", "600"]
    started = time.perf_counter()
    runs = run_exp.plan(argv)
    results = run_exp.run_all(runs)
    seconds = time.perf_counter() - started
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    shutil.copy(out / "dirac" / f"dirac-{DIRAC_SEED}.png", figures / "dirac_overview.png")
    for run in runs:
        if run.name in DIRAC_SHOWN:
            shutil.copy(run.folder / "trajectory.png", figures / f"dirac_{run.name}.png")
    rows = []
    for run in runs:
        setting = {
            "loss": run.hp.loss_type,
            "penalty": run.hp.reg_type,
            "weight": run.hp.reg_cf,
            "ema": run.hp.alpha_ema,
        }
        rows.append({"name": run.name, **setting, **results[run.folder.name]})
    first = runs[0].hp
    return {
        "dataset": "none",
        "seed": DIRAC_SEED,
        "options": {"max_iters": first.max_iters, "games": first.games, "lr": first.generator_lr},
        "cycle_of_a_weak_penalty": 4 / math.pi,
        "rows": rows,
        "seconds": seconds,
    }


def question2_images(options: Options) -> dict[str, Any]:
    """Question 2.7: the GANs of images, in full with CUDA, at reduced size without."""
    quick = options.profile == "quick"
    if gan_study.choose_scale(quick, options.device) == "full":
        kinds = benchmarks.gan.measure(benchmarks.gan.Options(rounds=1, device=options.device))["kinds"].values()
        # One configuration with a free critic, two with spectral normalisation, two with R1.
        free, sn, r1 = (kind["median"]["fast"] for kind in kinds)
        minutes = options.gan_seeds * (free + 2 * sn + 2 * r1) * configurations.Hyperparameters().max_iters / 60e3
        print(f"the full study: training takes about {minutes:.0f} minutes here", flush=True)
    return gan_study.study(Path(options.out), options.data, quick, options.device, options.gan_seeds)


def question2_paths(options: Options) -> dict[str, Any]:
    """Whether the fast path learns what the plain one learns."""
    return gan_paths.compare(Path(options.out), options.data, options.profile == "quick", options.device)


def vae_speed(options: Options) -> dict[str, Any]:
    """The benchmark of question 1, cut down in the quick profile."""
    quick = options.profile == "quick"
    return benchmarks.vae.measure(options.dataset, options.data, rounds=1 if quick else 7, share=1.0 if quick else 0.2)


def gan_speed(options: Options) -> dict[str, Any]:
    """The benchmark of question 2.7, cut down in the quick profile."""
    quick = {"width": 4, "rounds": 1, "updates": 2, "eval_samples": 100} if options.profile == "quick" else {}
    return {"dataset": "none", **benchmarks.gan.measure(benchmarks.gan.Options(device=options.device, **quick))}


def flow_speed(options: Options) -> dict[str, Any]:
    """The benchmark of question 3, cut down in the quick profile."""
    quick = options.profile == "quick"
    depths = FLOW_DEPTHS[:1] if quick else FLOW_DEPTHS
    measured = benchmarks.flow.measure(
        100 if quick else 20_000, rounds=1 if quick else 5, iterations=100, depths=depths
    )
    return {"dataset": options.dataset, **measured}


EXPERIMENTS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "vae": question1,
    "dirac": question2_dirac,
    "gan": question2_images,
    "gan_fast": question2_paths,
    "flow": question3,
    "flow_posterior": question3_posterior,
    "vae_speed": vae_speed,
    "gan_speed": gan_speed,
    "flow_speed": flow_speed,
}
FOR_CUDA = ("gan", "gan_fast")  # without it they take an hour or more, and run only when they are asked for


def environment() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cores": os.cpu_count(),
    }


def is_done(name: str, held: dict[str, Any], options: Options) -> bool:
    """Whether a result that is there is what the options ask for."""
    if name == "gan" and len(held["seeds"]) != options.gan_seeds:
        return False
    images = "digits" if options.profile == "quick" else "cifar10"
    return held["profile"] == options.profile and held["dataset"] in ("none", options.dataset, images)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Options, "Run every experiment of the report.", argv)
    try:
        options.dataset, _ = data.load(options.dataset, options.data)
    except (ValueError, data.DataUnavailableError) as error:
        command_line.fail(error)
    for name in options.only or EXPERIMENTS:
        skip = name in FOR_CUDA and not options.only and options.profile == "full"
        if skip and not torch.cuda.is_available():
            print(f"{name}: not run without CUDA, the report has the reference; --only {name} runs a reduced one")
            continue
        path = Path(options.out) / "results" / f"{name}.json"
        if path.exists() and is_done(name, json.loads(path.read_text()), options):
            print(f"{name}: done before, {path} has it")
            continue
        print(f"{name}: running")
        started = time.perf_counter()
        try:
            result = EXPERIMENTS[name](options)
        except data.DataUnavailableError as error:
            command_line.fail(error)
        minutes = (time.perf_counter() - started) / 60
        frame = {"profile": options.profile, "environment": environment(), "minutes": minutes}
        checkpoint.write_json(path, {**frame, **result})
        print(f"{name}: {minutes:.1f} minutes, written to {path}")


if __name__ == "__main__":
    main()
