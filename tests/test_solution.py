"""The planar flow against autograd's Jacobian, torch.distributions and its own inverse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.func import jacrev, vmap

import solution
from solution import Flow, PlanarTransformation

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
SEEDS = st.integers(0, 10_000)


def layer_parameters(dim: int, wu: float, seed: int, dtype=torch.float64) -> tuple[torch.Tensor, ...]:
    """Random u, w, b with the given w·u."""
    generator = torch.Generator().manual_seed(seed)
    u, w = torch.randn(2, 1, dim, generator=generator, dtype=dtype)
    w = w + torch.sign(w) * 0.1
    u = u + (wu - (w * u).sum()) * w / w.square().sum()
    return u, w, torch.randn(1, generator=generator, dtype=dtype)


def random_flow(dim: int, num_layers: int, seed: int, dtype=torch.float64, scale: float = 1.0) -> Flow:
    torch.manual_seed(seed)
    flow = Flow(dim, num_layers).to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)
    return flow


def jacobian_logdet(function, x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.slogdet(vmap(jacrev(lambda point: function(point.unsqueeze(0)).squeeze(0)))(x)).logabsdet


@given(dim=st.integers(1, 10), wu=st.floats(-20, 20), seed=SEEDS)
def test_logdet_agrees_with_autograd(dim, wu, seed):
    u, w, b = layer_parameters(dim, wu, seed)
    x = torch.randn(6, dim, dtype=torch.float64)
    expected = jacobian_logdet(lambda point: solution.planar_transformation(point, u, w, b), x)
    logdet = solution.get_logdet(x, u, w, b, eps=0.0)
    assert logdet.shape == (6, 1)
    torch.testing.assert_close(logdet.squeeze(1), expected, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 3), (3,)])
@pytest.mark.parametrize("b_shape", [(1,), ()])
@DTYPES
def test_shapes_of_the_parameters(shape, b_shape, dtype):
    u, w, b = layer_parameters(3, 0.5, 0, dtype)
    x = torch.randn(5, 3, dtype=dtype)
    y = solution.planar_transformation(x, u.view(shape), w.view(shape), b.view(b_shape))
    expected = x + u * torch.tanh(x @ w.T + b)
    assert y.dtype == dtype and solution.get_logdet(x, u.view(shape), w.view(shape), b.view(b_shape)).shape == (5, 1)
    torch.testing.assert_close(y, expected)


@given(dim=st.integers(1, 6), num_layers=st.integers(0, 8), seed=SEEDS)
def test_flow_composes_its_layers(dim, num_layers, seed):
    flow = random_flow(dim, num_layers, seed)
    x = torch.randn(4, dim, dtype=torch.float64)
    y, logdet = flow(x)
    expected = x
    for layer in flow.layers:
        expected = layer(expected)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(logdet.squeeze(1), jacobian_logdet(lambda p: flow(p)[0], x), rtol=1e-6, atol=1e-6)


@DTYPES
def test_saturated_and_absent_layers_do_nothing_to_the_volume(dtype):
    x, u = torch.tensor([[50.0, 0.0], [-50.0, 0.0]], dtype=dtype), torch.tensor([[3.0, 1.0]], dtype=dtype)
    w, zero = torch.tensor([[1.0, 0.0]], dtype=dtype), torch.zeros(1, dtype=dtype)
    assert solution.planar_transformation(x, u, w, zero).tolist() == [[53, 1], [-53, -1]]
    assert solution.get_logdet(x, u, w, zero).abs().max() < 1e-6
    # w = 0 moves every point alike, by u tanh(b); nothing is undefined.
    layer = PlanarTransformation(2).to(dtype)
    with torch.no_grad():
        layer.w.zero_()
        layer.b.fill_(1.0)
    moved = layer(x)
    torch.testing.assert_close(moved, x + layer.u * math.tanh(1))
    (moved.sum() + layer.get_logdet(x).sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@given(dim=st.integers(1, 10), wu=st.floats(-30, 30), seed=SEEDS)
def test_u_is_adjusted_where_the_map_is_not_invertible_and_only_there(dim, wu, seed):
    u, w, _ = layer_parameters(dim, wu, seed)
    layer = PlanarTransformation(dim).double()
    with torch.no_grad():
        layer.u.copy_(u)
        layer.w.copy_(w)
    before = (w * u).sum()
    layer(torch.zeros(1, dim, dtype=torch.float64))
    after = (layer.w * layer.u).sum()
    assert torch.equal(layer.w, w)
    if before >= -1:
        assert torch.equal(layer.u, u)
    else:
        torch.testing.assert_close(after, -1 + torch.log1p(torch.exp(before)), rtol=1e-9, atol=1e-9)
        # Only the part along w has changed.
        moved = layer.u - u
        torch.testing.assert_close(moved, (moved * w).sum() * w / w.square().sum())


@DTYPES
@given(dim=st.integers(1, 100), exponent=st.floats(0, 4), across=st.floats(-3, 1), size=st.floats(-1, 1), seed=SEEDS)
def test_an_adjusted_u_needs_no_second_adjustment(dtype, dim, exponent, across, size, seed):
    """Whatever part of u is along w and what across it, and however long w is."""
    u, w, _ = layer_parameters(dim, 0.0, seed)
    u, w = 10**across * u, 10**size * w
    u = (u - 10**exponent * w / w.square().sum()).to(dtype)
    w = w.to(dtype)
    layer, info = PlanarTransformation(dim).to(dtype), torch.finfo(dtype)
    with torch.no_grad():
        layer.u.copy_(u)
        layer.w.copy_(w)
    layer.adjust_u()
    first, product = layer.u.detach().clone(), (w * u).double().sum()
    assert (w * first).sum(-1) >= -1 and torch.equal(solution.invertible_u(first, w), first)
    if not torch.equal(first, u):  # without the sum's rounding too
        terms = (w * first).double().abs().sum().item() + 10**exponent * dim**0.5
        expected = torch.log1p(torch.exp(product)).item() - 1
        assert (w * first).double().sum().item() == pytest.approx(expected, abs=(dim + 9) * terms * info.eps)
    version = layer.u._version
    layer.adjust_u()
    assert torch.equal(layer.u, first) and layer.u._version == version


@DTYPES
@settings(max_examples=20)
@given(exponent=st.floats(0, 4), forward_first=st.booleans(), seed=SEEDS)
def test_forward_logdet_and_inverse_are_of_one_map(dtype, exponent, forward_first, seed):
    u, w, b = layer_parameters(2, -(10.0**exponent), seed, dtype)
    layer = PlanarTransformation(2).to(dtype)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), (u, w, b), strict=True):
            parameter.copy_(value)
    x, eps = torch.randn(50, 2, dtype=dtype), torch.finfo(dtype).eps
    if forward_first:
        y, logdet = layer(x), layer.get_logdet(x)
    else:
        logdet, y = layer.get_logdet(x), layer(x)
    (y.sum() + logdet.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    flow = Flow(2, 1).to(dtype)
    flow.layers[0].load_state_dict(layer.state_dict())
    assert torch.equal(flow(x)[0], y) and torch.equal(flow(x)[1], logdet)
    u, w, b = (parameter.detach().double() for parameter in layer.parameters())
    jacobian = jacobian_logdet(lambda point: solution.planar_transformation(point, u, w, b), x.double())
    regular = jacobian > math.log(0.1)
    torch.testing.assert_close(logdet.squeeze(1)[regular].double(), jacobian[regular], rtol=0, atol=1e5 * eps + 1e-7)
    error = (layer.inverse(y) - x).abs().amax(1)[regular]
    assert (error <= 1e3 * eps * (1 + x.abs().max() + u.norm() * (1 + w.norm()))).all()


def test_initial_parameters():
    torch.manual_seed(0)
    layers = [PlanarTransformation(50) for _ in range(40)]
    for name in ("u", "w"):
        values = torch.stack([getattr(layer, name) for layer in layers])
        assert values.shape == (40, 1, 50)
        assert values.std().item() == pytest.approx(0.01, rel=0.05) and abs(values.mean().item()) < 1e-3
    assert all(layer.b.tolist() == [0] for layer in layers)
    assert isinstance(Flow(2, 3).layers, torch.nn.ModuleList)


@given(dim=st.integers(1, 6), num_layers=st.integers(0, 8), seed=SEEDS)
def test_inverse_of_a_flow(dim, num_layers, seed):
    flow = random_flow(dim, num_layers, seed, scale=0.5)
    x = torch.randn(4, dim, dtype=torch.float64)
    y, logdet = flow(x)
    error = (flow.inverse(y) - x).abs().amax(1)
    assert (error <= 1e-9 * torch.exp(-logdet.squeeze(1)).clamp(min=1)).all()


@given(seed=SEEDS)
def test_losses_agree_with_torch_distributions(seed):
    torch.manual_seed(seed)
    z, logdet, energy = torch.randn(5, 3).double(), torch.randn(5, 1).double(), torch.randn(5).double()
    log_normal = Normal(0.0, 1.0).log_prob(z).sum(1)
    one, two = solution.loss1(z, logdet), solution.loss2(energy, z, logdet)
    assert one.shape == two.shape == (5, 1)
    torch.testing.assert_close(one.squeeze(1), -log_normal - logdet.squeeze(1))
    torch.testing.assert_close(two.squeeze(1), log_normal + energy - logdet.squeeze(1))


@given(wu=st.floats(-1, 6).map(lambda e: e if e <= 0 else 10.0**e), seed=SEEDS, norm=st.floats(-2, 1.5))
def test_inverse_is_exact_for_any_strength(wu, seed, norm):
    """To the rounding error of y over the determinant, for w·u from -1 to a million."""
    u, w, b = layer_parameters(2, wu, seed)
    w, u = w * 10.0**norm, u / 10.0**norm
    x = 3 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    y = solution.planar_transformation(x, u, w, b)
    determinant = solution.get_logdet(x, u, w, b).exp().squeeze(1).clamp(max=1)
    error = (solution.inverse(y, u, w, b) - x).abs().amax(1)
    # y is rounded at its own size; where the determinant nearly vanishes, the map is a cubic.
    size = (y.abs().amax(1) + u.abs().max() + b.abs()) * (1 + w.norm() * u.norm())
    bound = 1e-13 * size / determinant.clamp(min=1e-12)
    assert (error <= torch.maximum(bound, torch.full_like(bound, 1e-14)).clamp(max=1)).all()


def test_shapes_that_would_broadcast_are_refused():
    z, per_point = torch.zeros(5, 2), torch.zeros(5)
    for call in (
        lambda: solution.loss1(z, per_point),
        lambda: solution.loss2(per_point, z, per_point),
        lambda: solution.loss2(torch.zeros(5, 1), z, torch.zeros(5, 1)),
        lambda: Flow(2, 1)(torch.zeros(5, 1)),
        lambda: PlanarTransformation(2)(torch.zeros(5, 1)),
        lambda: PlanarTransformation(2).get_logdet(torch.zeros(5, 3)),
    ):
        with pytest.raises(ValueError, match="shape"):
            call()
