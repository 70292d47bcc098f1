"""A small residual classifier of CIFAR-10, whose features score generated images if Inception is not available.

``experiments/classifier.py`` trained the weights in ``data/classifier.pt`` (float16); ``data/classifier.json`` is the
output of that run.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation
from torchvision.transforms.functional import normalize

from data.cifar import CLASSES
from lab import checkpoint

WEIGHTS = Path(__file__).parent.parent / "data" / "classifier.pt"
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images' channels, in [0, 1]


class Residual(nn.Module):
    """Two convolutions beside an identity (He et al. 2016, Deep residual learning for image recognition)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(Conv2dNormActivation(dim, dim), Conv2dNormActivation(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Classifier(nn.Module):
    """Images to features, 8 · width of them, and to logits of the ten classes, by 3×3 convolutions.

    Example:
        >>> features, logits = Classifier(width=4)(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> features.shape, logits.shape
        (torch.Size([2, 32]), torch.Size([2, 10]))
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        stages: list[nn.Module] = [Conv2dNormActivation(3, width)]
        for dim in (width, 2 * width, 4 * width):
            stages += [Conv2dNormActivation(dim, 2 * dim), nn.MaxPool2d(2), Residual(2 * dim)]
        self.stages = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8 * width, len(CLASSES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(N, 8 · width)`` and logits ``(N, 10)`` of uint8 images ``(N, 3, 32, 32)``."""
        features = self.stages(normalize(images.float() / 255, MEAN, DEVIATION)).float()
        return features, self.head(features)


def load(path: str | Path = WEIGHTS, device: torch.device | str = "cpu") -> Classifier:
    """A trained classifier in evaluation mode, float32."""
    state = checkpoint.load(path, device)
    network = Classifier(state["width"]).to(device).to(memory_format=torch.channels_last)
    network.load_state_dict(state["network"])
    return network.eval()
