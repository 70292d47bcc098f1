"""Train the classifier whose features score images: python -m experiments.classifier --out runs/classifier"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from data import cifar10, default_root
from data.cifar import LabelledImages
from lab import checkpoint, interruption
from lab.claim import claim
from lab.device import choose_device, native_bfloat16
from lab.files import fingerprint, write_json
from lab.options import check, determining, option, parse
from question2 import classifier
from question2.classifier import Classifier

PADDING = 4  # pixels by which training shifts an image at most


@dataclass
class Hyperparameters:
    """The classifier and its training."""

    data: str = option(default_factory=default_root, bookkeeping=True)  # folder where data sets lie or are put
    width: int = option(24, at_least=1)  # channels of the first layer; they double three times
    epochs: int = option(14, at_least=1)  # passes over the training images
    batch_size: int = option(256, at_least=1)  # images per update
    learning_rate: float = option(0.3, above=0)  # peak of the one-cycle schedule of SGD with momentum
    weight_decay: float = option(5e-4, at_least=0)  # of all weights
    seed: int = option(1, at_least=0)  # of the initial weights, the order of the images and their shifts
    device: str = option("auto", bookkeeping=True)  # auto, cpu, cuda, ...
    out: str = option("runs/classifier", bookkeeping=True)  # folder of the run

    def __post_init__(self) -> None:
        check(self)


def shifted(images: Tensor, index: Tensor) -> Tensor:
    """A batch ``(B, 3, 32, 32)`` of padded images by their indices, each mirrored or not and moved by some pixels."""
    count, device = len(index), images.device
    steps = torch.arange(32, device=device)
    top, left = torch.randint(2 * PADDING + 1, (2, count, 1), device=device)
    mirrored = torch.rand(count, 1, device=device) < 0.5
    rows, columns = top + steps, left + torch.where(mirrored, 31 - steps, steps)
    # In this order the channels come out last in memory, as the images have them.
    batch = images.permute(0, 2, 3, 1)[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    return batch.permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of images that are classified right; images and their mirror images vote together."""
    batches = (network(x)[1] + network(x.flip(3))[1] for x in images.split(1000))
    return (torch.cat([votes.argmax(1) for votes in batches]) == labels).double().mean().item()


def train(options: Hyperparameters, images: LabelledImages) -> tuple[Classifier, list[dict[str, Any]]]:
    """Train a classifier, or resume; also the lines of the epochs: the mean loss in nats and the seconds."""
    device = choose_device(options.device)
    padded = F.pad(images.train, [PADDING] * 4, mode="reflect").contiguous(memory_format=torch.channels_last).to(device)
    labels = images.train_labels.to(device)
    torch.manual_seed(options.seed)
    network = Classifier(options.width).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, weight_decay=options.weight_decay)
    updates = max(1, len(labels) // options.batch_size)  # of an epoch
    steps = max(6, updates * options.epochs)  # fewer leave the rise no step
    pace: dict[str, Any] = {"pct_start": 0.2, "anneal_strategy": "linear", "final_div_factor": 1e3}
    scheduler = OneCycleLR(optimizer, options.learning_rate, steps, cycle_momentum=False, **pace)
    origin = {**determining(options), "images": fingerprint(images.train)}
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    state = checkpoint.Checkpoint(Path(options.out) / "checkpoint.pt", origin, **parts)
    lines: list[dict[str, float]] = state.restore().get("lines", [])
    for epoch in range(len(lines) + 1, options.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(options.seed * 1000 + epoch - 1)  # a run that resumes sees what it would have seen
        order = torch.randperm(len(labels), device=device)[: updates * options.batch_size]
        network.train()
        total = torch.zeros((), device=device)
        for index in tqdm(order.split(options.batch_size), f"epoch {epoch} of {options.epochs}"):
            with torch.autocast(device.type, torch.bfloat16, enabled=native_bfloat16(device)):
                _, logits = network(shifted(padded, index))
            loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.detach()
        lines.append({"loss": total.item() / updates, "seconds": time.perf_counter() - started})
        state.save(lines=lines)
    return network, lines


def run(options: Hyperparameters) -> dict[str, Any]:
    """Train, test, and write ``classifier.pt`` (float16) and ``result.json`` in the run's folder."""
    images, device, out = cifar10(options.data), choose_device(options.device), Path(options.out)
    with claim(out, options):
        network, history = train(options, images)
        checkpoint.save(out / "classifier.pt", {"width": options.width, "network": checkpoint.as_float16(network)})
        rounded = classifier.load(out / "classifier.pt", device)  # what is tested is what is kept
        result = {
            "test_accuracy": accuracy(rounded, images.test.to(device), images.test_labels.to(device)),
            "width": options.width,
            "history": history,
        }
        write_json(out / "result.json", result)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    about = "Train the classifier of the scores."
    options = parse(Hyperparameters, about, argv, program="python -m experiments.classifier")
    with interruption.one_line_errors():
        print(f"test accuracy {run(options)['test_accuracy']:.4f}; weights in {options.out}")


if __name__ == "__main__":
    main()
