"""Real images that come with an installed package, for machines without a network and for tests."""

import torch
import torch.nn.functional as F

from data.mnist import Splits


def digits(seed: int = 0) -> Splits:
    """Scikit-learn's 1,797 handwritten digits as binary 28×28 images, split at random.

    The 8×8 images are enlarged bilinearly and cut at half of the full intensity, so the same seed gives
    the same bits everywhere.

    Args:
        seed: Decides which image goes to which split.

    Returns:
        1,297 training, 250 validation and 250 test images, uint8, shape ``(N, 784)``, 0 or 1.

    Example:
        >>> [len(images) for images in digits()]
        [1297, 250, 250]
    """
    from sklearn.datasets import load_digits  # a second of imports that nobody else should pay

    images = torch.from_numpy(load_digits().images).unsqueeze(1) / 16
    enlarged = F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    bits = (enlarged > 0.5).flatten(1).to(torch.uint8)
    order = torch.randperm(len(bits), generator=torch.Generator().manual_seed(seed))
    return Splits(*bits[order].split([1297, 250, 250]))
