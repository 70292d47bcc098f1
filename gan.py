"""Generative adversarial networks (question 2): losses, gradient penalties and the training step.

The critic C should be high on real data p and low on generated data q. The critic maximises a metric and the generator
minimises it; a penalty on the critic's gradient stabilises the training.

In all functions, ``p`` and ``q`` are real and generated samples, ``(N, *sample)``; ``(N,)`` are scalar samples.
``critic`` maps them to one value for each sample; ``cp`` and ``cq`` are its values at p and q, in any shape.
Losses and penalties are means over all samples: scalars, differentiable in the critic's parameters.
``python gan.py`` runs the examples below as tests.
"""

import contextlib
import doctest
import gzip
import io
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

EVAL_SAMPLES = 50_000  # at most this many real and this many generated images in an evaluation
EVAL_SEED = 0  # seed of the noise in an evaluation

Critic = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor, Critic], Tensor]
EvalStep = Callable[..., tuple[Tensor, dict[str, float]]]


def jsd(cp: Tensor, cq: Tensor) -> Tensor:
    r"""Lower bound on the Jensen-Shannon divergence.

    .. math:: \tfrac12 \mathbb{E}_p[\log \sigma(C)] + \tfrac12 \mathbb{E}_q[\log(1 - \sigma(C))] + \log 2

    In nats, at most log 2; the divergence itself for the optimal critic, log p(x) - log q(x).

    Source: Goodfellow et al. (2014), Generative adversarial nets, section 4.1: half of the value function, plus log 2.

    Example:
        >>> jsd(torch.tensor([1e4]), torch.tensor([-1e4]))
        tensor(0.6931)
    """
    return (F.logsigmoid(cp).mean() + F.logsigmoid(-cq).mean()) / 2 + math.log(2)


def w1(cp: Tensor, cq: Tensor) -> Tensor:
    r"""Lower bound on the Wasserstein-1 distance if the critic has Lipschitz constant 1.

    .. math:: \mathbb{E}_p[C] - \mathbb{E}_q[C]

    Source: Arjovsky et al. (2017), Wasserstein generative adversarial networks, equation 2.

    Example:
        >>> w1(torch.tensor([2.0, 4.0]), torch.tensor([1.0]))
        tensor(2.)
    """
    return cp.mean() - cq.mean()


def r1gp(p: Tensor, cp: Tensor | None, q: Tensor, cq: Tensor, critic: Critic) -> Tensor:
    r"""Zero-centred gradient penalty on real data.

    .. math:: \mathbb{E}_p\big[\|\nabla_x C(x)\|^2\big]

    If p requires a gradient and cp was computed from it, the critic is not run again. q and cq are not used.

    Source: Mescheder et al. (2018), Which training methods for GANs do actually converge?, equation 9, without γ/2.

    Example:
        >>> p = torch.zeros(5, 2)
        >>> r1gp(p, None, None, None, lambda x: 3 * x[:, 0] + 4 * x[:, 1])
        tensor(25.)
    """
    gradient = None
    if cp is not None and cp.requires_grad and p.requires_grad:
        (gradient,) = torch.autograd.grad(cp.sum(), p, create_graph=True, allow_unused=True)
    slopes = _slopes(p, critic) if gradient is None else gradient.reshape(len(p), -1)
    return slopes.square().sum(1).mean()


def ogp(p: Tensor, cp: Tensor, q: Tensor, cq: Tensor, critic: Critic) -> Tensor:
    r"""One-centred gradient penalty between real and generated data.

    .. math:: \mathbb{E}\big[(\|\nabla_x C(x)\| - 1)^2\big], \quad
        x = \epsilon p + (1 - \epsilon) q, \quad \epsilon \sim U(0, 1)

    One ε is drawn for each pair. Scalar samples may be ``(N,)`` on one side and ``(N, 1)`` on the other. cp and cq are
    not used.

    Source: Gulrajani et al. (2017), Improved training of Wasserstein GANs, equation 3.

    Example:
        >>> p, q = torch.ones(5, 2), torch.zeros(5, 2)
        >>> ogp(p, None, q, None, lambda x: 3 * x[:, 0] + 4 * x[:, 1])
        tensor(16.)
    """
    epsilon = torch.rand(len(p), *[1] * (p.ndim - 1), dtype=p.dtype, device=p.device)
    slopes = _slopes(torch.lerp(q.detach().reshape(p.shape), p.detach(), epsilon), critic)
    # torch defines the derivative of the norm at zero as zero, so the penalty's gradient is never NaN.
    return (torch.linalg.vector_norm(slopes, dim=1) - 1).square().mean()


def _slopes(x: Tensor, critic: Critic) -> Tensor:
    """Gradient of the critic at each sample, ``(N, size of a sample)``; zero if the critic ignores its input."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = critic(x).sum()  # each value depends on its own sample alone, so one pass gives every gradient
    if not total.requires_grad:
        return torch.zeros_like(x).reshape(len(x), -1)
    (gradient,) = torch.autograd.grad(total, x, create_graph=True, materialize_grads=True)
    return gradient.reshape(len(x), -1)


METRICS = {"JSD": jsd, "W1": w1}
PENALTIES = {"GP": ogp, "R1": r1gp, None: None}
AVAILABLE_LOSSES, AVAILABLE_REGULARIZERS = list(METRICS), list(PENALTIES)


def make_losses(loss_type: str, reg_type: str | None = None, reg_cf: float = 1.0) -> tuple[Loss, Loss]:
    r"""Return the metric and the critic's loss.

    .. math:: \text{critic\_loss} = -\text{metric} + \text{reg\_cf} \cdot \text{penalty}

    Args:
        loss_type, reg_type: One of ``AVAILABLE_LOSSES`` and of ``AVAILABLE_REGULARIZERS``, or NotImplementedError.
        reg_cf: Weight of the penalty, above 0.

    Returns:
        ``metric`` and ``critic_loss``, both called as ``f(p, q, critic)``.

    Example:
        >>> metric, critic_loss = make_losses("W1", "R1", reg_cf=0.5)
        >>> p, q = torch.ones(4), torch.zeros(4)
        >>> metric(p, q, lambda x: 2 * x).item(), critic_loss(p, q, lambda x: 2 * x).item()
        (2.0, 0.0)
    """
    for name, known in ((loss_type, AVAILABLE_LOSSES), (reg_type, AVAILABLE_REGULARIZERS)):
        if name not in known:
            raise NotImplementedError(f"{name!r} is unknown: choose one of {known}")
    assert reg_cf > 0, f"reg_cf must be above 0, got {reg_cf}"
    divergence, penalty = METRICS[loss_type], PENALTIES[reg_type]

    def metric(p: Tensor, q: Tensor, critic: Critic) -> Tensor:
        return divergence(critic(p), critic(q))

    def critic_loss(p: Tensor, q: Tensor, critic: Critic) -> Tensor:
        if penalty is None:
            return -metric(p, q, critic)
        # R1 needs the gradient at the real samples: one pass over them serves the metric and the penalty.
        p = p.detach().requires_grad_(penalty is r1gp)
        cp, cq = critic(p), critic(q)
        return -divergence(cp, cq) + reg_cf * penalty(p, cp, q, cq, critic)

    return metric, critic_loss


@torch.no_grad()
def apply_exponential_moving_average(source: nn.Module, target: nn.Module, alpha: float = 0.998) -> None:
    r"""Move the target's parameters towards the source's, in place.

    .. math:: \tilde\theta \leftarrow \alpha \tilde\theta + (1 - \alpha) \theta

    The average spans about 1/(1 - α) updates.

    Source: Yazıcı et al. (2019), The unusual effectiveness of averaging in GAN training, equation 9.

    Example:
        >>> source, target = (nn.ParameterList([torch.full((1,), value)]) for value in (10.0, 0.0))
        >>> apply_exponential_moving_average(source, target, alpha=0.9)
        >>> target[0].data
        tensor([1.])
    """
    averages = list(target.parameters())
    values = [value.to(average) for average, value in zip(averages, source.parameters(), strict=True)]
    get_ema_multi_avg_fn(alpha)(averages, values, None)


def make_train_step(
    loss_type: str,
    critic_inner_iters: int = 1,
    reg_type: str | None = None,
    reg_cf: float = 1.0,
    alpha_ema: float | None = None,
) -> Callable[..., Tensor]:
    """Return a training step: critic updates, one generator update, the moving average.

    Args:
        loss_type, reg_type, reg_cf: As for :func:`make_losses`.
        critic_inner_iters: Critic updates for each generator update, at least 1.
        alpha_ema: Weight of the old average, in (0, 1); None for no average.

    Returns:
        ``train_step(train_data_iter, critic, critic_optim, generator, test_generator, generator_optim)``, which
        returns the metric before the generator's update, a scalar tensor. ``generator()`` draws a batch. Critic and
        generator may be any callables: the step updates the parameters in the optimisers. ``test_generator`` holds the
        average. The step reads no value back from the device: a CUDA graph can capture it.

    Source: Goodfellow et al. (2014), algorithm 1.

    Example:
        One update of the dirac game with the real point 0, the generated point 1 and the critic C(x) = x.

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
    assert critic_inner_iters >= 1, f"critic_inner_iters must be at least 1, got {critic_inner_iters}"
    assert alpha_ema is None or 0 < alpha_ema < 1, f"alpha_ema must be in (0, 1) or None, got {alpha_ema}"

    def train_step(train_data_iter, critic, critic_optim, generator, test_generator, generator_optim) -> Tensor:
        for _ in range(critic_inner_iters):
            p = next(train_data_iter)
            with torch.no_grad():
                q = generator().detach()
            _descend(critic_loss(p, q, critic), critic_optim)
        value = metric(next(train_data_iter), generator(), critic)
        _descend(value, generator_optim)
        if alpha_ema is not None:
            # A bare callable does not list its parameters, its optimiser does.
            source = generator if isinstance(generator, nn.Module) else nn.ParameterList(_parameters(generator_optim))
            apply_exponential_moving_average(source, test_generator, alpha_ema)
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
    """Return an evaluation step: Inception Score, Fréchet Inception Distance, and the critic's mean values.

    Args:
        stats_filename: File for the real data's statistics, computed once. Another network or data set needs another.
        eval_data_iter: Batches of real images ``(N, 3, H, W)`` in [-1, 1]; the first ``EVAL_SAMPLES`` images are used.
        dimz: Size of the noise vector.
        persisting_Z: Number of noise vectors that stay the same in every evaluation.
        device: Where to evaluate; None is the CPU.
        network: Maps uint8 images to features ``(N, d)`` and logits ``(N, classes)``; None is Inception.

    Returns:
        ``eval_step(eval_data_iter, critic, generator)``, which returns the images of the persisting noise,
        ``(persisting_Z, 3, H, W)``, and a dictionary of floats: ``IS``, ``FID``, and the critic's mean at real (``cp``)
        and generated (``cq``) images. It generates as many images as its ``eval_data_iter`` holds, with a fixed seed;
        for a module, it calls :func:`refresh_batch_norm` first. NaN in an image raises FloatingPointError.

    Source: Salimans et al. (2016), section 4; Heusel et al. (2017), equation 6.
    """
    from torchmetrics.image.inception import InceptionScore

    device = torch.device(device or "cpu")
    if network is None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"]).to(device)
    persisting_noise = torch.randn(persisting_Z, dimz, generator=torch.Generator().manual_seed(EVAL_SEED)).to(device)
    precise = precise_device(device)
    distance = _distance_to_real(Path(stats_filename), eval_data_iter, network, device)
    with warnings.catch_warnings(action="ignore"):  # it warns of the memory that all logits take, which is small
        inception_score = InceptionScore(nn.Identity()).to(precise)

    @torch.no_grad()
    def eval_step(eval_data_iter, critic, generator) -> tuple[Tensor, dict[str, float]]:
        inception_score.reset()
        distance.reset()  # of the generated images alone
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(EVAL_SEED)
            with _evaluation_mode(critic, generator):
                if isinstance(generator, nn.Module):
                    refresh_batch_norm(generator, dimz)
                sums, count = torch.zeros(2, dtype=torch.float64, device=precise), 0
                for real in _first(eval_data_iter):
                    fake = generator(torch.randn(len(real), dimz).to(device))
                    sums += torch.stack([critic(x).to(precise).double().sum() for x in (real.to(device), fake)])
                    count += len(real)
                    features, logits = (output.to(precise).double() for output in network(to_uint8(fake)))
                    distance.update(features, real=False)
                    inception_score.update(logits)
                samples = generator(persisting_noise)
            inception = inception_score.compute()[0].item()  # shuffles before it splits
        cp, cq = (sums / count).tolist()
        return samples, {"IS": inception, "FID": distance.compute().item(), "cp": cp, "cq": cq}

    return eval_step


def _distance_to_real(path: Path, batches: Iterable[Tensor], network: nn.Module, device: torch.device) -> Any:
    """The distance metric with the statistics of the real data, from the file or else from the data."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    precise = precise_device(device)

    def new_metric(num_features: int) -> FrechetInceptionDistance:
        given = nn.Identity()  # in the place of a network: the features are already computed
        given.num_features = num_features  # type: ignore[assignment]
        metric = FrechetInceptionDistance(given, reset_real_features=False).to(precise)
        metric.persistent(True)  # its state_dict holds the statistics
        return metric

    with contextlib.suppress(Exception):  # a damaged or foreign file can raise almost anything
        content = io.BytesIO(gzip.decompress(path.read_bytes()))  # gzip verifies a checksum, torch.load does not
        state = torch.load(content, map_location=precise, weights_only=True)
        kept = new_metric(len(state["real_features_sum"]))
        kept.load_state_dict(state)
        return kept

    metric = None
    with torch.no_grad():
        for real in _first(batches):
            features, _ = network(to_uint8(real.to(device)))
            metric = metric or new_metric(features.shape[1])
            metric.update(features.to(precise).double(), real=True)
    if metric is None:
        raise ValueError(f"eval_data_iter has no images, and there are no statistics in {path}")
    torch.save(metric.state_dict(), content := io.BytesIO())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content.getvalue(), compresslevel=1, mtime=0))
    except OSError as error:
        print(f"{path} cannot be written ({error}): the next run computes the statistics again", file=sys.stderr)
    return metric


@contextlib.contextmanager
def _evaluation_mode(*networks: object) -> Iterator[None]:
    """Evaluation mode for a block; after it, or an exception, each submodule is again in the mode that it had."""
    modes = {m: m.training for network in networks if isinstance(network, nn.Module) for m in network.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def refresh_batch_norm(generator: nn.Module, dimz: int, batches: int = 50, batch_size: int = 100) -> None:
    """Recompute a generator's batch-norm statistics, in place, from noise with a fixed seed.

    After averaging weights this is necessary: the average of the statistics is not the statistics of the average.
    """
    weight, noise = next(generator.parameters(), torch.empty(0)), torch.Generator().manual_seed(EVAL_SEED)
    drawn = (torch.randn(batch_size, dimz, generator=noise).to(weight) for _ in range(batches))
    update_bn(drawn, generator)


def precise_device(device: torch.device) -> torch.device:
    """The device for statistics in float64, which MPS does not have."""
    return torch.device("cpu") if device.type == "mps" else device


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to bytes, rounded to the nearest. NaN or infinity raises FloatingPointError."""
    if not images.isfinite().all():
        raise FloatingPointError("the images contain NaN or infinite values")
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _first(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The first ``EVAL_SAMPLES`` images."""
    count = EVAL_SAMPLES
    for batch in batches:
        yield batch[:count]
        count -= len(batch)
        if count <= 0:
            return


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Update the optimiser's parameters. No other parameter gets a gradient, and none keeps one."""
    optimizer.zero_grad()
    loss.backward(inputs=[parameter for parameter in _parameters(optimizer) if parameter.requires_grad])
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    failed, attempted = doctest.testmod()
    sys.exit(f"{failed} of {attempted} checks failed") if failed else print(f"all {attempted} checks passed")
