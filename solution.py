"""Planar normalising flows (question 3): the map, its log-determinant, its inverse, a flow and two losses.

Source: Rezende and Mohamed (2015), Variational inference with normalizing flows, section 4.1 and appendix A.1.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def planar_transformation(x: Tensor, u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    r"""Move points along u by an amount that depends on their distance from a hyperplane.

    .. math:: f(x) = x + u \tanh(w \cdot x + b)

    Args:
        x: Points, shape ``(B, d)``.
        u, w: Direction of the motion and normal of the hyperplane, shapes ``(1, d)`` or ``(d,)``.
        b: Offset of the hyperplane, shape ``(1,)`` or a scalar.

    Returns:
        Shape ``(B, d)``.

    Raises:
        ValueError: Points and parameters differ in d.

    Example:
        >>> planar_transformation(torch.ones(1, 2), torch.tensor([2.0, 0.0]), torch.zeros(2), torch.tensor(50.0))
        tensor([[3., 1.]])
    """
    return x + u * torch.tanh(_along(x, w, b))


def get_logdet(x: Tensor, u: Tensor, w: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    r"""Log of the absolute determinant of the planar transformation's Jacobian.

    .. math:: \log\big(\epsilon + |1 + u \cdot \psi(x)|\big), \quad \psi(x) = (1 - \tanh^2(w \cdot x + b))\, w

    By the matrix determinant lemma, det(I + u ψᵀ) = 1 + u·ψ: O(d) operations rather than O(d³).

    Args:
        x: Points, shape ``(B, d)``.
        u, w, b: As for :func:`planar_transformation`.
        eps: Keeps the logarithm finite where the map is singular.

    Returns:
        Shape ``(B, 1)``, in nats.

    Example:
        >>> get_logdet(torch.zeros(1, 2), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor(0.0)).exp()
        tensor([[2.]])
    """
    slope = 1 - torch.tanh(_along(x, w, b)).square()
    return torch.log(eps + torch.abs(1 + slope * (u * w).sum(-1, keepdim=True)))


def invertible_u(u: Tensor, w: Tensor) -> Tensor:
    r"""The u that makes the planar transformation invertible: u itself where w·u ≥ -1, and elsewhere û.

    .. math:: \hat u = u + (m(w \cdot u) - w \cdot u) \frac{w}{\|w\|^2}, \quad m(a) = -1 + \log(1 + e^a)

    Where m is so close to -1 that rounding could push w·û below it, w·û is raised by a few rounding errors. So the
    computed w·û is at least -1 too, and a second application changes nothing.

    Args:
        u, w: Shapes ``(*, d)``.

    Source:
        Rezende and Mohamed (2015), appendix A.1.
    """
    wu = (w * u).sum(-1, keepdim=True)
    invertible = wu >= -1
    # Where û is unused, w may be so small that its derivative is not finite.
    w = torch.where(invertible, 1, w)
    norm = w.square().sum(-1, keepdim=True)
    hat = u + (F.softplus(wu) - 1 - wu) * w / norm
    terms = w * hat
    rounding = (u.shape[-1] + 4) * torch.finfo(u.dtype).eps * terms.abs().sum(-1, keepdim=True)
    hat = hat + (rounding - 1 - terms.sum(-1, keepdim=True)).clamp(min=0) * w / norm
    return torch.where(invertible, u, hat)


def inverse(y: Tensor, u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    r"""The points that the planar transformation maps to y, where w·u ≥ -1.

    Along w the map is one-dimensional: with :math:`a = w \cdot x + b` and :math:`c = w \cdot u`,

    .. math:: w \cdot y + b = a + c \tanh a,

    whose right side does not decrease where c ≥ -1. Its root lies within \|c\| of the left side. Newton's method,
    restricted to that bracket and with a bisection in every third step, finds it to the last digit, usually in ten
    steps. Then :math:`x = y - u \tanh a`, and the component of x along w comes from a. All points advance together.

    Args:
        y: Points, shape ``(B, d)``.
        u, w, b: As for :func:`planar_transformation`, with w·u ≥ -1.

    Returns:
        Shape ``(B, d)``, with the rounding error of y divided by the Jacobian's determinant, as in every inverse. If
        w·u is -1 the determinant vanishes on the hyperplane, where the map is the cubic a³/3: there the error is the
        cube root of three rounding errors, 1e-5 in float64 and 7e-3 in float32.
    """
    target, c = _along(y, w, b), (u * w).sum(-1, keepdim=True)
    low, high = target - c.abs(), target + c.abs()
    a, done = target / (1 + c.clamp(min=0)), torch.zeros_like(target, dtype=torch.bool)
    digit = 2 * torch.finfo(y.dtype).eps
    for step in range(200):
        t = torch.tanh(a)
        residual = a + c * t - target
        low, high = torch.where(residual <= 0, a, low), torch.where(residual >= 0, a, high)
        newton = a - residual / (1 + c * (1 - t.square()))
        middle = (low + high) / 2
        within = (newton >= low) & (newton <= high)  # also false where the determinant vanishes
        advanced = torch.where(within & (step % 3 != 2), newton, middle)
        scale = digit * a.abs().clamp(min=torch.finfo(y.dtype).tiny)
        done = done | (within & ((newton - a).abs() <= scale)) | (high - low <= scale)
        a = torch.where(done, a, advanced)
        if done.all():
            break
    x = y - u * torch.tanh(a)
    # If u is large, y - u tanh(a) has lost digits along w that a still has.
    norm = w.square().sum(-1, keepdim=True)
    return x + (a - _along(x, w, b)) * w / torch.where(norm == 0, 1, norm)


def _along(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The signed distance from the hyperplane in units of 1/‖w‖, ``(B, 1)``."""
    if x.shape[-1] != w.shape[-1]:
        raise ValueError(f"points of shape {tuple(x.shape)} for a layer of dimension {w.shape[-1]}")
    # torch.compile fuses a product and a sum with what follows, but not a matrix product.
    return (x * w).sum(-1, keepdim=True) + b


def chain(x: Tensor, layers: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    """Apply planar transformations one after the other.

    Everything broadcasts, so a leading dimension R runs independent flows side by side.

    Args:
        x: Points, shape ``(B, d)`` or ``(R, B, d)``.
        layers: The parameters u, w, b of each layer, shapes as for :func:`planar_transformation`, or
            ``(R, 1, d)``, ``(R, 1, d)`` and ``(R, 1, 1)``.

    Returns:
        The transformed points, of the shape of x, and the sum of the log-determinants, ``(B, 1)`` or
        ``(R, B, 1)``, in nats.
    """
    logdet = torch.zeros_like(x[..., :1])
    for u, w, b in layers:
        logdet = logdet + get_logdet(x, u, w, b)
        x = planar_transformation(x, u, w, b)
    return x, logdet


class PlanarTransformation(nn.Module):
    r"""One planar layer with parameters u, w ``(1, dim)`` and b ``(1,)``.

    Args:
        dim: Dimension d of the points.

    Example:
        >>> layer = PlanarTransformation(dim=3)
        >>> x = torch.randn(5, 3)
        >>> layer(x).shape, layer.get_logdet(x).shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
        >>> torch.allclose(layer.inverse(layer(x)), x, atol=1e-5)
        True
    """

    def __init__(self, dim: int = 2) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(1, dim) * 0.01)
        self.w = nn.Parameter(torch.randn(1, dim) * 0.01)
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The transformed points, ``(B, dim)``. If the map is not invertible, u is adjusted in place first."""
        self.adjust_u()
        return planar_transformation(x, self.u, self.w, self.b)

    def get_logdet(self, x: Tensor, eps: float = 1e-8) -> Tensor:
        """Log-determinant of :meth:`forward` at x, ``(B, 1)`` in nats; u is adjusted first."""
        self.adjust_u()
        return get_logdet(x, self.u, self.w, self.b, eps)

    @torch.no_grad()
    def adjust_u(self) -> None:
        """If w·u < -1, replace u in place by :func:`invertible_u`."""
        if (self.w * self.u).sum(-1) < -1:  # an unneeded change would invalidate existing graphs
            self.u.copy_(invertible_u(self.u, self.w))

    def inverse(self, y: Tensor) -> Tensor:
        """The points that the layer maps to y, ``(B, dim)``."""
        self.adjust_u()
        return inverse(y, self.u, self.w, self.b)


class Flow(nn.Module):
    r"""A chain of planar layers with its log-determinant.

    .. math:: x_k = f_k \circ \dots \circ f_1(x), \quad
        \log\Big|\det \frac{\partial x_k}{\partial x}\Big| = \sum_j \log|1 + u_j \cdot \psi_j(x_{j-1})|

    Args:
        dim: Dimension d of the points.
        num_layers: Number k of layers.

    Example:
        >>> x_k, logdet = Flow(dim=2, num_layers=4)(torch.randn(7, 2))
        >>> x_k.shape, logdet.shape
        (torch.Size([7, 2]), torch.Size([7, 1]))
    """

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PlanarTransformation(dim) for _ in range(num_layers))

    @property
    def planar(self) -> list[PlanarTransformation]:
        """The layers, typed."""
        return list(self.layers)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The transformed points ``(B, dim)`` and the log-determinant ``(B, 1)`` in nats."""
        for layer in self.planar:
            layer.adjust_u()
        return chain(x, [(layer.u, layer.w, layer.b) for layer in self.planar])

    def inverse(self, y: Tensor) -> Tensor:
        """The points that the flow maps to y, ``(B, dim)``."""
        for layer in reversed(self.planar):
            y = layer.inverse(y)
        return y


def log_standard_normal(z: Tensor) -> Tensor:
    """Log-density of a standard normal distribution, ``(B, 1)`` in nats, at points ``(B, d)``."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1, keepdim=True)


def _check_logdet(z0: Tensor, logdet: Tensor) -> None:
    if logdet.shape != (*z0.shape[:-1], 1):
        raise ValueError(f"logdet has shape {tuple(logdet.shape)}, not {(*z0.shape[:-1], 1)} as for z0's points")


def loss1(z0: Tensor, logdet: Tensor) -> Tensor:
    r"""Negative log-likelihood of data under a flow that maps data x to noise z₀.

    .. math:: -\log p(x) = -\log \mathcal{N}(z_0; 0, I) - \log|\det \partial z_0 / \partial x|

    Args:
        z0: The flow's output for the data, shape ``(B, d)``.
        logdet: Its log-determinant, shape ``(B, 1)``.

    Returns:
        Shape ``(B, 1)``, in nats.

    Raises:
        ValueError: ``logdet`` is not one number for each point, ``(B, 1)``.
    """
    _check_logdet(z0, logdet)
    return -log_standard_normal(z0) - logdet


def loss2(target_density: Tensor, z0: Tensor, logdet: Tensor) -> Tensor:
    r"""Divergence integrand of a flow that maps noise z₀ to z_k, from an unnormalised target density.

    .. math:: \log q(z_k) - \log \tilde p(z_k)
        = \log \mathcal{N}(z_0; 0, I) - \log|\det \partial z_k / \partial z_0| - \log \tilde p(z_k)

    Its mean over the noise is KL(q‖p) - log Z, where Z normalises the target.

    Args:
        target_density: Energies :math:`-\log \tilde p(z_k)`, shape ``(B,)``.
        z0: The noise, shape ``(B, d)``.
        logdet: The flow's log-determinant, shape ``(B, 1)``.

    Returns:
        Shape ``(B, 1)``, in nats.

    Raises:
        ValueError: ``logdet`` is not ``(B, 1)``, or ``target_density`` not ``(B,)``.
    """
    _check_logdet(z0, logdet)
    if target_density.shape != z0.shape[:-1]:
        raise ValueError(f"target_density has shape {tuple(target_density.shape)}, not {tuple(z0.shape[:-1])}")
    return log_standard_normal(z0) + target_density.unsqueeze(-1) - logdet
