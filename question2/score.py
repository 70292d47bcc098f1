"""Inception Score and Fréchet Inception Distance of generated images, and the same from a classifier of our own.

What moves the numbers, and what is chosen here: the network and its weights; uint8 images at their own size (Inception
enlarges them itself, as the original TensorFlow graph does); the number of samples; the reference, which is the 50,000
training images unless the test set is asked for; for the Inception Score, 10 splits after a shuffle.

Sources: Salimans et al. (2016), Improved techniques for training GANs; Heusel et al. (2017), GANs trained by a two
time-scale update rule converge to a local Nash equilibrium.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from data import DataUnavailableError
from lab import checkpoint
from question2 import classifier

INCEPTION_SHA256 = "6726825d"  # how the weights' SHA-256 begins; it is part of the published file's name
SPLITS = 10  # of the Inception Score


@dataclass
class Network:
    """A network that scores.

    Its module maps uint8 images ``(N, 3, H, W)`` to features ``(N, d)`` and logits ``(N, classes)``.
    """

    module: Callable[[Tensor], tuple[Tensor, Tensor]]
    num_features: int
    fingerprint: str  # of the weights
    suffix: str = ""  # after the scores' names: "-C" for those that are not Inception's

    @property
    def names(self) -> tuple[str, str]:
        """What its scores may be called."""
        return f"IS{self.suffix}", f"FID{self.suffix}"


def inception(weights: str | Path | None = None, device: torch.device | str = "cpu", check: bool = True) -> Network:
    """The Inception network of the original FID, through torch-fidelity.

    Args:
        weights: The weights' file; None takes the one in torch's cache, downloading it once.
        device: Where it runs.
        check: Refuse a file whose SHA-256 is not the published one.

    Raises:
        DataUnavailableError: The weights cannot be had, or the file is another one.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    if not path.exists() and weights is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:
            raise DataUnavailableError(
                f"Inception's weights could not be downloaded ({error}): name the file with --inception_weights FILE, "
                "or score with --scores classifier."
            ) from None
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataUnavailableError(f"{path} cannot be read ({error})") from None
    if check and not digest.startswith(INCEPTION_SHA256):
        raise DataUnavailableError(f"{path} does not hold Inception's published weights: its SHA-256 is {digest}")
    features = ["2048", "logits_unbiased"]
    module = FeatureExtractorInceptionV3("inception-v3-compat", features, feature_extractor_weights_path=str(path))
    return Network(module.to(device).eval(), 2048, digest)


def own_classifier(weights: str | Path = classifier.WEIGHTS, device: torch.device | str = "cpu") -> Network:
    """The classifier of ``classifier.py``. Its scores, FID-C and IS-C, cannot be compared with FID and IS.

    Raises:
        DataUnavailableError: The weights' file cannot be read.
    """
    try:
        digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        module = classifier.load(weights, device)
    except OSError as error:
        raise DataUnavailableError(f"the classifier's weights cannot be read ({error})") from None
    return Network(module, module.head.in_features, digest, "-C")


def network(name: str, weights: str | Path | None = None, device: torch.device | str = "cpu") -> Network:
    """The network of a name: ``inception``, ``classifier``, or ``auto``: the first where it can be had, with a warning
    the second where not.
    """
    if name == "classifier":
        return own_classifier(device=device)
    try:
        return inception(weights, device)
    except DataUnavailableError as error:
        if name != "auto" or weights:
            raise
        warnings.warn(f"{error} Going on with the classifier of this project.", stacklevel=2)
        return own_classifier(device=device)


class _Given(nn.Module):
    """Stands in for a metric's network: the features have been computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class Scores:
    """Both scores of images that come in batches, from one pass of the network.

    Args:
        scorer: The network.
        reference: What :func:`reference` returned.
        device: Where the sums are kept.
    """

    def __init__(self, scorer: Network, reference: dict[str, Tensor], device: torch.device | str) -> None:
        self.scorer = scorer
        given = _Given(scorer.num_features)
        self.fid = FrechetInceptionDistance(given, reset_real_features=False).to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the memory of all logits: 50,000 × 10 is little
            self.inception_score = InceptionScore(given, splits=SPLITS).to(device)
        if reference:
            for name, value in reference.items():
                getattr(self.fid, f"real_features_{name}").copy_(value)

    @torch.no_grad()
    def update(self, images: Tensor, real: bool = False) -> None:
        """Take in uint8 images ``(N, 3, H, W)``."""
        features, logits = self.scorer.module(images)
        self.fid.update(features.double(), real)
        if not real:
            self.inception_score.update(logits.double())

    def compute(self) -> dict[str, float]:
        """The scores, and the Inception Score's standard deviation over the splits."""
        inception_name, fid_name = self.scorer.names
        device = self.fid.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)  # the shuffle before the splits
            mean, deviation = self.inception_score.compute()
        return {
            inception_name: mean.item(),
            f"{inception_name}_deviation": deviation.item(),
            fid_name: self.fid.compute().item(),
        }


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes, rounded to the nearest."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def reference(
    scorer: Network, images: Tensor, path: str | Path | None = None, batch_size: int = 500
) -> dict[str, Tensor]:
    """The sums that a set of real images contributes to the FID: of features, of their products, and their number.

    Args:
        scorer: The network.
        images: uint8, ``(N, 3, H, W)``.
        path: Where they are kept. What is there is taken only if network, images and preprocessing are the same.
        batch_size: Images in a pass.
    """
    content = images.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    fingerprint = hashlib.sha256(
        f"uint8 {content.shape} {scorer.fingerprint} ".encode() + content.tobytes()
    ).hexdigest()
    if path and (held := checkpoint.load(path, images.device)) and held.get("fingerprint") == fingerprint:
        return held["sums"]
    scores = Scores(scorer, {}, images.device)
    for batch in images.split(batch_size):
        scores.update(batch, real=True)
    sums = {name: getattr(scores.fid, f"real_features_{name}") for name in ("sum", "cov_sum", "num_samples")}
    if path:
        checkpoint.save(path, {"fingerprint": fingerprint, "sums": sums})
    return sums


def score(
    scorer: Network, sums: dict[str, Tensor], batches: Iterable[Tensor], device: torch.device | str
) -> dict[str, float]:
    """The scores of uint8 images against a reference."""
    scores = Scores(scorer, sums, device)
    for batch in batches:
        scores.update(batch)
    return scores.compute()


@torch.no_grad()
def generated(generator: nn.Module, dimz: int, count: int, seed: int, batch_size: int = 500) -> Iterable[Tensor]:
    """What a generator draws from the same noise each time, uint8; training's random numbers are not touched."""
    weight = next(generator.parameters())
    noise = torch.Generator(weight.device).manual_seed(seed)
    for start in range(0, count, batch_size):
        z = torch.randn(min(batch_size, count - start), dimz, device=weight.device, generator=noise)
        yield to_uint8(generator(z))
