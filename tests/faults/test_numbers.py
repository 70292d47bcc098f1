"""Extreme numbers through the public functions: the value where the mathematics has one, in every type of float."""

import numpy as np
import pytest
import torch
from torch import Tensor

import gan
import q1_solution as q1
import solution
from data.densities import TARGETS
from tests.faults.conftest import LONG

ROWS = 3000 if LONG else 300  # inputs of each function, type and size
STEEPEST = 80.0  # log-variance: the factor exp(80 / 2) of a difference is far from the end of float32
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Log of the smallest positive number in which a Bernoulli likelihood is computed.
FLOOR = {dtype: np.log(2.0**-1074 if dtype == torch.float64 else 2.0**-149) for dtype in TYPES}
# With a range beyond float64's, the reference overflows where the true value does and nowhere before.
Wide = np.longdouble
wide = pytest.mark.skipif(np.finfo(Wide).maxexp < 16000, reason="long double is no wider than double here")


def extremes(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, largest: float = 1e4) -> Tensor:
    """Numbers from nought and the subnormal ones to ``largest``, of both signs, in memory that is not contiguous."""
    tiny = torch.finfo(dtype).tiny
    values = torch.tensor(
        [0.0, tiny / 4, tiny, 1e-3, 0.5, 1.0, 1.0 + torch.finfo(dtype).eps, 3.0, 30.0, 90.0, 700.0, largest]
    ).double()
    doubled = (*shape[:-1], 2 * shape[-1])
    chosen = values[torch.randint(len(values), doubled, generator=generator)]
    signs = torch.randint(2, doubled, generator=generator) * 2 - 1
    ordinary = torch.randn(doubled, generator=generator, dtype=torch.float64)
    mixed = torch.where(torch.rand(doubled, generator=generator) < 0.3, ordinary, chosen * signs)
    return mixed.clamp(-largest, largest).to(dtype)[..., ::2]


def as_wide(x: Tensor) -> np.ndarray:
    return x.double().numpy().astype(Wide)


def agree(found: Tensor, expected: np.ndarray, scale: np.ndarray, dtype: torch.dtype, digits: float = 64) -> None:
    """The found values are the expected ones to some units in the last place of the largest term of the sum."""
    assert found.dtype == dtype and found.shape == expected.shape
    info = torch.finfo(dtype)
    value = as_wide(found)
    assert not np.isnan(value).any()
    overflows = np.abs(expected) > Wide(info.max)
    near = np.abs(expected) > Wide(info.max) * Wide(0.98)
    error = np.abs(value - np.where(overflows, 0, expected))
    bound = Wide(digits * info.eps) * (1 + np.abs(scale))
    with np.errstate(invalid="ignore"):
        right = error <= bound
    same_sign = np.sign(value) == np.sign(expected)
    right |= same_sign & ((overflows & (np.abs(value) >= Wide(info.max) / 2)) | (near & np.isinf(value)))
    wrong = np.flatnonzero(~right)
    assert not len(wrong), (len(wrong), value[wrong[:3]], expected[wrong[:3]])


def cases():
    for dtype in TYPES:
        for rows, size in ((ROWS, 3), (ROWS, 1), (1, 5), (0, 2)):
            yield dtype, rows, size


@wide
def test_densities_and_divergences(tried):
    generator = torch.Generator().manual_seed(0)
    for dtype, rows, size in cases():
        tried("extreme numbers", 4 * rows)
        draw = lambda largest=1e4: extremes((rows, size), dtype, generator, largest)  # noqa: B023, E731
        mu, z, logvar = draw(), draw(), draw(STEEPEST)
        z = torch.where(torch.rand(z.shape, generator=generator) < 0.3, mu, z)
        with np.errstate(over="ignore", under="ignore"):
            square = (as_wide(z) - as_wide(mu)) ** 2
            scaled = np.where(square == 0, 0, square * np.exp(-as_wide(logvar)))
            terms = [np.log(2 * np.pi) + as_wide(logvar), scaled]
            expected = -(terms[0] + terms[1]).sum(1) / 2
            scale = (np.abs(terms[0]) + scaled * (1 + np.abs(as_wide(logvar)))).sum(1)
        agree(q1.log_likelihood_normal(mu, logvar, z), expected, scale, dtype)

        mean = draw(1.0).abs()
        target = torch.randint(2, mean.shape, generator=generator).to(dtype)
        with np.errstate(divide="ignore"):
            p = as_wide(mean)
            chosen = np.where(as_wide(target) == 1, np.log(p), np.log1p(-p)).clip(min=FLOOR[dtype])
        agree(q1.log_likelihood_bernoulli(mean, target), chosen.sum(1), np.abs(chosen).sum(1), dtype)

        y = draw()
        top = as_wide(y).max(1, initial=-np.inf) if rows else np.zeros(0, Wide)
        with np.errstate(under="ignore"):
            expected = top + np.log(np.exp(as_wide(y) - top[:, None]).mean(1)) if rows else top
        agree(q1.log_mean_exp(y), expected, top, dtype)

        other = draw(STEEPEST)
        mu_p = torch.where(torch.rand(mu.shape, generator=generator) < 0.3, mu, draw())
        with np.errstate(over="ignore", under="ignore"):
            d = as_wide(logvar) - as_wide(other)
            square = (as_wide(mu) - as_wide(mu_p)) ** 2
            scaled = np.where(square == 0, 0, square * np.exp(-as_wide(other)))
            expected = (np.expm1(d) - d + scaled).sum(1) / 2
            scale = (np.abs(d) + np.exp(d) * (1 + np.abs(d)) + scaled * (1 + np.abs(as_wide(other)))).sum(1)
        found = q1.kl_gaussian_gaussian_analytic(mu, logvar, mu_p, other)
        agree(found, expected, scale, dtype)
        estimate = q1.kl_gaussian_gaussian_mc(mu, logvar, mu_p, other, num_samples=2)
        assert not estimate.isnan().any() and estimate.shape == (rows,)


@wide
def test_losses_of_the_critic(tried):
    generator = torch.Generator().manual_seed(1)
    for dtype in TYPES:
        for _ in range(ROWS // 3):
            tried("extreme numbers", 2)
            cp, cq = (extremes((5,), dtype, generator) for _ in range(2))
            softplus = [np.logaddexp(Wide(0), sign * as_wide(c)) for sign, c in ((-1, cp), (1, cq))]
            expected = np.log(Wide(2)) - (softplus[0].mean() + softplus[1].mean()) / 2
            scale = sum(s.max() for s in softplus)
            agree(gan.jsd(cp, cq).reshape(1), np.array([expected]), np.array([scale]), dtype)
            largest = np.abs(as_wide(cp)).max() + np.abs(as_wide(cq)).max()
            expected = as_wide(cp).mean() - as_wide(cq).mean()
            agree(gan.w1(cp, cq).reshape(1), np.array([expected]), np.array([largest]), dtype)


@wide
def test_planar_maps(tried):
    generator = torch.Generator().manual_seed(2)
    for dtype, rows, size in cases():
        if not rows:
            layer, none = solution.PlanarTransformation(size), torch.zeros(0, size)
            assert layer(none).shape == (0, size) and layer.get_logdet(none).shape == (0, 1)
            continue
        for _ in range(10):
            tried("extreme numbers", 2 * rows // 10)
            x = extremes((max(1, rows // 10), size), dtype, generator, 100.0)
            u, w = (extremes((1, size), dtype, generator, 10.0) for _ in range(2))
            b = extremes((1,), dtype, generator, 10.0)
            at = (as_wide(x) * as_wide(w)).sum(1, keepdims=True) + as_wide(b)
            # The rounding of w·x + b moves tanh by as much at most.
            along = (np.abs(as_wide(x) * as_wide(w))).sum(1, keepdims=True) + np.abs(as_wide(b))
            agree(
                solution.planar_transformation(x, u, w, b),
                as_wide(x) + as_wide(u) * np.tanh(at),
                np.abs(as_wide(x)) + np.abs(as_wide(u)) * (1 + along),
                dtype,
            )
            found = solution.get_logdet(x, u, w, b)
            assert found.shape == (len(x), 1) and not found.isnan().any() and (found > -100).all()
            z0, logdet = x, torch.zeros(len(x), 1, dtype=dtype)
            expected = (as_wide(x) ** 2 + np.log(2 * np.pi)).sum(1, keepdims=True) / 2
            agree(solution.loss1(z0, logdet), expected, expected, dtype)


@pytest.mark.parametrize("name", TARGETS)
def test_energies(name, tried):
    generator = torch.Generator().manual_seed(3)
    for dtype in TYPES:
        z = extremes((ROWS, 2), dtype, generator, 50.0)
        tried("extreme numbers", len(z))
        energy = TARGETS[name].energy(z)
        assert energy.shape == (len(z),) and not energy.isnan().any()
        assert TARGETS[name].energy(z[:0]).shape == (0,)


WRONG = [
    (lambda: q1.log_likelihood_normal(torch.zeros(1, 4), torch.zeros(3, 4), torch.zeros(3, 4)), "logvar"),
    (lambda: q1.log_likelihood_bernoulli(torch.zeros(2, 4), torch.zeros(2, 3)), "target"),
    (lambda: q1.kl_gaussian_gaussian_analytic(*[torch.zeros(2, 3)] * 3, torch.zeros(2)), "logvar_p"),
    (lambda: q1.kl_gaussian_gaussian_mc(*[torch.zeros(2, 3)] * 4, num_samples=0), "num_samples"),
    (lambda: gan.ogp(torch.zeros(5, 2), None, torch.zeros(1, 2), None, lambda x: x), "p has shape"),
    (lambda: solution.loss1(torch.zeros(5, 2), torch.zeros(5)), "logdet"),
    (lambda: solution.loss2(torch.zeros(5), torch.zeros(5, 2), torch.zeros(5)), "logdet"),
    (lambda: solution.Flow(2, 1)(torch.zeros(5, 1)), "dimension"),
]


@pytest.mark.parametrize(("call", "argument"), WRONG)
def test_a_wrong_shape_is_named(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()
