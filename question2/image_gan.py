"""Training a GAN of images (question 2.7): the data on the device, the training step of ``gan.py``, checkpoints.

A run can be killed at any moment; started again it goes on from its last checkpoint and ends, on a CPU, with the same
parameters to the bit. On CUDA some of cuDNN's sums have no fixed order, and the last bits are free.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.utils import save_image
from tqdm.auto import tqdm

from gan import EVAL_SEED, make_train_step, refresh_batch_norm
from lab import checkpoint
from lab.command_line import Interruption
from lab.device import native_bfloat16
from lab.record import Record
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
        fast: Channels-last weights and fused optimisers.
    """

    def __init__(self, hp: Hyperparameters, device: torch.device, fast: bool) -> None:
        torch.manual_seed(hp.seed)
        torch.backends.cudnn.benchmark = fast  # batches have one shape: trying every algorithm once pays
        layout = torch.channels_last if fast else torch.contiguous_format
        self.generator = (
            Generator(hp.generator_dimz, hp.generator_dimh, hp.batch_size).to(device).to(memory_format=layout)
        )
        self.critic = Critic(hp.critic_dimh, hp.critic_use_sn).to(device).to(memory_format=layout)
        self.averaged = copy.deepcopy(self.generator)
        capturable = fast and device.type == "cuda"
        self.generator_optim, self.critic_optim = (
            torch.optim.Adam(
                m.parameters(), lr, (betas[0], betas[1]), weight_decay=wd, fused=fast, capturable=capturable
            )
            if hp.optimizer == "Adam"
            else torch.optim.SGD(m.parameters(), lr, weight_decay=wd, fused=fast)
            for m, lr, betas, wd in (
                (self.generator, hp.generator_lr, hp.generator_betas, hp.generator_wd),
                (self.critic, hp.critic_lr, hp.critic_betas, hp.critic_wd),
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """The state of all five."""
        return {name: part.state_dict() for name, part in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            part.load_state_dict(state[name])


def in_bfloat16(network: nn.Module) -> Callable[..., Tensor]:
    """A network's passes with bfloat16 convolutions; parameters and output stay float32.

    Each pass is an autocast region of its own, because weights that it had cast would be stale after an update.
    Spectrally normalised weights are computed before it, in float32: their singular values are what is asked for.
    """
    device_type = next(network.parameters()).device.type

    def cast(*inputs: Tensor) -> Tensor:
        with nn.utils.parametrize.cached():
            for module in network.modules():
                if nn.utils.parametrize.is_parametrized(module):
                    _ = module.weight
            with torch.autocast(device_type, torch.bfloat16):
                return network(*inputs).float()

    return cast


def precision(fast: bool, device: torch.device) -> str:
    """The precision of a run's passes: bfloat16 on the fast path where the device computes it natively."""
    return "bfloat16" if fast and native_bfloat16(device) else "float32"


def make_advance(
    hp: Hyperparameters, players: Players, images: Tensor, total: Tensor, bfloat16: bool = False
) -> Callable[[], None]:
    """One generator update with its critic updates and the average; the metric is added to ``total``."""
    step = make_train_step(
        hp.loss_type, hp.critic_inner_iters, hp.critic_reg_type, hp.critic_reg_cf, hp.generator_alpha_ema
    )
    batches = Batches(images, hp.batch_size)
    critic, generator = (in_bfloat16(m) if bfloat16 else m for m in (players.critic, players.generator))

    def advance() -> None:
        total.add_(step(batches, critic, players.critic_optim, generator, players.averaged, players.generator_optim))

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
def as_kept(generator: Generator) -> Generator:
    """A copy of a generator as :func:`load_generator` gives it back, in evaluation mode.

    Parameters are rounded to float16, then the batch-norm statistics taken anew. What is scored is such a copy, so
    that the scores are those of the file.
    """
    copied = copy.deepcopy(generator).to(memory_format=torch.contiguous_format)
    for parameter in copied.parameters():
        parameter.copy_(parameter.half())
    refresh_batch_norm(copied, copied.dimz)
    return copied.eval()


def averaged_of(players: Players, hp: Hyperparameters) -> Generator:
    """The generator that a run is about: the averaged one, or the trained one where no average is kept."""
    return players.generator if hp.generator_alpha_ema is None else players.averaged


def save_generator(path: Path, generator: Generator, hp: Hyperparameters) -> None:
    """Keep a generator that :func:`as_kept` returned by itself, its parameters as float16."""
    sizes = {"dimz": hp.generator_dimz, "dimh": hp.generator_dimh}
    checkpoint.save(path, {**sizes, "network": checkpoint.as_float16(generator)})


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The generator that a run left in its folder, in evaluation mode: noise ``(N, dimz)`` to images.

    Raises:
        FileNotFoundError: There is no such file.
        checkpoint.DamagedError: It is damaged, or holds something else.
    """
    state = checkpoint.load(path, device)
    if state is None:
        raise FileNotFoundError(f"there is no generator at {path}")
    try:
        generator = Generator(state["dimz"], state["dimh"]).to(device)
        generator.load_state_dict(state["network"])
    except (KeyError, RuntimeError) as error:
        raise checkpoint.DamagedError(f"{path} holds no generator ({type(error).__name__})") from None
    return generator.eval()


@torch.no_grad()
def sample_grid(path: Path, generator: Generator, count: int = 64) -> None:
    """Images of the same noise each time, in every run, on a grid."""
    noise = torch.randn(count, generator.dimz, generator=torch.Generator().manual_seed(EVAL_SEED))
    images = generator(noise.to(next(generator.parameters()).device)).cpu()
    with checkpoint.atomic_write(path) as temporary:
        save_image(images, temporary, nrow=int(count**0.5), normalize=True, value_range=(-1, 1))


def use_fast(management: Management) -> bool:
    """Whether a run takes the fast path: unless it is told not to, for it is nowhere slower than the plain one."""
    return management.fast != "no"


class RandomState:
    """Torch's global random numbers on the CPU and on the device that trains, as a part of a checkpoint."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state_dict(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        return state | ({"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)


Evaluate = Callable[[Critic, Generator, Generator, bool], dict[str, float]]


def train(
    hp: Hyperparameters,
    management: Management,
    images: Tensor,
    folder: Path,
    evaluate: Evaluate | None = None,
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
        evaluate: Numbers of an evaluation, from the critic, the generator that is kept and the trained one, both
            :func:`as_kept`, and whether training is over.
        deadline: The moment of ``time.monotonic`` at which to stop with a checkpoint.
        label: The progress bar's.
        progress: Show it.

    Returns:
        The players, the lines of metrics, and the updates that are done: all of them, or as many as time allowed.
    """
    device = images.device
    fast = use_fast(management)
    players = Players(hp, device, fast)
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    total = torch.zeros((), device=device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs belong to the current one
    state = checkpoint.Checkpoint(folder / "checkpoint.pt", players=players, total=total, random=RandomState(device))
    done = state.restore()
    step, seconds = done.get("step", 0), done.get("seconds", 0.0)

    advance = make_advance(hp, players, images, total, precision(fast, device) == "bfloat16")
    advance = Graphed(advance) if fast and device.type == "cuda" else advance
    saved = time.monotonic()
    with (
        Interruption() as interruption,
        Record(folder, step) as record,
        tqdm(total=hp.max_iters, initial=step, desc=label, unit=" updates", disable=not progress) as bar,
    ):
        record.say(f"at update {step} of {hp.max_iters} on {device}")
        while step < hp.max_iters and time.monotonic() < deadline and not interruption.requested:
            started = time.perf_counter()
            until = min(hp.max_iters, *(n * (step // n + 1) for n in (management.log_every, management.eval_every)))
            while step < until and time.monotonic() < deadline and not interruption.requested:
                advance()
                step += 1
                bar.update()
            metric = total.item()  # waits for the device
            seconds += time.perf_counter() - started
            if not math.isfinite(metric):  # before a checkpoint would keep it
                raise FloatingPointError(f"{folder}, update {step}: the metric is {metric}; {state.last_good()}")
            last = step == hp.max_iters
            if step == until and (step % management.log_every == 0 or last):
                count = (step - 1) % management.log_every + 1
                record.add(step, metric=metric / count, seconds=seconds)
                total.zero_()
            if step == until and (step % management.eval_every == 0 or last):
                kept = as_kept(averaged_of(players, hp))
                sample_grid(folder / f"samples_{step:06}.png", kept)
                if evaluate:
                    record.add(step, **evaluate(players.critic, kept, as_kept(players.generator), last))
            if last or time.monotonic() - saved >= 60 * management.checkpoint_minutes:
                state.save(step=step, seconds=seconds)
                saved = time.monotonic()
        if step < hp.max_iters:
            state.save(step=step, seconds=seconds)
            record.say(f"stopped at update {step}")
        if interruption.requested and step < hp.max_iters:
            interruption.stop(f"{folder}: stopped at update {step}, saved")
    return players, record.lines, step
