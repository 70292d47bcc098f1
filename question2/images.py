"""Image runs (question 2.7): the data on the device, the training step of ``gan.py``, checkpoints and scores.

A run can be killed at any moment. Started again it resumes from its last checkpoint and ends, on a CPU, with the same
parameters to the bit. On CUDA some of cuDNN's sums have no fixed order, and the last bits are free.
"""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import data
from gan import EVAL_SEED, EvalStep, make_train_step, refresh_batch_norm
from lab import checkpoint
from lab.device import Graphed, choose_device, in_bfloat16, native_bfloat16, warn_if_busy
from lab.files import atomic_write, fingerprint, read_json, write_json
from lab.interruption import Interruption
from lab.options import determining
from lab.record import Record
from model import Critic, Generator
from question2 import score
from question2.configurations import Hyperparameters, Management, Run


def random_batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Endless random batches of images in [-1, 1], drawn with replacement from uint8 ones ``(N, 3, H, W)``."""
    while True:
        index = torch.randint(len(images), (size,), device=images.device)
        yield images[index].float() / 127.5 - 1


class Players:
    """Everything that an update changes: both networks, the averaged generator, both optimisers.

    Where no average is kept, the averaged generator is the trained one. ``fast`` stands for channels-last weights and
    fused optimisers.
    """

    def __init__(self, hp: Hyperparameters, device: torch.device, fast: bool) -> None:
        torch.manual_seed(hp.seed)
        torch.backends.cudnn.benchmark = fast  # batches have one shape: trying every algorithm once pays
        layout = torch.channels_last if fast else torch.contiguous_format
        place: dict[str, Any] = {"device": device, "memory_format": layout}
        self.generator = Generator(hp.generator_dimz, hp.generator_dimh, hp.batch_size).to(**place)
        self.critic = Critic(hp.critic_dimh, hp.critic_use_sn).to(**place)
        self.averaged = self.generator if hp.generator_alpha_ema is None else copy.deepcopy(self.generator)

        def optimizer(network: nn.Module, lr: float, wd: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
            if hp.optimizer == "SGD":
                return torch.optim.SGD(network.parameters(), lr, weight_decay=wd, fused=fast)
            graphed = fast and device.type == "cuda"
            return torch.optim.Adam(network.parameters(), lr, betas, weight_decay=wd, fused=fast, capturable=graphed)

        self.generator_optim = optimizer(self.generator, hp.generator_lr, hp.generator_wd, hp.generator_betas)
        self.critic_optim = optimizer(self.critic, hp.critic_lr, hp.critic_wd, hp.critic_betas)


def make_advance(
    hp: Hyperparameters, players: Players, images: Tensor, total: Tensor, fast: bool
) -> Callable[[], None]:
    """One generator update with its critic updates and the average; the metric is added to ``total``.

    ``fast`` stands for channels-last images, bfloat16 where it is native, and on CUDA graphs.
    """
    step = make_train_step(
        hp.loss_type, hp.critic_inner_iters, hp.critic_reg_type, hp.critic_reg_cf, hp.generator_alpha_ema
    )
    images = images.contiguous(memory_format=torch.channels_last) if fast else images
    batches = random_batches(images, hp.batch_size)
    bfloat16 = fast and native_bfloat16(images.device)
    critic, generator = (in_bfloat16(m) if bfloat16 else m for m in (players.critic, players.generator))

    def advance() -> None:
        total.add_(step(batches, critic, players.critic_optim, generator, players.averaged, players.generator_optim))

    return Graphed(advance) if fast and images.device.type == "cuda" else advance


@torch.no_grad()
def as_kept(generator: Generator) -> Generator:
    """A copy of a generator as :func:`load_generator` gives it back, in evaluation mode.

    Parameters are rounded to float16, then the batch-norm statistics are recomputed. Scores are computed from this
    copy, so they match the saved file.
    """
    copied = copy.deepcopy(generator).to(memory_format=torch.contiguous_format)
    for parameter in copied.parameters():
        parameter.copy_(parameter.half())
    refresh_batch_norm(copied, copied.dimz)
    return copied.eval()


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The generator that a run left in its folder, in evaluation mode: noise ``(N, dimz)`` to images."""
    state = checkpoint.load(path, device)
    try:
        generator = Generator(state["dimz"], state["dimh"]).to(device)
        generator.load_state_dict(state["network"])
    except (KeyError, RuntimeError) as error:
        raise checkpoint.DamagedError(f"{path} holds no generator ({type(error).__name__})") from None
    return generator.eval()


@torch.no_grad()
def sample_grid(path: Path, generator: Generator, count: int = 64) -> None:
    """Images of the same noise each time, in every run, on a grid."""
    from torchvision.utils import save_image

    noise = torch.randn(count, generator.dimz, generator=torch.Generator().manual_seed(EVAL_SEED))
    images = generator(noise.to(next(generator.parameters()).device)).cpu()
    with atomic_write(path) as temporary:
        save_image(images, temporary, nrow=int(count**0.5), normalize=True, value_range=(-1, 1))


Evaluate = Callable[[Critic, Generator, Generator, bool], dict[str, float]]


def train(
    run: Run, images: Tensor, evaluate: Evaluate | None = None, deadline: float = math.inf, progress: bool = True
) -> tuple[Players, list[dict[str, Any]], int]:
    """Train a GAN, or resume from the checkpoint in the run's folder.

    Args:
        run, images: The run, and uint8 images ``(N, 3, 32, 32)`` on the device that trains.
        evaluate: Numbers of an evaluation, from the critic, the generator that is kept and the trained one, both
            :func:`as_kept`, and whether training is over.
        deadline: The moment of ``time.monotonic`` at which to stop with a checkpoint.
        progress: Show a progress bar.

    Returns:
        The players, the lines of metrics, and the updates that are done: all of them, or as many as time allowed.
    """
    hp, management, folder, device = run.hp, run.management, run.folder, images.device
    folder.mkdir(parents=True, exist_ok=True)
    fast, on_cuda = management.fast != "no", device.type == "cuda"  # fast is nowhere slower than the plain path
    players = Players(hp, device, fast)
    total = torch.zeros((), device=device)
    if on_cuda:
        torch.cuda.set_device(device)  # streams and graphs belong to the current one
    fixed = {key: value for key, value in determining(hp).items() if key != "max_iters"}
    origin = {**fixed, "images": fingerprint(images)}
    random = torch.cuda.default_generators[device.index] if on_cuda else torch.default_generator
    state = checkpoint.Checkpoint(folder / "checkpoint.pt", origin, **vars(players), total=total, random=random)
    done = state.restore()
    for group in (*players.generator_optim.param_groups, *players.critic_optim.param_groups):
        group["capturable"] = fast and on_cuda  # for CUDA graphs; a run may have changed its device
    step, seconds = done.get("step", 0), done.get("seconds", 0.0)

    advance = make_advance(hp, players, images, total, fast)
    saved = time.monotonic()
    with (
        Interruption() as interruption,
        Record(folder, done.get("lines", [])) as record,
        tqdm(total=hp.max_iters, initial=step, desc=run.name, unit="update", disable=not progress) as bar,
    ):
        while step < hp.max_iters and time.monotonic() < deadline and not interruption.requested:
            started = time.perf_counter()
            advance()
            step += 1
            bar.update()
            last = step == hp.max_iters
            logs, evaluates = (last or step % every == 0 for every in (management.log_every, management.eval_every))
            if logs:
                metric = total.item() / ((step - 1) % management.log_every + 1)  # waits for the device
            seconds += time.perf_counter() - started
            if logs:
                if not math.isfinite(metric):
                    raise FloatingPointError(f"{folder}, update {step}: the metric is {metric}; {state.last_good()}")
                record.add(step, metric=metric, seconds=seconds)
                total.zero_()
            if evaluates:
                kept = as_kept(players.averaged)
                trained = as_kept(players.generator)
                sample_grid(folder / f"samples_{step:06}.png", kept)
                if hp.generator_alpha_ema is not None:  # in a short run the average still holds its first weights
                    sample_grid(folder / f"trained_samples_{step:06}.png", trained)
                if evaluate:
                    record.add(step, **evaluate(players.critic, kept, trained, last))
            minutes = (time.monotonic() - saved) / 60
            if last or ((logs or evaluates) and minutes >= management.checkpoint_minutes):
                state.save(step=step, seconds=seconds, lines=record.lines)
                saved = time.monotonic()
        if step < hp.max_iters:
            state.save(step=step, seconds=seconds, lines=record.lines)
        if interruption.requested:
            interruption.stop(f"{folder}: stopped at update {step}, saved")
    return players, record.lines, step


@dataclass
class Images:
    """Images on the device, and what scores generated ones against them."""

    dataset: str
    train: Tensor
    test: Tensor
    network: score.Network | None
    management: Management  # with the data set, the scores and the device that ``auto`` stood for

    def evaluation(self, dimz: int) -> EvalStep:
        """The evaluation step for generators of a noise size, against the reference that was asked for."""
        assert self.network is not None
        reference = self.management.fid_reference
        real = self.train if reference == "train" else self.test
        label = f"{reference}-{Path(self.dataset).name}"
        return score.make_evaluation(self.network, real, dimz, self.management.data_path, label)


def load_images(management: Management) -> Images:
    """The images, and the network that scores."""
    device = choose_device(management.device)
    dataset, train, test = data.load_images(management.dataset, management.data_path)
    network, scores = None, "none"
    if management.scores != "none" and not (management.scores == "auto" and dataset != "cifar10"):
        network = score.network(management.scores, management.inception_weights or None, device)
        scores = "classifier" if network.suffix else "inception"
    held_out = test if len(test) > 1 else train  # a folder of a few images has too few others for an FID
    found: dict[str, Any] = {"dataset": dataset, "scores": scores, "device": device.type}
    management = dataclasses.replace(management, **found, fast="no" if management.fast == "no" else "yes")
    return Images(dataset, train.to(device), held_out.to(device), network, management)


def run_all(runs: Sequence[Run], progress: bool = True) -> tuple[list[Run], Images, dict[str, dict[str, Any] | None]]:
    """Do image runs, one after the other; none if a folder holds another configuration's run.

    Returns:
        The runs as they were done, with what ``auto`` stood for; the images; the results by label, None where time
        was up before the end.
    """
    deadline = time.monotonic() + (60 * runs[0].management.max_minutes or math.inf)
    images = load_images(runs[0].management)
    unscored = "" if images.network else ", not scored (--scores classifier scores them)"
    print(f"{images.dataset}: {len(images.train)} training images{unscored}", flush=True)
    warn_if_busy()
    runs = [dataclasses.replace(run, management=images.management) for run in runs]
    with contextlib.ExitStack() as folders:
        for run in runs:
            folders.enter_context(run.claim())
        return list(runs), images, {run.label: run_images(run, images, deadline, progress) for run in runs}


def run_images(run: Run, images: Images, deadline: float = math.inf, progress: bool = True) -> dict[str, Any] | None:
    """Train one configuration on images. The result, or None where time was up before the end."""
    hp, management, path = run.hp, run.management, run.folder / "result.json"
    if (finished := read_json(path)) is not None and finished["metrics"][-1]["step"] == hp.max_iters:
        return finished
    evaluate = None
    if images.network:
        eval_step, suffix = images.evaluation(hp.generator_dimz), images.network.suffix

        def evaluate(critic: Critic, kept: Generator, trained: Generator, last: bool) -> dict[str, float]:
            """Scores of both generators; the critic's means belong to the one that it is trained against."""
            count = management.final_samples if last else management.eval_samples
            # By their calls: their batch-norm statistics are their own already, and need not be recomputed.
            kept_scores, trained_scores = (
                eval_step(score.batches(images.test, count), critic, generator.__call__)[1]
                for generator in (kept, trained)
            )
            line = {"samples": count, "cp": trained_scores["cp"], "cq": trained_scores["cq"]}
            for ending, scores in (("", kept_scores), ("_trained", trained_scores)):
                line |= {f"{key}{suffix}{ending}": scores[key] for key in score.KEYS}
            return line

    players, lines, step = train(run, images.train, evaluate, deadline, progress)
    if step < hp.max_iters:
        return None
    network = checkpoint.as_float16(as_kept(players.averaged))
    sizes = {"dimz": hp.generator_dimz, "dimh": hp.generator_dimh}
    checkpoint.save(run.folder / "generator.pt", {**sizes, "network": network})
    result: dict[str, Any] = {"dataset": images.dataset, "metrics": lines}
    if images.network:
        result["final"] = next(line for line in reversed(lines) if "samples" in line)
    write_json(path, result)
    return result
