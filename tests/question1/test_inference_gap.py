"""Quadrature, divergences and fitted posteriors, against importance sampling, closed forms and one another."""

import pytest
import torch

from q1_solution import kl_gaussian_gaussian_analytic
from question1 import autoencoder, inference_gap


@pytest.fixture
def model() -> tuple[autoencoder.VAE, torch.Tensor, torch.Tensor]:
    """A model with two latent dimensions that matter, images, and their log p(x) by quadrature."""
    torch.manual_seed(0)
    vae = autoencoder.VAE(latent_size=2, image_size=6, width=5)
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(2.5)
        vae.decoder[-1].bias += 5
    images = torch.randint(0, 2, (3, 6), dtype=torch.uint8)
    return vae, images, inference_gap.log_likelihood_on_plane(vae, images, inference_gap.plane(6, 300))


def test_quadrature_and_importance_sampling_agree(model):
    vae, images, exact = model
    wide = autoencoder.Posterior(torch.zeros(3, 2), torch.full((3, 2), 0.5), [])
    elbo, estimate = inference_gap.bounds(vae, images, wide, 100_000)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.01)
    assert (elbo < exact).all()


def test_the_gap_is_the_divergence_in_closed_form():
    """A decoder that does not look at z has the prior as its posterior."""
    torch.manual_seed(1)
    vae, images = autoencoder.VAE(latent_size=3, image_size=6, width=5), torch.randint(0, 2, (4, 6))
    with torch.no_grad():
        vae.decoder[0].weight.zero_()
    log_px = autoencoder.log_likelihood_logits(vae.decode(torch.zeros(4, 3)), images.float()).detach().double()
    mean, logvar = torch.randn(4, 3), torch.randn(4, 3)
    elbo, _ = inference_gap.bounds(vae, images, autoencoder.Posterior(mean, logvar, []), 50_000)
    expected = kl_gaussian_gaussian_analytic(mean, logvar, torch.zeros(4, 3), torch.zeros(4, 3)).double()
    torch.testing.assert_close(log_px - elbo, expected, rtol=0, atol=0.1)
    for num_layers in (0, 2):
        q = inference_gap.fit(vae, images, num_layers, steps=400)
        elbo, _ = inference_gap.bounds(vae, images, q, 5000)
        assert (log_px - elbo).abs().max() < 0.01


@pytest.mark.slow
def test_richer_families_come_nearer(model):
    vae, images, exact = model
    with torch.no_grad():
        encoder = vae.posterior(images.float())
    gaps = [(exact - inference_gap.bounds(vae, images, encoder, 20_000)[0]).mean().item()]
    for num_layers in (0, 8):
        q = inference_gap.fit(vae, images, num_layers, steps=800)
        gaps.append((exact - inference_gap.bounds(vae, images, q, 20_000)[0]).mean().item())
    assert gaps[0] > gaps[1] > gaps[2] > -0.005


def test_density_of_a_planar_posterior_is_that_of_its_draws_and_integrates_to_one():
    torch.manual_seed(2)
    flat = [torch.randn(2, width) for _ in range(3) for width in (2, 2, 1)]
    q = autoencoder.Posterior.from_parameters(torch.randn(2, 2), torch.zeros(2, 2), *flat).select(slice(1, 2))
    z, log_q = q.sample(torch.randn(1, 50, 2))
    torch.testing.assert_close(inference_gap.log_density(q, z[0]).float(), log_q[0], rtol=1e-3, atol=1e-3)
    points, area = inference_gap.plane(14, 400)
    assert inference_gap.log_density(q, points).exp().sum().item() * area == pytest.approx(1, abs=5e-3)


@pytest.mark.slow
def test_an_encoder_for_a_decoder_gains_and_leaves_the_decoder(model):
    vae, images, exact = model
    before = [parameter.clone() for parameter in vae.parameters()]
    fitted = inference_gap.fit_encoder(vae, images.repeat(100, 1), 2, epochs=60)
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
    z = torch.randn(4, 2)
    torch.testing.assert_close(fitted.decode(z), vae.decode(z))
    gaps = []
    with torch.no_grad():
        for encoder in (vae, fitted):
            gaps.append(
                (exact - inference_gap.bounds(vae, images, encoder.posterior(images.float()), 20_000)[0]).mean()
            )
    assert gaps[0] > gaps[1] > 0
