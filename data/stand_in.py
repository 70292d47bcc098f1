"""Real images from an installed package, for tests and for machines without a network."""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.mnist import Splits


def digits(seed: int = 0) -> Splits:
    """Scikit-learn's handwritten digits as binary 28×28 images, split at random into 1,297, 250 and 250.

    The 8×8 images are enlarged bilinearly and thresholded at half of the full intensity.
    """
    bits = (_enlarged(28) > 0.5).flatten(1).to(torch.uint8)
    order = torch.randperm(len(bits), generator=torch.Generator().manual_seed(seed))
    return Splits(*bits[order].split([1297, 250, 250]))


def digit_images() -> Tensor:
    """The digits in shades of grey, a stand-in for CIFAR-10: uint8, ``(1797, 3, 32, 32)``."""
    return (_enlarged(32) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _enlarged(size: int) -> Tensor:
    """The 8×8 digits enlarged to ``(1797, 1, size, size)``, from 0 to 1."""
    from sklearn.datasets import load_digits  # its import takes a second

    images = torch.from_numpy(load_digits().images).unsqueeze(1) / 16
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
