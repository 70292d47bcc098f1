"""Generative adversarial networks (question 2): losses, gradient penalties and the training step.

The critic C is high on real data p and low on generated data q. The metric is what the critic maximises and the
generator minimises; a penalty on the critic's gradient keeps the game within bounds.

Sources: Goodfellow et al. (2014), Generative adversarial nets; Arjovsky et al. (2017), Wasserstein generative
adversarial networks; Gulrajani et al. (2017), Improved training of Wasserstein GANs; Mescheder et al. (2018), Which
training methods for GANs do actually converge?; Yazıcı et al. (2019), The unusual effectiveness of averaging in GAN
training.

``python gan.py`` runs the examples below as checks.
"""

import contextlib
import doctest
import hashlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

AVAILABLE_LOSSES = ["JSD", "W1"]
AVAILABLE_REGULARIZERS = ["GP", "R1", None]
EVAL_SAMPLES = 50_000  # images of an evaluation, real and generated, at most
EVAL_SEED = 0  # of an evaluation's noise

Critic = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor, Critic], Tensor]
TrainStep = Callable[..., Tensor]
EvalStep = Callable[..., tuple[Tensor, dict[str, float]]]


def jsd(cp: Tensor, cq: Tensor) -> Tensor:
    r"""Lower bound on the Jensen-Shannon divergence that a critic of logits certifies.

    .. math:: \tfrac12 \mathbb{E}_p[\log \sigma(C)] + \tfrac12 \mathbb{E}_q[\log(1 - \sigma(C))] + \log 2

    Args:
        cp: Critic values at real samples, any shape; the mean is over all of them.
        cq: Critic values at generated samples, any shape.

    Returns:
        A scalar in nats, at most log 2; equal to the divergence for the best critic, log p(x) - log q(x).

    Source:
        Goodfellow et al. (2014), section 4.1; half of the value function there, plus log 2.

    Example:
        >>> jsd(torch.tensor([1e4]), torch.tensor([-1e4]))
        tensor(0.6931)
    """
    return (F.logsigmoid(cp).mean() + F.logsigmoid(-cq).mean()) / 2 + math.log(2)


def w1(cp: Tensor, cq: Tensor) -> Tensor:
    r"""Lower bound on the Wasserstein-1 distance that a critic of Lipschitz constant 1 certifies.

    .. math:: \mathbb{E}_p[C] - \mathbb{E}_q[C]

    Args:
        cp: Critic values at real samples, any shape; the mean is over all of them.
        cq: Critic values at generated samples, any shape.

    Returns:
        A scalar, in units of the critic: those of the distance between samples if its slope is at most 1.

    Source:
        Arjovsky et al. (2017), equation 2 (the Kantorovich-Rubinstein duality).

    Example:
        >>> w1(torch.tensor([2.0, 4.0]), torch.tensor([1.0]))
        tensor(2.)
    """
    return cp.mean() - cq.mean()


def r1gp(p: Tensor, cp: Tensor, q: Tensor, cq: Tensor, critic: Critic) -> Tensor:
    r"""Zero-centred gradient penalty on real data.

    .. math:: \mathbb{E}_p\big[\|\nabla_x C(x)\|^2\big]

    Args:
        p: Real samples, ``(N, *sample)``; ``(N,)`` are scalar samples.
        cp: Critic values at p. Where they were computed from this p, and p requires a gradient, the critic is not run
            again.
        q, cq: Generated samples and the critic's values there; not used.
        critic: Maps ``(N, *sample)`` to one value for each sample.

    Returns:
        A scalar, differentiable in the critic's parameters.

    Source:
        Mescheder et al. (2018), equation 9, without the factor γ/2.

    Example:
        >>> p = torch.zeros(5, 2)
        >>> r1gp(p, None, None, None, lambda x: 3 * x[:, 0] + 4 * x[:, 1])
        tensor(25.)
    """
    gradient = None
    if p.requires_grad and cp.requires_grad:
        (gradient,) = torch.autograd.grad(cp.sum(), p, create_graph=True, allow_unused=True)
    slopes = _slopes(p, critic) if gradient is None else gradient.reshape(len(p), -1)
    return slopes.square().sum(1).mean()


def ogp(p: Tensor, cp: Tensor, q: Tensor, cq: Tensor, critic: Critic) -> Tensor:
    r"""One-centred gradient penalty between real and generated data.

    .. math:: \mathbb{E}\big[(\|\nabla_x C(x)\| - 1)^2\big], \quad
        x = \epsilon p + (1 - \epsilon) q, \quad \epsilon \sim U(0, 1)

    Args:
        p, q: Real and generated samples, as many of each, both ``(N, *sample)``; one ε is drawn for each pair. A
            scalar sample may be ``(N,)`` on one side and ``(N, 1)`` on the other.
        cp, cq: The critic's values there; not used.
        critic: Maps ``(N, *sample)`` to one value for each sample.

    Returns:
        A scalar, differentiable in the critic's parameters.

    Raises:
        ValueError: There is not one generated sample, of the same size, for each real one.

    Source:
        Gulrajani et al. (2017), equation 3.

    Example:
        >>> p, q = torch.ones(5, 2), torch.zeros(5, 2)
        >>> ogp(p, None, q, None, lambda x: 3 * x[:, 0] + 4 * x[:, 1])
        tensor(16.)
    """
    if len(p) != len(q) or p.numel() != q.numel():
        raise ValueError(f"p has shape {tuple(p.shape)} and q {tuple(q.shape)}: samples are paired, one of each")
    epsilon = torch.rand(len(p), *[1] * (p.ndim - 1), dtype=p.dtype, device=p.device)
    slopes = _slopes(torch.lerp(q.detach().reshape(p.shape), p.detach(), epsilon), critic)
    # The norm's derivative at a slope of exactly zero is taken as zero, not as not-a-number.
    return (torch.linalg.vector_norm(slopes, dim=1) - 1).square().mean()


def _slopes(x: Tensor, critic: Critic) -> Tensor:
    """The critic's gradient at each sample, flattened to ``(N, size of a sample)``, from a pass of its own."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        # A sample's value depends on that sample alone, so the sum's gradient holds each value's own.
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True, materialize_grads=True)
    return gradient.reshape(len(x), -1)


METRICS = {"JSD": jsd, "W1": w1}
PENALTIES = {"GP": ogp, "R1": r1gp, None: None}


def make_losses(loss_type: str, reg_type: str | None = None, reg_cf: float = 1.0) -> tuple[Loss, Loss]:
    r"""The metric that both players fight over, and the loss that the critic descends.

    .. math:: \text{critic\_loss} = -\text{metric} + \text{reg\_cf} \cdot \text{penalty}

    Args:
        loss_type: One of ``AVAILABLE_LOSSES``.
        reg_type: One of ``AVAILABLE_REGULARIZERS``.
        reg_cf: Weight of the penalty, above 0.

    Returns:
        ``metric`` and ``critic_loss``, each called as ``f(p, q, critic)`` with real samples, generated samples and the
        critic, each returning a scalar.

    Raises:
        NotImplementedError: There is no such loss or regulariser.
        AssertionError: ``reg_cf`` is not above 0.

    Example:
        >>> metric, critic_loss = make_losses("W1", "R1", reg_cf=0.5)
        >>> p, q = torch.ones(4), torch.zeros(4)
        >>> metric(p, q, lambda x: 2 * x).item(), critic_loss(p, q, lambda x: 2 * x).item()
        (2.0, 0.0)
    """
    if loss_type not in AVAILABLE_LOSSES:
        raise NotImplementedError(f"no loss {loss_type!r}: there are {AVAILABLE_LOSSES}")
    if reg_type not in AVAILABLE_REGULARIZERS:
        raise NotImplementedError(f"no regulariser {reg_type!r}: there are {AVAILABLE_REGULARIZERS}")
    if not reg_cf > 0:
        raise AssertionError(f"reg_cf must be above 0, got {reg_cf}")
    of_values, penalty = METRICS[loss_type], PENALTIES[reg_type]

    def metric(p: Tensor, q: Tensor, critic: Critic) -> Tensor:
        return of_values(critic(p), critic(q))

    def critic_loss(p: Tensor, q: Tensor, critic: Critic) -> Tensor:
        if penalty is None:
            return -metric(p, q, critic)
        # R1 needs the slope at the real samples: the one pass over them serves metric and penalty.
        p = p.detach().requires_grad_(penalty is r1gp)
        cp, cq = critic(p), critic(q)
        return -of_values(cp, cq) + reg_cf * penalty(p, cp, q, cq, critic)

    return metric, critic_loss


def apply_exponential_moving_average(source: "nn.Module | _Updated", target: nn.Module, alpha: float = 0.998) -> None:
    r"""Move the target's parameters towards the source's, in place.

    .. math:: \tilde\theta \leftarrow \alpha \tilde\theta + (1 - \alpha) \theta

    Args:
        source: The model that is trained.
        target: The model that holds the average, of the same architecture.
        alpha: Share of the average that stays; it looks back over about 1/(1 - α) updates.

    Source:
        Yazıcı et al. (2019), equation 9.

    Example:
        >>> source, target = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(source.weight, 10.0), nn.init.constant_(target.weight, 0.0)
        >>> apply_exponential_moving_average(source, target, alpha=0.9)
        >>> round(target.weight.item(), 6)
        1.0
    """
    get_ema_multi_avg_fn(alpha)(list(target.parameters()), list(source.parameters()), None)


def make_train_step(
    loss_type: str,
    critic_inner_iters: int = 1,
    reg_type: str | None = None,
    reg_cf: float = 1.0,
    alpha_ema: float | None = None,
) -> TrainStep:
    """The training step of a game: some critic updates, one generator update, the moving average.

    Args:
        loss_type, reg_type, reg_cf: As for :func:`make_losses`.
        critic_inner_iters: Critic updates for each generator update, at least 1.
        alpha_ema: Share of the averaged generator that stays, in (0, 1); None for no average.

    Returns:
        ``train_step(train_data_iter, critic, critic_optim, generator, test_generator, generator_optim)``, which
        returns the metric before the generator's update, a scalar tensor. ``generator()`` draws a batch; critic and
        generator may be any callables, since what is updated are the parameters in the optimisers. ``test_generator``
        holds the average; without ``alpha_ema`` it is not touched. Nothing waits for the device and nothing depends
        on values, so the step can be captured as a CUDA graph.

    Raises:
        NotImplementedError: There is no such loss or regulariser.
        AssertionError: A number is out of its range.

    Source:
        Goodfellow et al. (2014), algorithm 1.

    Example:
        One update of the dirac game: the real point is 0, the generated point 1, the critic C(x) = x.

        >>> theta, slope = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        >>> optimizers = [torch.optim.SGD([player], lr=0.1) for player in (slope, theta)]
        >>> train_step = make_train_step("W1")
        >>> real = iter([torch.zeros(1), torch.zeros(1)])
        >>> train_step(real, lambda x: slope * x, optimizers[0], lambda: theta * 1, None, optimizers[1])
        tensor(-0.9000)
        >>> slope.item(), theta.item()  # the critic moves by -0.1 theta, then the generator by 0.1 slope
        (0.8999999761581421, 1.090000033378601)
    """
    metric, critic_loss = make_losses(loss_type, reg_type, reg_cf)
    if critic_inner_iters < 1:
        raise AssertionError(f"critic_inner_iters must be at least 1, got {critic_inner_iters}")
    if alpha_ema is not None and not 0 < alpha_ema < 1:
        raise AssertionError(f"alpha_ema must be in (0, 1) or None, got {alpha_ema}")

    def train_step(
        train_data_iter: Iterator[Tensor],
        critic: Critic,
        critic_optim: torch.optim.Optimizer,
        generator: Callable[[], Tensor],
        test_generator: nn.Module | None,
        generator_optim: torch.optim.Optimizer,
    ) -> Tensor:
        for _ in range(critic_inner_iters):
            p = next(train_data_iter)
            with torch.no_grad():
                q = generator().detach()
            _descend(critic_loss(p, q, critic), critic_optim)
        value = metric(next(train_data_iter), generator(), critic)
        _descend(value, generator_optim)
        if alpha_ema is not None:
            # A bare callable has no parameters to name; those in its optimiser are its own.
            source = generator if isinstance(generator, nn.Module) else _Updated(generator_optim)
            apply_exponential_moving_average(source, test_generator, alpha_ema)  # type: ignore[arg-type]
        return value.detach()

    return train_step


def make_eval_step(
    stats_filename: str | Path,
    eval_data_iter: Iterable[Tensor],
    dimz: int,
    persisting_Z: int = 100,  # noqa: N803
    device: torch.device | str | None = None,
    network: nn.Module | None = None,
) -> EvalStep:
    """The evaluation of a generator: Inception Score, Fréchet Inception Distance, and the critic's mean values.

    The real data's part of the distance is computed once, from ``eval_data_iter``, and kept in ``stats_filename``:
    whoever changes data or network must change the name.

    Args:
        stats_filename: File of the real data's statistics.
        eval_data_iter: Batches of real images ``(N, 3, H, W)`` in [-1, 1]; the first ``EVAL_SAMPLES`` of them count.
        dimz: Size of the noise vector.
        persisting_Z: Number of noise vectors that give the images which every evaluation returns.
        device: Where it runs; None for the CPU.
        network: What scores: maps uint8 images ``(N, 3, H, W)`` to features ``(N, d)`` and logits ``(N, classes)``.
            None is Inception, through torch-fidelity.

    Returns:
        ``eval_step(eval_data_iter, critic, generator)``, which returns the images of the kept noise
        ``(persisting_Z, 3, H, W)`` and a dictionary of floats: ``IS``, ``FID``, and the critic's mean at real (``cp``)
        and generated (``cq``) images. It draws as many images as there are real ones in its ``eval_data_iter``. Where
        the generator has batch normalisation, :func:`refresh_batch_norm` takes its statistics anew first. All noise
        comes from a fixed seed: the same networks give the same numbers, and the global generator is left as it was.

    Source:
        Salimans et al. (2016), section 4; Heusel et al. (2017), equation 6.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    device = torch.device(device or "cpu")
    network = _inception().to(device) if network is None else network
    kept_noise = torch.randn(persisting_Z, dimz, generator=torch.Generator().manual_seed(EVAL_SEED)).to(device)

    def distance_of(num_features: int) -> FrechetInceptionDistance:
        metric = FrechetInceptionDistance(_Computed(num_features), reset_real_features=False).to(device)
        metric.persistent(True)
        return metric

    @torch.no_grad()
    def distance_of_real() -> FrechetInceptionDistance:
        metric: FrechetInceptionDistance | None = None
        for real in _first(eval_data_iter, EVAL_SAMPLES):
            features, _ = network(to_uint8(real.to(device)))
            metric = metric or distance_of(features.shape[1])
            metric.update(features.double(), real=True)
        if metric is None:
            raise ValueError(f"eval_data_iter holds no images, and {path} does not exist")
        return metric

    path = Path(stats_filename)
    state = _read_statistics(path, device)
    if state is not None:
        distance = distance_of(len(state["real_features_sum"]))
        distance.load_state_dict(state)
    else:
        distance = distance_of_real()
        _write_statistics(path, distance.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the memory of all logits: 50,000 vectors are little
        inception_score = InceptionScore(_Computed(0)).to(device)

    @torch.no_grad()
    def eval_step(
        eval_data_iter: Iterable[Tensor], critic: Critic, generator: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        distance.reset()
        inception_score.reset()
        players = [player for player in (critic, generator) if isinstance(player, nn.Module)]
        training = [player.training for player in players]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(EVAL_SEED)
            if isinstance(generator, nn.Module):
                refresh_batch_norm(generator, dimz)
            for player in players:
                player.eval()  # a critic with spectral normalisation would go on with its power iteration
            sums, count = torch.zeros(2, dtype=torch.float64, device=device), 0
            for real in _first(eval_data_iter, EVAL_SAMPLES):
                fake = generator(torch.randn(len(real), dimz).to(device))
                sums += torch.stack([critic(real.to(device)).double().sum(), critic(fake).double().sum()])
                count += len(real)
                features, logits = network(to_uint8(fake))
                distance.update(features.double(), real=False)
                inception_score.update(logits.double())
            samples = generator(kept_noise)
            inception = inception_score.compute()[0].item()  # shuffles before it splits
        for player, mode in zip(players, training, strict=True):
            player.train(mode)
        cp, cq = (sums / count).tolist()
        return samples, {"IS": inception, "FID": distance.compute().item(), "cp": cp, "cq": cq}

    return eval_step


def _read_statistics(path: Path, device: torch.device) -> dict[str, Tensor] | None:
    """What :func:`_write_statistics` kept; None where there is nothing, or it is damaged."""
    try:
        kept = torch.load(path, map_location=device, weights_only=True)
        return kept["state"] if kept["digest"] == _digest(kept["state"]) else None
    except Exception:  # a damaged file makes the unpickler raise almost anything; it can be made anew
        return None


def _write_statistics(path: Path, state: dict[str, Tensor]) -> None:
    """Keep statistics with a digest of them; where nothing can be written they are computed again next time."""
    try:
        # Under another name first: a run that is killed here leaves no half file for the next to trust.
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state": state, "digest": _digest(state)}, unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        print(f"{path} cannot be written ({error}): the statistics are computed again next time", file=sys.stderr)


def _digest(state: dict[str, Tensor]) -> str:
    parts = [(name, value.cpu().double().numpy().tobytes()) for name, value in sorted(state.items())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@torch.no_grad()
def refresh_batch_norm(generator: nn.Module, dimz: int, batches: int = 50, batch_size: int = 100) -> None:
    """Take a generator's batch-norm statistics anew, in place, from noise of a fixed seed.

    An average of weights needs them: the average of the activations' statistics is not that of its own activations.
    """
    weight = next(generator.parameters(), torch.empty(0))
    noise = torch.Generator().manual_seed(EVAL_SEED)
    update_bn((torch.randn(batch_size, dimz, generator=noise).to(weight) for _ in range(batches)), generator)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes, each value rounded to the nearest."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class _Computed(nn.Module):
    """Stands in for a metric's network where the features are at hand."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _inception() -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])


def _first(batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """The first images of batches, ``count`` at most."""
    for batch in batches:
        yield batch[:count]
        count -= len(batch)
        if count <= 0:
            return


class _Updated:
    """What an optimiser updates, in the order in which it was given."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Update the optimiser's parameters; nothing else gets a gradient, and none is left behind."""
    optimizer.zero_grad()
    loss.backward(inputs=[parameter for parameter in _Updated(optimizer).parameters() if parameter.requires_grad])
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    outcome = doctest.testmod()
    if outcome.failed:
        sys.exit(f"{outcome.failed} of {outcome.attempted} checks failed")
    print(f"all {outcome.attempted} checks passed")
