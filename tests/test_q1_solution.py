"""The mathematics of the VAE against torch.distributions, scipy and closed forms, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.special import logsumexp
from torch.distributions import Bernoulli, Normal, kl_divergence

from q1_solution import (
    kl_gaussian_gaussian_analytic,
    kl_gaussian_gaussian_mc,
    log_likelihood_bernoulli,
    log_likelihood_normal,
    log_mean_exp,
)

SHAPES = array_shapes(min_dims=2, max_dims=4, max_side=6)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def tensors(count: int, low: float, high: float):
    """Draws ``count`` float64 tensors of one shape with entries in [low, high]."""
    elements = st.floats(low, high)
    one_shape = SHAPES.flatmap(lambda shape: st.tuples(*[arrays(np.float64, shape, elements=elements)] * count))
    return one_shape.map(lambda values: [torch.from_numpy(value) for value in values])


def per_sample(x: torch.Tensor) -> torch.Tensor:
    return x.sum(dim=tuple(range(1, x.dim())))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-12, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-3}


@DTYPES
@given(inputs=tensors(2, 1e-6, 1 - 1e-6))
def test_bernoulli_agrees_with_torch_distributions(dtype, inputs):
    mu, target = inputs[0], (inputs[1] > 0.5).double()
    result = log_likelihood_bernoulli(mu.to(dtype), target.to(dtype))
    # The comparison starts from the rounded mean: near 1, rounding the mean moves log(1 - mu) itself.
    reference = per_sample(Bernoulli(probs=mu.to(dtype).double()).log_prob(target))
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), reference, **tolerance(dtype))


@DTYPES
def test_bernoulli_at_the_edges(dtype):
    mu = torch.tensor([[0.0], [1.0], [0.0], [1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=dtype)
    result = log_likelihood_bernoulli(mu, target)
    result.sum().backward()
    assert result[:2].tolist() == [0, 0]
    assert (result[2:] <= -100).all() and result.isfinite().all()
    assert mu.grad.isfinite().all()


@DTYPES
@given(inputs=tensors(3, -4, 4))
def test_normal_agrees_with_torch_distributions(dtype, inputs):
    mu, logvar, z = inputs
    result = log_likelihood_normal(*(x.to(dtype) for x in inputs))
    assert result.dtype == dtype
    reference = per_sample(Normal(mu, torch.exp(0.5 * logvar)).log_prob(z))
    torch.testing.assert_close(result.double(), reference, **tolerance(dtype))


@given(y=arrays(np.float64, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e4, 1e4)))
def test_log_mean_exp_agrees_with_scipy(y):
    reference = logsumexp(y, axis=1, b=1 / y.shape[1])
    torch.testing.assert_close(log_mean_exp(torch.from_numpy(y)), torch.from_numpy(reference), rtol=1e-13, atol=1e-13)


def test_log_mean_exp_of_impossible_rows():
    y = torch.tensor([[-math.inf, -math.inf], [-math.inf, 0.0]], requires_grad=True)
    value = log_mean_exp(y)
    assert value.tolist() == [-math.inf, pytest.approx(-math.log(2))]
    value.sum().backward()
    assert y.grad.tolist() == [[0, 0], [0, 1]]


@DTYPES
@given(inputs=tensors(4, -3, 3))
def test_analytic_kl_agrees_with_torch_distributions(dtype, inputs):
    mu_q, logvar_q, mu_p, logvar_p = inputs
    result = kl_gaussian_gaussian_analytic(*(x.to(dtype) for x in inputs))
    assert result.dtype == dtype
    q, p = Normal(mu_q, torch.exp(0.5 * logvar_q)), Normal(mu_p, torch.exp(0.5 * logvar_p))
    torch.testing.assert_close(result.double(), per_sample(kl_divergence(q, p)), **tolerance(dtype))


@given(mu=st.floats(-2, 2), logvar=st.floats(-1, 1), mu_p=st.floats(-2, 2), logvar_p=st.floats(-1, 1))
def test_monte_carlo_kl_is_unbiased(mu, logvar, mu_p, logvar_p):
    torch.manual_seed(0)
    inputs = [torch.full((2000, 2), value, dtype=torch.float64) for value in (mu, logvar, mu_p, logvar_p)]
    estimates = kl_gaussian_gaussian_mc(*inputs, num_samples=20)
    error = estimates.std().item() / math.sqrt(len(estimates))
    exact = kl_gaussian_gaussian_analytic(*inputs)[0].item()
    assert abs(estimates.mean().item() - exact) <= 6 * error + 1e-9


def test_monte_carlo_kl_has_the_gradient_of_the_analytic_one():
    torch.manual_seed(0)
    inputs = [torch.randn(3, 2, dtype=torch.float64).mul(0.5).requires_grad_() for _ in range(4)]
    expected = torch.autograd.grad(kl_gaussian_gaussian_analytic(*inputs).sum(), inputs)
    actual = torch.autograd.grad(kl_gaussian_gaussian_mc(*inputs, num_samples=200_000).sum(), inputs)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0.03, atol=0.03)


def test_monte_carlo_kl_falls_in_variance_with_the_number_of_samples():
    torch.manual_seed(0)
    inputs = [torch.full((4000, 1), value) for value in (1.0, 0.5, 0.0, 0.0)]
    few, many = (kl_gaussian_gaussian_mc(*inputs, num_samples=count).var().item() for count in (1, 25))
    assert few / many == pytest.approx(25, rel=0.2)


def test_monte_carlo_kl_refuses_no_samples():
    with pytest.raises(ValueError, match="num_samples"):
        kl_gaussian_gaussian_mc(*[torch.zeros(1, 1)] * 4, num_samples=0)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 2)])
def test_results_have_one_number_per_sample(shape):
    x = torch.full(shape, 0.5)
    for result in (
        log_likelihood_bernoulli(x, torch.ones(shape)),
        log_likelihood_normal(x, x, x),
        kl_gaussian_gaussian_analytic(x, x, x, x),
        kl_gaussian_gaussian_mc(x, x, x, x, num_samples=2),
    ):
        assert result.shape == (3,)


@pytest.mark.parametrize(("dtype", "logvar"), [(torch.float32, -170.0), (torch.float64, -1400.0)])
def test_a_variance_too_small_for_its_type_has_its_value_and_gradient(dtype, logvar):
    """At z = mu the exponent is 0, however large its factor; and the KL of equal distributions is 0."""
    mu = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    v = torch.full((2, 3), logvar, dtype=dtype, requires_grad=True)
    value = log_likelihood_normal(mu, v, torch.zeros_like(mu))
    assert value.tolist() == pytest.approx([-1.5 * (math.log(2 * math.pi) + logvar)] * 2, rel=1e-3)
    value.sum().backward()
    assert (mu.grad == 0).all() and (v.grad == -0.5).all()
    for large in (v, -v):
        kl = kl_gaussian_gaussian_analytic(mu, large, mu, large)
        estimate = kl_gaussian_gaussian_mc(mu, large, mu, large, num_samples=3)
        assert (kl == 0).all() and (estimate == 0).all()


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float32, 38), (torch.float64, 307)])
@given(data=st.data())
def test_bernoulli_has_value_and_gradient_far_below_the_rounding_error(dtype, exponent, data):
    mu = torch.tensor([[10.0 ** -data.draw(st.floats(0.5, exponent))]], dtype=dtype, requires_grad=True)
    p = mu.double().item()
    for x, value, gradient in ((1, math.log(p), 1 / p), (0, math.log1p(-p), -1 / (1 - p))):
        found = log_likelihood_bernoulli(mu, torch.tensor([[x]]))
        rounding = 4 * torch.finfo(dtype).eps
        assert found.item() == pytest.approx(value, rel=rounding, abs=torch.finfo(dtype).tiny)
        assert torch.autograd.grad(found, mu)[0].item() == pytest.approx(gradient, rel=rounding)


def test_bernoulli_below_the_smallest_normal_number_and_outside_its_range():
    mu = torch.tensor([[1e-42], [1e-310], [0.0]], dtype=torch.float64)
    value = log_likelihood_bernoulli(mu, torch.ones(3, 1))
    assert value.tolist() == pytest.approx([math.log(1e-42), math.log(1e-310), math.log(5e-324)])
    outside = log_likelihood_bernoulli(torch.tensor([[1.1], [-0.1]] * 2), torch.tensor([[0], [0], [1], [1]]))
    assert outside.isnan().all()


@settings(max_examples=15)
@given(inputs=tensors(4, -2, 2), factor=st.sampled_from([0.0, 1.0]))
def test_derivatives_of_every_order_also_where_the_means_agree(inputs, factor):
    mu, logvar, other, logvar_p = (x.flatten()[:3].reshape(1, -1).clone().requires_grad_() for x in inputs)
    agreeing = (mu + factor * other).detach().requires_grad_()

    def estimate(*arguments):
        torch.manual_seed(0)
        return kl_gaussian_gaussian_mc(*arguments, num_samples=2)

    for function, arguments in (
        (log_likelihood_normal, (mu, logvar, agreeing)),
        (kl_gaussian_gaussian_analytic, (mu, logvar, agreeing, logvar_p)),
        (estimate, (mu, logvar, agreeing, logvar_p)),
    ):
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


def test_integers_booleans_and_half_precision_count_as_floats():
    one, real = torch.ones(1, 1, dtype=torch.int64), torch.zeros(1, 1)
    assert log_mean_exp(torch.tensor([[1, 2, 4]])).item() == pytest.approx(logsumexp([1, 2, 4]) - math.log(3))
    for arguments in ((0 * one, 0 * one, one), (real, real, one), (0 * one, real, one)):
        assert log_likelihood_normal(*arguments).item() == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi))
    assert kl_gaussian_gaussian_analytic(one, real, real, real).item() == 0.5
    assert kl_gaussian_gaussian_mc(one, 0 * one, one, 0 * one).item() == 0
    mu, x = torch.tensor([[0.25, 0.25]], dtype=torch.float64), torch.tensor([[0, 1]])
    for dtype in (torch.uint8, torch.bool, torch.int64, torch.float16):
        value = log_likelihood_bernoulli(mu, x.to(dtype))
        assert value.dtype == torch.float64 and value.item() == pytest.approx(math.log(0.75 * 0.25))
    assert log_likelihood_bernoulli(real.half(), one).item() == pytest.approx(math.log(2.0**-149))


@pytest.mark.parametrize("arrangement", list(itertools.product([torch.float32, torch.float64], repeat=3)))
def test_the_widest_type_of_the_arguments_is_that_of_the_result(arrangement):
    value = log_likelihood_normal(*(torch.rand(4, 3).to(dtype) for dtype in arrangement))
    assert value.dtype == max(arrangement, key=lambda dtype: dtype.itemsize)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (log_likelihood_bernoulli, ("mu", "target")),
        (log_likelihood_normal, ("mu", "logvar", "z")),
        (kl_gaussian_gaussian_analytic, ("mu_q", "logvar_q", "mu_p", "logvar_p")),
        (kl_gaussian_gaussian_mc, ("mu_q", "logvar_q", "mu_p", "logvar_p")),
    ],
)
def test_shapes_that_would_broadcast_are_refused_by_name(function, names):
    for i, name in enumerate(names[1:], start=1):
        arguments = [torch.zeros(3, 4) for _ in names]
        arguments[i] = torch.zeros(1, 4)
        with pytest.raises(ValueError, match=rf"{name} has shape \(1, 4\)"):
            function(*arguments)
