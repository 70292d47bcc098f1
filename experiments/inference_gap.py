"""Question 3.10: how far posteriors are from the true one, and how much of it the encoder leaves lying.

With two latent dimensions the distance is known, by quadrature; with a hundred it is estimated by importance sampling.
Every posterior is one of the same decoder: that of a VAE with a normal posterior.
"""

from typing import Any

import torch
from torch import Tensor

import data
from experiments.options import Options
from experiments.posterior_controls import SCALE
from experiments.vae import train_vaes
from lab.estimates import mean_and_error
from lab.figures import captioned
from question1 import inference_gap, plots
from question1.autoencoder import VAE, Posterior, log_likelihood

MINUTES = {"full": 20}
NEEDS = ("vae",)
USES = ("dataset",)
FAMILIES = {"normal": 0, "planar 1": 1, "planar 4": 4, "planar 16": 16}
SAMPLES = (1, 10, 100, 1000, 5000)
ENCODER = {"epochs": 10, "batch_size": 64, "lr": 1e-3, **SCALE}
SEARCH = {"steps": 2000, "draws": 8, "lr": 2e-2}


def run(options: Options) -> dict[str, Any]:
    """Both models: posteriors of test images by encoders, and the best of each family for each image by itself."""
    seed = options.seeds(range(1, 2))[0]  # the first model's, which decides how the digits are split
    dataset, splits = data.load(options.images, options.data, seed)
    count = 20 if options.quick else 200
    chosen = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(0))[:count]
    images = splits.test[chosen]
    of_plane, model = train_vaes(options, "plane", 1, {"latent_size": 2})
    plane = on_a_plane(options, model, splits.train, images)
    of_full, model = train_vaes(options, "assignment", 1, {})  # trained already: this loads it
    full = in_full(options, model, splits.train, images)
    settings = {"plane": of_plane, "full": of_full}
    trained = {name: {**setting["options"], "valid_elbo": setting["valid_elbo"]} for name, setting in settings.items()}
    caption = "The inference gap of each family of posteriors, in two parts, with two latent dimensions and with all."
    path = captioned(options.figures / "inference_gap_parts.svg", caption)
    plots.inference_gaps(path, plane["families"], full["families"])
    caption = "How far importance sampling with K draws underestimates log p(x), with two latent dimensions."
    plots.importance(captioned(options.figures / "inference_gap_importance.svg", caption), plane["importance"])
    encoder, search = fits(options)
    return {
        "dataset": dataset,
        "images": count,
        "models": trained,
        "encoder": encoder,
        "search": search,
        "plane": plane,
        "full": full,
    }


def fits(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """How encoders are trained and how each image's best posterior is searched."""
    return (ENCODER | {"epochs": 1}, SEARCH | {"steps": 100}) if options.quick else (ENCODER, SEARCH)


def posteriors(options: Options, model: VAE, train: Tensor, images: Tensor, num_layers: int) -> dict[str, Posterior]:
    """A family's posteriors of some images: by an encoder for the model's decoder, and each image's best.

    Every family's encoder, the normal one's too, begins as the model's own and has as many epochs more.
    """
    training, search = fits(options)
    encoder = inference_gap.fit_encoder(model, train, num_layers, **training, progress=True)
    with torch.no_grad():
        amortised = encoder.posterior(images.float())
    return {"encoder": amortised, "own": inference_gap.fit(model, images, num_layers, **search, progress=True)}


def parts(of_encoder: Tensor, of_own: Tensor, log_px: Tensor) -> dict[str, dict[str, float]]:
    """The inference gap and its two parts, each a mean over images with its standard error, in nats."""
    return {
        "approximation": mean_and_error(log_px - of_own),
        "amortisation": mean_and_error(of_own - of_encoder),
        "gap": mean_and_error(log_px - of_encoder),
    }


def on_a_plane(options: Options, model: VAE, train: Tensor, images: Tensor) -> dict[str, Any]:
    """Two latent dimensions: log p(x) is an integral over a plane, so the gap is the divergence itself."""
    cells, draws = (150, 500) if options.quick else (600, 5000)
    grid = inference_gap.plane(cells=cells)
    log_px = inference_gap.log_likelihood_on_plane(model, images, grid)
    coarser = inference_gap.log_likelihood_on_plane(model, images, inference_gap.plane(cells=cells // 2))
    rows, found = [], {}
    for name, num_layers in FAMILIES.items():
        found[name] = posteriors(options, model, train, images, num_layers)
        elbos = {kind: inference_gap.bounds(model, images, q, draws)[0] for kind, q in found[name].items()}
        rows.append({"name": name, "num_layers": num_layers, **parts(elbos["encoder"], elbos["own"], log_px)})
        if not num_layers:
            worst = (log_px - elbos["own"]).argsort(descending=True)
    telling = [int(worst[place]) for place in (0, len(worst) // 20, len(worst) // 4, len(worst) // 2)]
    caption = "True posteriors (grey) and the best of each family (lines) at levels that enclose 50 % and 95 %."
    plots.contours(
        captioned(options.figures / "inference_gap_contours.png", caption),
        model,
        images[telling],
        [{name: found[name]["own"].select(slice(i, i + 1)) for name in ("normal", "planar 16")} for i in telling],
    )
    importance = [
        {"k": k, "missing": mean_and_error(log_px - log_likelihood(model, images, k, seed=1))}
        for k in (SAMPLES[:3] if options.quick else SAMPLES)
    ]
    return {
        "log_px": mean_and_error(log_px),
        "cells": cells,
        "change_with_half_the_cells": float((log_px - coarser).abs().max()),
        "draws": draws,
        "families": rows,
        "importance": importance,
    }


def in_full(options: Options, model: VAE, train: Tensor, images: Tensor) -> dict[str, Any]:
    """All latent dimensions: log p(x) by importance sampling from the posterior that finds most of it."""
    draws = 200 if options.quick else 5000
    elbos: dict[str, dict[str, Tensor]] = {}
    estimates: dict[str, Tensor] = {}
    for name, num_layers in FAMILIES.items():
        elbos[name] = {}
        for kind, q in posteriors(options, model, train, images, num_layers).items():
            elbos[name][kind], _, estimates[f"{name}, {kind}"] = inference_gap.bounds(model, images, q, draws)
    best = max(estimates, key=lambda name: estimates[name].mean().item())
    log_px = estimates[best]
    return {
        "log_px": mean_and_error(log_px),
        "estimated_from": best,
        "estimates": {name: mean_and_error(estimate) for name, estimate in estimates.items()},
        "draws": draws,
        "families": [
            {"name": name, "num_layers": FAMILIES[name], **parts(of["encoder"], of["own"], log_px)}
            for name, of in elbos.items()
        ],
    }
