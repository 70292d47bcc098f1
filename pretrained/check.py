"""One cheap number of each model, by which tests tell trained weights from damaged ones."""

from typing import Any

import torch

import gan
from data import digits
from data.densities import TARGETS
from pretrained import HERE
from question1.autoencoder import evaluate_elbo
from question2 import score
from question3.scores import log_density

STATISTICS = HERE / "cifar10_statistics.pt"  # the classifier's features of the 50,000 training images: sums, no image


@torch.no_grad()
def measure(model: Any, row: dict[str, Any]) -> float:
    """A number that takes a second and no data set, the same each time; no score, because the samples are few.

    Args:
        model: What is measured.
        row: Its row of the index.

    Returns:
        Of a VAE the ELBO of the stand-in's validation images, of a flow the negative log-likelihood of 1,000 points of
        its target, both in nats; of a generator FID-C with 500 images.
    """
    if row["kind"] == "vae":
        return evaluate_elbo(model, digits().valid).mean().item()
    if row["kind"] == "flow":
        points = torch.from_numpy(TARGETS[row["target"]].draw(count=1000))
        return -log_density(model, row["source"], points).mean().item()
    evaluate = gan.make_eval_step(STATISTICS, (), model.dimz, network=score.own_classifier().module)
    batch = torch.zeros(500, 3, 32, 32)  # stands for real images, which only the critic would see
    # By its call: a module's batch-norm statistics would be recomputed.
    return evaluate([batch], lambda x: x.new_zeros(len(x)), model.__call__)[1]["FID"]
