"""Questions 1.6 and 1.7: the VAE as prescribed, its bound as K grows, what its latents carry."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data
import vae
from experiments.options import Options
from lab.estimates import spread
from lab.figures import captioned
from lab.options import determining
from question1 import autoencoder, plots

MINUTES = {"quick": 0.3, "assignment": 1.2, "full": 8}
USES = ("dataset",)
SEEDS = {"full": 5, "assignment": 1, "quick": 2}
QUICK_EPOCHS = 20
BOUND_SAMPLES = [1, 10, 200, 5000]


def run(options: Options) -> dict[str, Any]:
    """Questions 1.6 and 1.7: the prescribed setting in some seeds, its bound as K grows, what its latents carry."""
    seed = options.seeds(range(1, 2))[0]  # the first model's, which decides how the digits are split
    dataset, splits = data.load(options.images, options.data, seed)
    setting, first = train_vaes(options, "assignment", SEEDS[options.profile], {}, BOUND_SAMPLES)
    log_px = setting["runs"][0]["test_log_px"]
    bounds = [{"k": int(k), **value} for k, value in log_px.items()]
    latent = dimensions(setting["runs"][0]["kl_per_dimension"])
    caption = "The estimate of log p(x) on the test set over the number of samples K, with standard errors."
    plots.bound(captioned(options.figures / "vae_bound.svg", caption), bounds)
    caption = "KL divergence of each latent dimension from the prior, in falling order."
    plots.dimensions(captioned(options.figures / "vae_kl.svg", caption), latent["kl"])
    plots.images(options.figures, first, splits.test)
    sizes = dict(zip(splits._fields, map(len, splits), strict=True))
    printed = vae.report({**setting["runs"][0], "test_log_px": {"200": log_px["200"]}})
    more = {"bounds": bounds, "latent": latent, "printed": printed}
    return {"dataset": dataset, "images": sizes, **setting, **more}


def train_vaes(
    options: Options, name: str, seeds: int, changes: dict[str, Any], bound: Sequence[int] = (200,)
) -> tuple[dict[str, Any], autoencoder.VAE]:
    """Train a setting in several seeds; its options and results, and the first seed's model.

    The log-likelihood is estimated with K = 200; the first seed's for every K of ``bound``.
    """
    runs = []
    if options.quick:
        seeds, changes = min(2, seeds), {**changes, "epochs": QUICK_EPOCHS}
    first, *others = options.seeds(range(1, seeds + 1))
    for seed in (first, *others):
        out = options.folder / "vae" / Path(options.images).stem / f"{name}-{seed}"
        samples = [k for k in bound if k <= 200 or options.profile == "full"] if seed == first else [200]
        where: dict[str, Any] = {"data": options.data, "device": options.device, "out": str(out)}
        one = vae.Hyperparameters(dataset=options.images, seed=seed, num_samples=samples, **where, **changes)
        print(f"VAE, {name}, seed {seed}, in {out}")
        runs.append((one, *vae.run(one)))
    one, model, *_ = runs[0]
    # What a reader needs: not what differs between seeds, nor folders.
    shared = {k: v for k, v in determining(one).items() if k != "seed"}
    return {"options": shared, **summarise([result for *_, result in runs])}, model


def first_seeds(setting: dict[str, Any], seeds: int) -> dict[str, Any]:
    """A setting that another experiment has trained, in its first seeds."""
    return {"options": setting["options"], **summarise(setting["runs"][:seeds])}


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
