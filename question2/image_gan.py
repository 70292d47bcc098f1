"""Training a GAN of images (question 2.7): the data on the device, the training step of ``gan.py``, checkpoints.

A run can be killed at any moment; started again it goes on from its last checkpoint and ends, on a CPU, with the same
parameters to the bit. On CUDA some of cuDNN's sums have no fixed order, and the last bits are free.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import save_image
from tqdm.auto import tqdm

from gan import make_train_step
from lab import checkpoint
from model import Critic, Generator
from question2.configurations import Hyperparameters, Management

GRAPH_WARMUP = 3  # updates that run before one is captured as a CUDA graph


class Batches(Iterator[Tensor]):
    """Endless random batches of images in [-1, 1], drawn with replacement by torch's own generator.

    Args:
        images: uint8, ``(N, 3, H, W)``, on the device.
        size: Images in a batch.
    """

    def __init__(self, images: Tensor, size: int) -> None:
        self.images, self.size = images, size

    def __next__(self) -> Tensor:
        index = torch.randint(len(self.images), (self.size,), device=self.images.device)
        return self.images[index].float() / 127.5 - 1


class Players:
    """Everything that an update changes: both networks, the averaged generator, both optimisers.

    Args:
        hp: The run's hyper-parameters.
        device: Where the networks live.
        fast: bfloat16 autocast, channels-last weights and fused optimisers.
    """

    def __init__(self, hp: Hyperparameters, device: torch.device, fast: bool) -> None:
        torch.manual_seed(hp.seed)
        torch.backends.cudnn.benchmark = fast  # batches have one shape: trying every algorithm once pays
        self.generator = Generator(hp.dimz, hp.generator_dimh, hp.batch_size).to(device)
        self.critic = Critic(hp.critic_dimh, hp.spectral_norm).to(device)
        self.averaged = copy.deepcopy(self.generator)
        capturable = fast and device.type == "cuda"
        betas = (hp.beta1, hp.beta2)
        self.generator_optim, self.critic_optim = (
            torch.optim.Adam(m.parameters(), lr, betas, weight_decay=wd, fused=fast, capturable=capturable)
            for m, lr, wd in (
                (self.generator, hp.generator_lr, hp.generator_wd),
                (self.critic, hp.critic_lr, hp.critic_wd),
            )
        )
        if fast:
            for network in (self.generator, self.critic, self.averaged):
                run_in_bfloat16(network)

    def state_dict(self) -> dict[str, Any]:
        """The state of all five."""
        return {name: part.state_dict() for name, part in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            part.load_state_dict(state[name])


def run_in_bfloat16(network: nn.Module) -> None:
    """Make a network's passes use bfloat16 and channels-last convolutions; parameters and output stay float32.

    Each pass is an autocast region of its own, because weights that it had cast would be stale after an update.
    Spectrally normalised weights are computed before it, in float32: their singular values are what is asked for.
    """
    network.to(memory_format=torch.channels_last)
    forward = network.forward
    device_type = next(network.parameters()).device.type

    def cast(*inputs: Tensor) -> Tensor:
        with nn.utils.parametrize.cached():
            for module in network.modules():
                if nn.utils.parametrize.is_parametrized(module):
                    _ = module.weight
            with torch.autocast(device_type, torch.bfloat16):
                return forward(*inputs).float()

    network.forward = cast  # type: ignore[method-assign]


def make_advance(hp: Hyperparameters, players: Players, images: Tensor, total: Tensor) -> Callable[[], None]:
    """One generator update with its critic updates and the average; the metric is added to ``total``."""
    step = make_train_step(hp.loss_type, hp.critic_inner_iters, hp.reg_type, hp.reg_cf, hp.alpha_ema)
    batches = Batches(images, hp.batch_size)

    def advance() -> None:
        total.add_(
            step(
                batches,
                players.critic,
                players.critic_optim,
                players.generator,
                players.averaged,
                players.generator_optim,
            )
        )

    return advance


class Graphed:
    """A function of no arguments that replays itself as a CUDA graph after some ordinary calls.

    The calls before the capture are full updates, so nothing happens twice or not at all.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self.function, self.calls = function, 0
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream()

    def __call__(self) -> None:
        if self.calls < GRAPH_WARMUP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.function()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            if self.calls == GRAPH_WARMUP:
                with torch.cuda.graph(self.graph, stream=self.stream):
                    self.function()
            self.graph.replay()
        self.calls += 1


@torch.no_grad()
def refresh_average(players: Players, hp: Hyperparameters, batches: int = 100) -> Generator:
    """The averaged generator with batch-norm statistics of its own weights, or the generator's copy without average.

    Averages of weights and averages of activations do not go together, so the statistics are taken anew from noise.
    Training's random numbers are left as they were.
    """
    device = next(players.averaged.parameters()).device
    if hp.alpha_ema is None:
        players.averaged.load_state_dict(players.generator.state_dict())
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(hp.seed)
        noise = (players.averaged.draw_noise(hp.batch_size) for _ in range(batches))
        update_bn(noise, players.averaged)
    return players.averaged.eval()


def save_generator(path: Path, generator: Generator, hp: Hyperparameters) -> None:
    """Keep a trained generator by itself, as float16."""
    sizes = {"dimz": hp.dimz, "dimh": hp.generator_dimh}
    checkpoint.save(path, {**sizes, "network": checkpoint.as_float16(generator)})


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The generator that a run left in its folder, in evaluation mode: noise ``(N, dimz)`` to images.

    Raises:
        OSError: There is no such file.
    """
    state = torch.load(path, map_location=device, weights_only=True)
    generator = Generator(state["dimz"], state["dimh"]).to(device)
    generator.load_state_dict(state["network"])
    return generator.eval()


@torch.no_grad()
def sample_grid(path: Path, generator: Generator, hp: Hyperparameters, count: int = 64) -> None:
    """Images of the same noise each time, on a grid."""
    noise = torch.randn(count, hp.dimz, generator=torch.Generator().manual_seed(hp.seed))
    images = generator(noise.to(next(generator.parameters()).device)).cpu()
    with checkpoint.atomic_write(path) as temporary:
        save_image(images, temporary, nrow=int(count**0.5), normalize=True, value_range=(-1, 1))


class Record:
    """A run's lines of metrics: ``metrics.jsonl``, TensorBoard and ``log.txt``, cut back to where the run goes on.

    Args:
        folder: The run's folder.
        step: The update that the run goes on from; what was written later is dropped, since it will come again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.lines = [line for line in map(_parsed, lines) if line and line["step"] <= step]
        with checkpoint.atomic_write(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        self.metrics: TextIO = self.path.open("a")
        self.log: TextIO = (folder / "log.txt").open("a")
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *error: object) -> None:
        for part in (self.metrics, self.log, self.writer):
            part.close()

    def add(self, step: int, **values: float) -> None:
        """One line of numbers."""
        line = {"step": step, **values}
        self.lines.append(line)
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()
        self.say(f"update {step}: " + ", ".join(f"{name} {value:.5g}" for name, value in values.items()))
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self.log.flush()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the last line of a run that was killed while it wrote
        return None


def use_fast(management: Management, device: torch.device) -> bool:
    """Whether ``--fast`` holds on a device."""
    return management.fast == "yes" or (management.fast == "auto" and device.type == "cuda")


def train(
    hp: Hyperparameters,
    management: Management,
    images: Tensor,
    folder: Path,
    evaluate: Callable[[Generator, bool], dict[str, float]] | None = None,
    deadline: float = math.inf,
    label: str = "",
    progress: bool = True,
) -> tuple[Players, list[dict[str, Any]], int]:
    """Train a GAN, or go on from the checkpoint in the run's folder.

    Args:
        hp: The run.
        management: How often things are written, and ``fast``.
        images: uint8, ``(N, 3, 32, 32)``, on the device that trains.
        folder: Where the run lives.
        evaluate: Scores of a generator, called with it and with whether training is over.
        deadline: The moment of ``time.monotonic`` at which to stop with a checkpoint.
        label: The progress bar's.
        progress: Show it.

    Returns:
        The players, the lines of metrics, and the updates that are done: all of them, or as many as time allowed.
    """
    device = images.device
    fast = use_fast(management, device)
    players = Players(hp, device, fast)
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    total = torch.zeros((), device=device)
    step, seconds = 0, 0.0
    path = folder / "checkpoint.pt"
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs belong to the current one
    if state := checkpoint.load(path):
        players.load_state_dict(state["players"])
        step, seconds = state["step"], state["seconds"]
        total.copy_(state["total"])
        _set_random_state(state["random"], device)

    def save() -> None:
        checkpoint.save(
            path,
            {
                "players": players.state_dict(),
                "step": step,
                "seconds": seconds,
                "total": total,
                "random": _random_state(device),
            },
        )

    advance = make_advance(hp, players, images, total)
    advance = Graphed(advance) if fast and device.type == "cuda" else advance
    saved = time.monotonic()
    with (
        Record(folder, step) as record,
        tqdm(total=hp.max_iters, initial=step, desc=label, unit=" updates", disable=not progress) as bar,
    ):
        record.say(f"at update {step} of {hp.max_iters} on {device}")
        while step < hp.max_iters and time.monotonic() < deadline:
            started = time.perf_counter()
            until = min(hp.max_iters, *(n * (step // n + 1) for n in (management.log_every, management.eval_every)))
            while step < until and time.monotonic() < deadline:
                advance()
                step += 1
                bar.update()
            metric = total.item()  # waits for the device
            seconds += time.perf_counter() - started
            if not math.isfinite(metric):  # before a checkpoint would keep it
                raise FloatingPointError(f"{label}: the metric is {metric} at update {step}")
            last = step == hp.max_iters
            if step == until and (step % management.log_every == 0 or last):
                count = (step - 1) % management.log_every + 1
                record.add(step, metric=metric / count, seconds=seconds)
                total.zero_()
            if step == until and (step % management.eval_every == 0 or last):
                generator = refresh_average(players, hp)
                sample_grid(folder / f"samples_{step:06}.png", generator, hp)
                if evaluate:
                    record.add(step, **evaluate(generator, last))
            if last or time.monotonic() - saved >= 60 * management.checkpoint_minutes:
                save()
                saved = time.monotonic()
        if step < hp.max_iters:
            save()
            record.say(f"stopped at update {step}, time is up")
    return players, record.lines, step


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
