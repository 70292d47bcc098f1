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
ENCODER: dict[str, Any] = {"epochs": 10, "batch_size": 64, "lr": 1e-3, **SCALE}
SEARCH: dict[str, Any] = {"steps": 2000, "draws": 8, "lr": 2e-2}


Posteriors = dict[str, Posterior]  # of some images: by an encoder, and each image's own best


def run(options: Options) -> dict[str, Any]:
    """Both models: posteriors of test images by encoders, and the best of each family for each image by itself."""
    seed = options.seeds(range(1, 2))[0]  # the first model's, which decides how the digits are split
    _, splits = data.load(options.images, options.data, seed)
    count, encoder, search = 200, ENCODER, SEARCH
    if options.quick:
        count, encoder, search = 20, {**ENCODER, "epochs": 1}, {**SEARCH, "steps": 100}
    images = splits.test[torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(0))[:count]]
    models: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for place, folder, changes, measure in (
        ("plane", "plane", {"latent_size": 2}, on_a_plane),
        ("full", "assignment", {}, in_full),  # the prescribed model, which is trained already: this loads it
    ):
        setting, model = train_vaes(options, folder, 1, changes)
        models[place] = {**setting["options"], "valid_elbo": setting["valid_elbo"]}
        posteriors: dict[str, Posteriors] = {}
        for name, num_layers in FAMILIES.items():
            # Every family's encoder, the normal one's too, begins as the model's own and has as many epochs more.
            fitted = inference_gap.fit_encoder(model, splits.train, num_layers, **encoder)
            with torch.no_grad():
                amortised = fitted.posterior(images.float())
            own = inference_gap.fit(model, images, num_layers, **search)
            posteriors[name] = {"encoder": amortised, "own": own}
        found[place] = measure(options, model, images, posteriors)
    caption = "The inference gap of each family of posteriors, in two parts, with two latent dimensions and with all."
    path = captioned(options.figures / "inference_gap_parts.svg", caption)
    plots.inference_gaps(path, *(place["families"] for place in found.values()))
    caption = "How far importance sampling with K draws underestimates log p(x), with two latent dimensions."
    plots.importance(captioned(options.figures / "inference_gap_importance.svg", caption), found["plane"]["importance"])
    return {"images": count, "models": models, "encoder": encoder, "search": search, **found}


def gaps(elbos: dict[str, dict[str, Tensor]], log_px: Tensor) -> list[dict[str, Any]]:
    """The inference gap of each family and its two parts, means over images with their standard errors, in nats."""
    return [
        {
            "name": name,
            "num_layers": FAMILIES[name],
            "approximation": mean_and_error(log_px - bounds["own"]),
            "amortisation": mean_and_error(bounds["own"] - bounds["encoder"]),
            "gap": mean_and_error(log_px - bounds["encoder"]),
        }
        for name, bounds in elbos.items()
    ]


def on_a_plane(options: Options, model: VAE, images: Tensor, posteriors: dict[str, Posteriors]) -> dict[str, Any]:
    """Two latent dimensions: log p(x) is an integral over a plane, so the gap is the divergence itself."""
    cells, draws = (150, 500) if options.quick else (600, 5000)
    log_px, coarser = (
        inference_gap.log_likelihood_on_plane(model, images, inference_gap.plane(cells=n)) for n in (cells, cells // 2)
    )
    elbos = {
        name: {kind: inference_gap.bounds(model, images, q, draws)[0] for kind, q in family.items()}
        for name, family in posteriors.items()
    }
    worst = (log_px - elbos["normal"]["own"]).argsort(descending=True)
    telling = [int(worst[place]) for place in (0, len(worst) // 20, len(worst) // 4, len(worst) // 2)]
    best = [{n: posteriors[n]["own"].select(slice(i, i + 1)) for n in ("normal", "planar 16")} for i in telling]
    caption = "True posteriors (grey) and the best of each family (lines) at levels that enclose 50 % and 95 %."
    plots.contours(captioned(options.figures / "inference_gap_contours.png", caption), model, images[telling], best)
    return {
        "log_px": mean_and_error(log_px),
        "cells": cells,
        "change_with_half_the_cells": float((log_px - coarser).abs().max()),
        "families": gaps(elbos, log_px),
        "importance": [
            {"k": k, "missing": mean_and_error(log_px - log_likelihood(model, images, k, seed=1))}
            for k in (SAMPLES[:3] if options.quick else SAMPLES)
        ],
    }


def in_full(options: Options, model: VAE, images: Tensor, posteriors: dict[str, Posteriors]) -> dict[str, Any]:
    """All latent dimensions: log p(x) by importance sampling from the posterior that finds most of it."""
    draws = 200 if options.quick else 5000
    elbos: dict[str, dict[str, Tensor]] = {name: {} for name in posteriors}
    log_px: dict[str, Tensor] = {}
    for name, family in posteriors.items():
        for kind, q in family.items():
            elbos[name][kind], log_px[f"{name}, {kind}"] = inference_gap.bounds(model, images, q, draws)
    estimates = {name: mean_and_error(values) for name, values in log_px.items()}
    best = max(estimates, key=lambda name: estimates[name]["mean"])
    return {
        "log_px": estimates[best],
        "estimated_from": best,
        "estimates": estimates,
        "model": {str(k): mean_and_error(log_likelihood(model, images, k, seed=1)) for k in (200, draws)},
        "draws": draws,
        "families": gaps(elbos, log_px[best]),
    }
