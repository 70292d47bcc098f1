"""Inception Score and Fréchet Inception Distance of generated images, and the same from a classifier of our own.

What moves the numbers, and what is chosen here: the network and its weights; uint8 images at their own size (Inception
enlarges them itself, as the original TensorFlow graph does); the number of samples; the reference, which is the 50,000
training images unless the test set is asked for; for the Inception Score, 10 splits after a shuffle.

Sources: Salimans et al. (2016), Improved techniques for training GANs; Heusel et al. (2017), GANs trained by a two
time-scale update rule converge to a local Nash equilibrium.
"""

import functools
import hashlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import gan
from data import DataUnavailableError
from gan import EvalStep
from lab.files import fingerprint
from question2 import classifier

INCEPTION_SHA256 = "6726825d"  # how the weights' SHA-256 begins; it is part of the published file's name
KEYS = ("IS", "FID", "KID", "precision", "recall")  # of the scores of an evaluation
KID_IMAGES, PRC_IMAGES = 10_000, 5000  # at most, of either kind


@dataclass
class Network:
    """A network that scores."""

    module: nn.Module  # maps uint8 images (N, 3, H, W) to features (N, d) and logits (N, classes)
    fingerprint: str  # of the weights
    suffix: str = ""  # after the scores' names: "-C" for those that are not Inception's


def inception(weights: str | Path | None = None, device: torch.device | str = "cpu") -> Network:
    """The Inception network of the original FID, through torch-fidelity.

    Without a file of weights it takes the one in torch's cache, downloading it once.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    try:
        if weights is None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=INCEPTION_SHA256)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, RuntimeError) as error:  # a file that cannot be read or written, or no network
        raise DataUnavailableError(
            f"Inception's weights cannot be read from {path} or downloaded ({error}): name the file with "
            "--inception_weights FILE, or score with --scores classifier."
        ) from None
    if not digest.startswith(INCEPTION_SHA256):
        raise DataUnavailableError(f"{path} does not hold Inception's published weights: its SHA-256 is {digest}")
    features = ["2048", "logits_unbiased"]
    module = FeatureExtractorInceptionV3("inception-v3-compat", features, feature_extractor_weights_path=str(path))
    return Network(module.to(device).eval(), digest)


def own_classifier(device: torch.device | str = "cpu") -> Network:
    """The classifier of ``classifier.py``. Its scores, FID-C and IS-C, cannot be compared with FID and IS."""
    digest = hashlib.sha256(classifier.WEIGHTS.read_bytes()).hexdigest()
    return Network(classifier.load(device=device), digest, "-C")


def network(name: str, weights: str | Path | None = None, device: torch.device | str = "cpu") -> Network:
    """The network ``inception`` or ``classifier``; ``auto`` is the first where it can be had, else the second."""
    if name == "classifier":
        return own_classifier(device)
    try:
        return inception(weights, device)
    except DataUnavailableError as error:
        if name != "auto" or weights:
            raise
        print(f"{error} Scoring with this project's own classifier instead.", file=sys.stderr)
        return own_classifier(device)


def batches(images: Tensor, count: int | None = None, batch_size: int = 500) -> Iterator[Tensor]:
    """Images in [-1, 1] from uint8 ones ``(N, 3, H, W)``, in order; round again until there are ``count``."""
    remaining = len(images) if count is None else count
    while remaining > 0:
        for batch in images[:remaining].split(batch_size):
            yield batch.float() / 127.5 - 1
        remaining -= len(images)


def make_evaluation(network: Network, real: Tensor, dimz: int, folder: str | Path, label: str = "real") -> EvalStep:
    """The evaluation of :func:`gan.make_eval_step`, against real images, with three more scores.

    KID compares the features by a polynomial kernel, without assuming that they are normal. Precision is the share of
    generated images that lie among the real ones, recall the share of real images that lie among the generated ones.
    They use up to 10,000 (KID) and 5,000 (precision and recall) images of either kind.

    Args:
        network: What scores.
        real: uint8 images ``(N, 3, H, W)``, on the device that evaluates.
        dimz: Size of the noise vector.
        folder: Where the real images' statistics are kept, in a file named by the fingerprint of images and network.
        label: How that name begins.

    Source:
        Bińkowski et al. (2018), Demystifying MMD GANs; Kynkäänniemi et al. (2019), Improved precision and recall
        metric for assessing generative models.
    """
    name = f"statistics{network.suffix}-{label}-{fingerprint(network.fingerprint, real)}.pt"
    precise = gan.precise_device(real.device)
    evaluate = gan.make_eval_step(Path(folder) / name, batches(real), dimz, device=real.device, network=network.module)

    @functools.cache
    @torch.no_grad()
    def real_features() -> Tensor:
        # At random, because the images of a data set may be sorted by class.
        chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(gan.EVAL_SEED))[:KID_IMAGES]
        features = [network.module(batch)[0] for batch in real[chosen.to(real.device)].split(500)]
        return torch.cat(features).to(precise).double()

    def eval_step(eval_data_iter, critic, generator) -> tuple[Tensor, dict[str, float]]:
        seen: list[Tensor] = []
        with network.module.register_forward_hook(lambda module, inputs, output: seen.append(output[0])):
            samples, scores = evaluate(eval_data_iter, critic, generator)
        generated = torch.cat(seen)[:KID_IMAGES].to(precise).double()
        return samples, scores | _further_scores(real_features(), generated)

    return eval_step


def _further_scores(real: Tensor, generated: Tensor) -> dict[str, float]:
    """KID, precision and recall from features ``(N, d)``."""
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(real), len(generated), 1000)
    with warnings.catch_warnings(action="ignore"):  # about the memory of all features: 10,000 vectors are little
        kid = KernelInceptionDistance(nn.Identity(), subsets=50, subset_size=size).to(real.device)
    kid.update(real, real=True)
    kid.update(generated, real=False)
    with torch.random.fork_rng([real.device] if real.device.type == "cuda" else []):
        torch.manual_seed(gan.EVAL_SEED)
        distance = kid.compute()[0].item()
    neighbours = min(3, size - 1)  # a folder may have fewer images than the usual three neighbours need
    some = generated[:PRC_IMAGES], real[:PRC_IMAGES]
    among = prc_features_to_metric(*some, prc_neighborhood=neighbours, verbose=False)
    return {"KID": distance, "precision": among["precision"], "recall": among["recall"]}


def distance(eval_step: EvalStep, images: Tensor) -> dict[str, float]:
    """The scores ``IS`` and ``FID`` of given uint8 images, ``(N, 3, H, W)``, in the place of a generator's."""
    given = batches(images)

    def replay(z: Tensor) -> Tensor:
        return next(given, z.new_zeros(len(z), *images.shape[1:]))  # the kept noise comes last, and has no image

    _, scores = eval_step(batches(images), lambda x: x.new_zeros(len(x)), replay)
    return scores
