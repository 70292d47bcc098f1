"""Generative adversarial networks (question 2): losses, gradient penalties and the training step.

The critic C is high on real data p and low on generated data q. The metric is what the critic maximises and the
generator minimises; a penalty on the critic's gradient keeps the game within bounds.

Sources: Goodfellow et al. (2014), Generative adversarial nets; Arjovsky et al. (2017), Wasserstein generative
adversarial networks; Gulrajani et al. (2017), Improved training of Wasserstein GANs; Mescheder et al. (2018), Which
training methods for GANs do actually converge?; Yazıcı et al. (2019), The unusual effectiveness of averaging in GAN
training.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

AVAILABLE_LOSSES = ["JSD", "W1"]
AVAILABLE_REGULARIZERS = ["GP", "R1", None]

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
        p, q: Real and generated samples, both ``(N, *sample)``; one ε is drawn for each pair.
        cp, cq: The critic's values there; not used.
        critic: Maps ``(N, *sample)`` to one value for each sample.

    Returns:
        A scalar, differentiable in the critic's parameters.

    Source:
        Gulrajani et al. (2017), equation 3.
    """
    epsilon = torch.rand(len(p), *[1] * (p.ndim - 1), dtype=p.dtype, device=p.device)
    slopes = _slopes(torch.lerp(q.detach(), p.detach(), epsilon), critic)
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


def apply_exponential_moving_average(source: nn.Module, target: nn.Module, alpha: float = 0.998) -> None:
    r"""Move the target's parameters towards the source's, in place.

    .. math:: \tilde\theta \leftarrow \alpha \tilde\theta + (1 - \alpha) \theta

    Args:
        source: The model that is trained.
        target: The model that holds the average, of the same architecture.
        alpha: Share of the average that stays; it looks back over about 1/(1 - α) updates.

    Source:
        Yazıcı et al. (2019), equation 9.
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
            apply_exponential_moving_average(source, test_generator, alpha_ema)
        return value.detach()

    return train_step


def make_eval_step(
    stats_filename: str | Path,
    eval_data_iter: Iterable[Tensor],
    dimz: int,
    persisting_Z: int = 100,  # noqa: N803
    device: torch.device | str | None = None,
    features: nn.Module | None = None,
    logits: nn.Module | None = None,
    max_samples: int = 50_000,
) -> EvalStep:
    """The evaluation of a generator: Inception Score, Fréchet Inception Distance, and the critic's mean values.

    The real data's part of the distance is computed once, from ``eval_data_iter``, and kept in ``stats_filename``: who
    changes data or network must change the name.

    Args:
        stats_filename: File of the real data's statistics.
        eval_data_iter: Batches of real images ``(N, 3, H, W)`` in [-1, 1]; of more than ``max_samples`` the first.
        dimz: Size of the noise vector.
        persisting_Z: Number of noise vectors that are drawn now and give the samples of every evaluation.
        device: Where it runs; None for the CPU.
        features: Maps uint8 images to features ``(N, d)`` for the distance; None takes Inception's, which torchmetrics
            gets through torch-fidelity.
        logits: Maps uint8 images to logits for the Inception Score; None as above.
        max_samples: Images of an evaluation, real and generated, at most.

    Returns:
        ``eval_step(eval_data_iter, critic, generator)``, which returns the images of the kept noise
        ``(persisting_Z, 3, H, W)`` and a dictionary of floats: ``IS``, ``FID``, and the critic's mean at real (``cp``)
        and generated (``cq``) images. It draws as many images as there are real ones. Where the generator has batch
        normalisation, its statistics are taken anew first, from noise, as the averaged generator needs.

    Source:
        Salimans et al. (2016), section 4; Heusel et al. (2017), equation 6.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    device = torch.device(device or "cpu")
    kept_noise = torch.randn(persisting_Z, dimz, device=device)
    distance = FrechetInceptionDistance(features or 2048, reset_real_features=False).to(device)
    inception_score = InceptionScore(logits or "logits_unbiased").to(device)
    held = ("real_features_sum", "real_features_cov_sum", "real_features_num_samples")
    path = Path(stats_filename)
    if path.exists():
        for name, value in torch.load(path, map_location=device, weights_only=True).items():
            getattr(distance, name).copy_(value)
    else:
        for real in _first(eval_data_iter, max_samples):
            distance.update(_bytes(real.to(device)), real=True)
        # Under another name first: a run that is killed here leaves no half file for the next to trust.
        unfinished = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: getattr(distance, name) for name in held}, unfinished)
        unfinished.replace(path)

    @torch.no_grad()
    def eval_step(
        eval_data_iter: Iterable[Tensor], critic: Critic, generator: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        distance.reset()
        inception_score.reset()
        players = [player for player in (critic, generator) if isinstance(player, nn.Module)]
        training = [player.training for player in players]
        if isinstance(generator, nn.Module):
            update_bn((torch.randn(len(kept_noise), dimz, device=device) for _ in range(50)), generator)
        for player in players:
            player.eval()  # a critic with spectral normalisation would go on with its power iteration
        sums, count = torch.zeros(2, device=device), 0
        for real in _first(eval_data_iter, max_samples):
            fake = generator(torch.randn(len(real), dimz, device=device))
            sums += torch.stack([critic(real.to(device)).sum(), critic(fake).sum()])
            count += len(real)
            distance.update(_bytes(fake), real=False)
            inception_score.update(_bytes(fake))
        samples = generator(kept_noise)
        for player, mode in zip(players, training, strict=True):
            player.train(mode)
        cp, cq = (sums / count).tolist()
        scores = {"IS": inception_score.compute()[0].item(), "FID": distance.compute().item(), "cp": cp, "cq": cq}
        return samples, scores

    return eval_step


def _first(batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """The first images of batches, ``count`` at most."""
    for batch in batches:
        yield batch[:count]
        count -= len(batch)
        if count <= 0:
            return


def _bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class _Updated:
    """What an optimiser updates, in the order in which it was given."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Update the optimiser's parameters; nothing else gets a gradient, and none is left behind."""
    optimizer.zero_grad()
    loss.backward(inputs=[parameter for parameter in _Updated(optimizer).parameters() if parameter.requires_grad])
    optimizer.step()
    optimizer.zero_grad()
