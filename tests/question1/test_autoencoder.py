"""The VAE's bounds and estimates against quadrature, torch.distributions and the graded functions."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from torch.distributions import Bernoulli

from q1_solution import kl_gaussian_gaussian_analytic, log_likelihood_bernoulli, log_likelihood_normal
from question1 import autoencoder


@pytest.fixture
def small() -> tuple[autoencoder.VAE, torch.Tensor]:
    """A model with one latent dimension that matters, and images."""
    torch.manual_seed(0)
    model = autoencoder.VAE(latent_size=1, image_size=12, width=8)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2)
        model.decoder[-1].bias += 5
        # Without training, q must be about as wide as the prior, or the weights have no finite variance.
        model.encoder[-1].weight *= 0.2
        model.encoder[-1].bias *= 0.2
    return model, torch.randint(0, 2, (6, 12), dtype=torch.uint8)


def exact_log_likelihood(model: autoencoder.VAE, images: torch.Tensor) -> np.ndarray:
    """Log p(x) of a model with one latent dimension, by quadrature over a fine grid."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    logits = model.double().decode(grid.unsqueeze(1))
    log_joint = Bernoulli(logits=logits).log_prob(images.double().unsqueeze(1)).sum(-1).detach().numpy()
    return logsumexp(log_joint + norm.logpdf(grid.numpy()) + math.log(18 / 20_000), axis=1)


def test_architecture():
    model = autoencoder.VAE()
    sizes = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(784, 300), (300, 300), (300, 200), (100, 300), (300, 300), (300, 784)]
    activations = [type(layer) for part in (model.encoder, model.decoder) for layer in part[1::2]]
    assert all(issubclass(activation, torch.nn.ELU) for activation in activations) and len(activations) == 4
    with torch.no_grad():
        model.decoder[-1].weight.zero_()
        model.decoder[-1].bias.zero_()
    assert (model.decode(torch.randn(3, 100)) == -5).all()


@given(logits=st.lists(st.floats(-300, 300), min_size=1, max_size=20), seed=st.integers(0, 100))
def test_likelihood_from_logits(logits, seed):
    logits = torch.tensor([logits], dtype=torch.float64)
    x = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(seed)).double()
    reference = Bernoulli(logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(autoencoder.log_likelihood_logits(logits, x), reference, rtol=1e-12, atol=1e-12)


def test_elbo_is_the_sum_of_the_graded_functions():
    torch.manual_seed(0)
    model, x, noise = autoencoder.VAE(latent_size=7), torch.randint(0, 2, (5, 784)).byte(), torch.randn(5, 7)
    mean, logvar = model.encode(x.float())
    z = mean + torch.exp(logvar / 2) * noise
    expected = log_likelihood_bernoulli(torch.sigmoid(model.decode(z)), x.float())
    expected = expected - kl_gaussian_gaussian_analytic(mean, logvar, *[torch.zeros_like(mean)] * 2)
    torch.testing.assert_close(autoencoder.elbo(model, x, noise), expected)


@given(
    seed=st.integers(0, 100),
    draws=st.integers(1, 9),
    scale=st.floats(0.1, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_likelihood_of_draws_is_that_of_their_logits(seed, draws, scale, dtype):
    torch.manual_seed(seed)
    model = autoencoder.VAE(latent_size=3, image_size=20, width=8).to(dtype)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(scale)  # so that all of ELU and of the sigmoid is used, and exponentials overflow
    x, z = torch.randint(0, 2, (7, 20)).to(dtype), torch.randn(7, draws, 3, dtype=dtype)
    found, copy_of_z = autoencoder.log_likelihood_of_draws(model, x, z), z.clone()
    precision = 100 * torch.finfo(dtype).eps
    atol = precision * 20 * (1 + model.decode(z).abs().max().item())  # the terms of a likelihood can cancel
    expected = Bernoulli(logits=model.double().decode(z)).log_prob(x.double().unsqueeze(1)).sum(-1).to(dtype)
    torch.testing.assert_close(found, expected.detach(), rtol=precision, atol=atol)
    assert z.equal(copy_of_z)


def test_the_estimate_has_the_same_bits_for_any_number_of_threads():
    torch.manual_seed(0)
    model, images = autoencoder.VAE(latent_size=5, num_layers=2), torch.randint(0, 2, (50, 784), dtype=torch.uint8)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(autoencoder.log_likelihood(model, images, num_samples=30, rows=100))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len(found[0]) == 50 and found[0].equal(found[1]) and found[0].equal(found[2])


def test_an_error_in_a_thread_ends_the_estimate(small, monkeypatch):
    model, images = small
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise ZeroDivisionError

    monkeypatch.setattr(autoencoder, "log_likelihood_of_draws", fail)
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        autoencoder.log_likelihood(model, images.repeat(100, 1), num_samples=1, rows=1)
    assert len(calls) < 300 and torch.get_num_threads() == threads


def test_importance_sampling_finds_the_likelihood(small):
    model, images = small
    estimate = autoencoder.log_likelihood(model, images, num_samples=2_000_000, rows=200_000)
    np.testing.assert_allclose(estimate.numpy(), exact_log_likelihood(model, images), atol=0.03)


@pytest.mark.parametrize("rows", [1, 7, 64, 2000])
def test_importance_sampling_by_hand(small, rows):
    """Any block size covers every image and every draw; the weights are those of the formula."""
    model, images = small
    estimate = autoencoder.log_likelihood(model, images, num_samples=50, rows=rows, seed=3)
    generator = torch.Generator().manual_seed(3)
    expected = []
    for x in images.split(max(1, rows // 50)):
        mean, logvar = (s.unsqueeze(1).expand(-1, 50, -1) for s in model.encode(x.float()))
        z = (mean + torch.exp(logvar / 2) * torch.randn(len(x), 50, 1, generator=generator)).flatten(0, 1)
        target = x.float().repeat_interleave(50, dim=0)
        log_weights = log_likelihood_bernoulli(torch.sigmoid(model.decode(z)), target)
        log_weights = log_weights + log_likelihood_normal(torch.zeros_like(z), torch.zeros_like(z), z)
        log_weights = log_weights - log_likelihood_normal(mean.reshape(-1, 1), logvar.reshape(-1, 1), z)
        expected.append(torch.logsumexp(log_weights.view(len(x), 50), dim=1) - math.log(50))
    torch.testing.assert_close(estimate, torch.cat(expected).detach(), rtol=1e-4, atol=1e-4)


def test_kl_per_dimension_adds_up():
    torch.manual_seed(0)
    model, images = autoencoder.VAE(latent_size=5), torch.randint(0, 2, (8, 784), dtype=torch.uint8)
    mean, logvar = model.encode(images.float())
    total = kl_gaussian_gaussian_analytic(mean, logvar, *[torch.zeros_like(mean)] * 2).mean()
    torch.testing.assert_close(autoencoder.kl_per_dimension(model, images).sum(), total.detach())


def random_posterior(size: int, num_layers: int) -> autoencoder.VAE:
    """A model whose posterior's flows differ much from the identity."""
    torch.manual_seed(1)
    model = autoencoder.VAE(latent_size=size, image_size=12, width=8, num_layers=num_layers)
    with torch.no_grad():
        model.encoder[-1].weight *= 4
        model.encoder[-1].bias.normal_()
    return model


@pytest.mark.parametrize("num_layers", [0, 4])
def test_log_q_is_the_density_of_the_draws(num_layers):
    """For one image: log q(z|x) against the density of z0 and autograd's Jacobian of the flow."""
    model = random_posterior(3, num_layers).double()
    q = model.posterior(torch.ones(1, 12, dtype=torch.float64))
    noise = torch.randn(5, 3, dtype=torch.float64)
    z, log_q = q.sample(noise.unsqueeze(0))
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda e: q.sample(e.view(1, 1, 3))[0].view(3), noise[i])
        expected = norm.logpdf(noise[i].numpy()).sum() - torch.linalg.slogdet(jacobian).logabsdet.item()
        assert log_q[0, i].item() == pytest.approx(expected, abs=1e-6)
    assert z.shape == (1, 5, 3) and log_q.shape == (1, 5)


def test_importance_sampling_with_a_planar_posterior_finds_the_likelihood(small):
    plain, images = small
    model = random_posterior(1, num_layers=2)
    model.decoder = plain.decoder
    estimate = autoencoder.log_likelihood(model, images, num_samples=2_000_000, rows=200_000)
    np.testing.assert_allclose(estimate.numpy(), exact_log_likelihood(model, images), atol=0.05)


def test_elbo_of_a_planar_posterior_has_the_mean_of_its_weights():
    model = random_posterior(2, num_layers=3)
    x, noise = torch.randint(0, 2, (4, 12), dtype=torch.uint8), torch.randn(4, 2)
    z, log_q = model.posterior(x.float()).sample(noise.unsqueeze(1))
    log_px = log_likelihood_bernoulli(torch.sigmoid(model.decode(z.squeeze(1))), x.float())
    log_prior = log_likelihood_normal(torch.zeros(4, 2), torch.zeros(4, 2), z.squeeze(1))
    torch.testing.assert_close(
        autoencoder.elbo(model, x, noise), log_px + log_prior - log_q.squeeze(1), rtol=1e-4, atol=1e-4
    )


def test_path_gradient_of_a_planar_posterior_is_the_density_s_slope_along_the_draw():
    """The derivative in the mean, which moves the draw alone, is the one in the noise, over the deviation."""
    with torch.no_grad():
        q = random_posterior(2, num_layers=3).double().posterior(torch.rand(4, 12))
    noise = torch.randn(4, 1, 2, dtype=torch.float64, requires_grad=True)
    z, log_q = q.sample(noise)
    (expected,) = torch.autograd.grad(log_q.sum(), noise)
    mean = q.mean.clone().requires_grad_()
    path_z, path_log_q = q._replace(mean=mean).path_sample(noise.detach())
    torch.testing.assert_close((path_z, path_log_q), (z, log_q))
    (found,) = torch.autograd.grad(path_log_q.sum(), mean)
    torch.testing.assert_close(found, expected.squeeze(1) * torch.exp(-0.5 * q.logvar))


@pytest.mark.parametrize("num_layers", [0, 2])
def test_bounds_of_one_draw_have_the_mean_and_the_mean_gradient_of_the_elbo(num_layers):
    torch.manual_seed(0)
    model = autoencoder.VAE(latent_size=2, image_size=6, width=5, num_layers=num_layers)
    x, noise = torch.randint(0, 2, (1, 6)).expand(200_000, 6), torch.randn(200_000, 2)
    values, gradients = [], []
    for objective in (autoencoder.elbo, autoencoder.sampled_elbo, autoencoder.path_elbo):
        value = objective(model, x, noise).mean()
        values.append(value.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))]))
    assert values[1:] == pytest.approx([values[0]] * 2, abs=0.02)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=0.05, atol=0.012)


@pytest.mark.parametrize("num_layers", [0, 2])
def test_a_model_in_double_precision_has_the_numbers_of_single_precision(num_layers):
    torch.manual_seed(0)
    single = autoencoder.VAE(latent_size=2, image_size=6, width=5, num_layers=num_layers)
    double = copy.deepcopy(single).double()
    x, noise = torch.randint(0, 2, (4, 6), dtype=torch.uint8), torch.randn(4, 2)
    for objective in (autoencoder.elbo, autoencoder.sampled_elbo, autoencoder.path_elbo):
        value = objective(double, x, noise)
        assert value.dtype == torch.float64
        torch.testing.assert_close(value.float(), objective(single, x, noise))
    found, expected = (autoencoder.log_likelihood(model, x, 20_000) for model in (double, single))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)  # the draws differ
    expected = autoencoder.kl_per_dimension(single, x)
    torch.testing.assert_close(autoencoder.kl_per_dimension(double, x).float(), expected)


def test_a_flow_that_begins_as_the_identity():
    torch.manual_seed(0)
    model = autoencoder.VAE(latent_size=3, image_size=6, width=5, num_layers=4, flow_scale=0.0)
    q, noise = model.posterior(torch.rand(5, 6)), torch.randn(5, 1, 3)
    torch.testing.assert_close(q.sample(noise)[0], q._replace(layers=[]).sample(noise)[0])
