"""A small residual classifier of CIFAR-10, whose features score generated images where Inception cannot be had.

    python -m question2.classifier --epochs 14 --out runs/classifier

trains it, goes on where a killed run stopped, and prints the accuracy on the test set. The weights in
``data/classifier.pt`` are such a run's, as float16, and ``data/classifier.json`` is what it printed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

import data
from lab import checkpoint, command_line

WEIGHTS = Path(__file__).parent.parent / "data" / "classifier.pt"
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images' channels, in [0, 1]
PADDING = 4  # pixels by which training shifts an image at most


@dataclass
class Hyperparameters:
    """What a run depends on."""

    data: str = field(default_factory=data.default_root)  # folder where data sets lie or are put
    width: int = 24  # channels of the first layer; they double three times
    epochs: int = 14  # passes over the training images
    batch_size: int = 256  # images per update
    learning_rate: float = 0.3  # peak of the one-cycle schedule of SGD with momentum
    weight_decay: float = 5e-4  # of all weights
    seed: int = 1  # of the initial weights, the order of the images and their shifts
    device: str = "auto"  # auto, cpu, cuda, ...
    out: str = "runs/classifier"  # folder of the run

    def __post_init__(self) -> None:
        if min(self.width, self.epochs, self.batch_size) < 1 or not self.learning_rate > 0 or self.weight_decay < 0:
            raise ValueError("width, epochs and batch_size must be at least 1, learning_rate positive")


class Convolution(nn.Sequential):
    """A 3×3 convolution with batch normalisation and ReLU."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__(nn.Conv2d(source, target, 3, padding=1, bias=False), nn.BatchNorm2d(target), nn.ReLU())


class Residual(nn.Module):
    """Two convolutions beside an identity (He et al. 2016, Deep residual learning for image recognition)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(Convolution(dim, dim), Convolution(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Classifier(nn.Module):
    """Images to features and to logits of the ten classes.

    Args:
        width: Channels of the first layer; 8 · width is the number of features.

    Example:
        >>> features, logits = Classifier(width=4)(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> features.shape, logits.shape
        (torch.Size([2, 32]), torch.Size([2, 10]))
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        stages: list[nn.Module] = [Convolution(3, width)]
        for dim in (width, 2 * width, 4 * width):
            stages += [Convolution(dim, 2 * dim), nn.MaxPool2d(2), Residual(2 * dim)]
        self.stages = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8 * width, len(data.CLASSES))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(N, 8 · width)`` and logits ``(N, 10)`` of uint8 images ``(N, 3, 32, 32)``."""
        features = self.stages((images.float() / 255 - self.mean) / self.deviation).float()
        return features, self.head(features)


def shifted(images: Tensor, index: Tensor) -> Tensor:
    """A batch of training images, each mirrored or not and moved by up to ``PADDING`` pixels.

    Args:
        images: uint8, ``(N, 3, 32 + 2 · PADDING, 32 + 2 · PADDING)``, padded.
        index: Which images, ``(B,)``.

    Returns:
        uint8, ``(B, 3, 32, 32)``.
    """
    count, device = len(index), images.device
    steps = torch.arange(32, device=device)
    top, left = torch.randint(2 * PADDING + 1, (2, count, 1), device=device)
    mirrored = torch.rand(count, 1, device=device) < 0.5
    columns = left + torch.where(mirrored, 31 - steps, steps)
    # In this order the channels come out last in memory, as the images have them.
    return images.permute(0, 2, 3, 1)[index[:, None, None], (top + steps)[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


@torch.no_grad()
def accuracy(network: Classifier, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """Share of images that are classified right; images and their mirror images vote together."""
    network.eval()
    right = 0
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        right += ((network(x)[1] + network(x.flip(3))[1]).argmax(1) == y).sum().item()
    return right / len(images)


def train(
    options: Hyperparameters, images: data.LabelledImages, progress: bool = True
) -> tuple[Classifier, list[dict]]:
    """Train a classifier, or go on from the checkpoint in the run's folder.

    Returns:
        The classifier, and per epoch the mean loss in nats and the seconds it took.
    """
    device = command_line.choose_device(options.device)
    padded = F.pad(images.train, [PADDING] * 4, mode="reflect").contiguous(memory_format=torch.channels_last).to(device)
    labels = images.train_labels.to(device)
    torch.manual_seed(options.seed)
    network = Classifier(options.width).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), options.learning_rate, momentum=0.9, nesterov=True, weight_decay=options.weight_decay
    )
    per_epoch = max(1, len(labels) // options.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        options.learning_rate,
        total_steps=per_epoch * options.epochs,
        pct_start=0.2,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=1e3,
    )
    history: list[dict] = []
    path = Path(options.out) / "checkpoint.pt"
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if state := checkpoint.load(path, device):
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history = state["history"]
    with tqdm(
        total=per_epoch * options.epochs, initial=per_epoch * len(history), unit=" updates", disable=not progress
    ) as bar:
        for epoch in range(len(history), options.epochs):
            started = time.perf_counter()
            # One seed an epoch: a run that goes on sees what it would have seen.
            torch.manual_seed(options.seed * 1000 + epoch)
            order = torch.randperm(len(labels), device=device)
            network.train()
            total = torch.zeros((), device=device)
            for index in order[: per_epoch * options.batch_size].split(options.batch_size):
                with torch.autocast(device.type, torch.bfloat16):
                    _, logits = network(shifted(padded, index))
                loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                total += loss.detach()
                bar.update()
            history.append({"loss": total.item() / per_epoch, "seconds": time.perf_counter() - started})
            bar.set_postfix(loss=f"{history[-1]['loss']:.3f}")
            checkpoint.save(path, {**{name: part.state_dict() for name, part in parts.items()}, "history": history})
    return network, history


def load(path: str | Path = WEIGHTS, device: torch.device | str = "cpu") -> Classifier:
    """A trained classifier in evaluation mode, float32.

    Raises:
        OSError: There is no such file.
    """
    state = torch.load(path, map_location=device, weights_only=True)
    network = Classifier(state["width"]).to(device, memory_format=torch.channels_last)
    network.load_state_dict(state["network"])
    return network.eval()


def run(options: Hyperparameters, progress: bool = True) -> dict[str, Any]:
    """Train, test, and write ``classifier.pt`` (float16) and ``result.json`` in the run's folder.

    Raises:
        ValueError: The folder holds another configuration's run.
        data.DataUnavailableError: CIFAR-10 cannot be had.
    """
    images = data.cifar10(options.data)
    checkpoint.claim_folder(options.out, options, free=("data", "out", "device"))
    network, history = train(options, images, progress)
    out = Path(options.out)
    checkpoint.save(out / "classifier.pt", {"width": options.width, "network": checkpoint.as_float16(network)})
    # What is tested is what is kept: the rounded weights.
    device = next(network.parameters()).device
    rounded = load(out / "classifier.pt", device)
    result = {
        "test_accuracy": accuracy(rounded, images.test.to(device), images.test_labels.to(device)),
        "bytes": (out / "classifier.pt").stat().st_size,
        "epochs": options.epochs,
        "width": options.width,
        "seconds": sum(epoch["seconds"] for epoch in history),
        "history": history,
    }
    checkpoint.write_json(out / "result.json", result)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Hyperparameters, "Train the classifier whose features score images.", argv)
    try:
        result = run(options)
    except (ValueError, data.DataUnavailableError) as error:
        command_line.fail(error)
    print(f"test accuracy {result['test_accuracy']:.4f}, {result['bytes']} bytes of weights, in {options.out}")


if __name__ == "__main__":
    main()
