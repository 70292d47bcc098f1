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
ACTIVE = 0.1  # nats of divergence from the prior, from which a latent dimension counts as used


def run(options: Options) -> dict[str, Any]:
    """Train the prescribed setting in some seeds, and draw what the first model does."""
    seed = options.seeds(range(1, 2))[0]  # the first model's, which decides how the digits are split
    _, splits = data.load(options.images, options.data, seed)
    setting, first = train_vaes(options, "assignment", SEEDS[options.profile], {}, BOUND_SAMPLES)
    result = setting["runs"][0]
    log_px, kl = result["test_log_px"], sorted(result["kl_per_dimension"], reverse=True)
    bounds = [{"k": int(k), **value} for k, value in log_px.items()]
    active = sum(value > ACTIVE for value in kl)
    caption = "The estimate of log p(x) on the test set over the number of samples K, with standard errors."
    plots.bound(captioned(options.figures / "vae_bound.svg", caption), bounds)
    caption = "KL divergence of each latent dimension from the prior, in falling order."
    plots.dimensions(captioned(options.figures / "vae_kl.svg", caption), kl)
    plots.images(options.figures, first, splits.test)
    return {
        "images": dict(zip(splits._fields, map(len, splits), strict=True)),
        **setting,
        "bounds": bounds,
        "latent": {"kl": kl, "threshold": ACTIVE, "active": active, "total": sum(kl)},
        "printed": vae.report({**result, "test_log_px": {"200": log_px["200"]}}),
    }


def train_vaes(
    options: Options, name: str, seeds: int, changes: dict[str, Any], bound: Sequence[int] = (200,)
) -> tuple[dict[str, Any], autoencoder.VAE]:
    """Train a setting in several seeds; its options and results, and the first seed's model.

    The log-likelihood is estimated with K = 200; the first seed's for every K of ``bound``.
    """
    if options.quick:
        seeds, changes = min(2, seeds), {**changes, "epochs": QUICK_EPOCHS}
    results, models, samples = [], [], [k for k in bound if k <= 200 or options.profile == "full"]
    for seed in options.seeds(range(1, seeds + 1)):
        out = options.folder / "vae" / Path(options.images).stem / f"{name}-{seed}"
        where: dict[str, Any] = {"data": options.data, "device": options.device, "out": str(out)}
        one = vae.Hyperparameters(dataset=options.images, seed=seed, num_samples=samples, **where, **changes)
        print(f"VAE, {name}, seed {seed}, in {out}")
        model, *_, result = vae.run(one)
        models.append(model)
        results.append(result)
        samples = [200]
    shared = {key: value for key, value in determining(one).items() if key != "seed"}
    return {"options": shared, **summarise(results)}, models[0]


def first_seeds(setting: dict[str, Any], seeds: int) -> dict[str, Any]:
    """A setting that another experiment has trained, in its first seeds."""
    return {"options": setting["options"], **summarise(setting["runs"][:seeds])}


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "runs": list(results),
        **{key: spread([result[key]["mean"] for result in results]) for key in ("valid_elbo", "test_elbo")},
        "test_log_px": spread([result["test_log_px"]["200"]["mean"] for result in results]),
        "train_minutes": spread([result["train_seconds"] / 60 for result in results]),
    }
