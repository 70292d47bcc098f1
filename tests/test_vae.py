"""The VAE: its bound and its estimate against quadrature, its training against being killed."""

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from torch.distributions import Bernoulli

import checkpoint
import compiled
import data
import vae
from q1_solution import kl_gaussian_gaussian_analytic, log_likelihood_bernoulli, log_likelihood_normal

ROOT = Path(__file__).parent.parent
QUICK = ["--dataset", "digits", "--input_dropout", "0.1", "--epochs", "6", "--latent_size", "4", "--num_samples", "5"]


@pytest.fixture
def small() -> tuple[vae.VAE, torch.Tensor]:
    """A model with one latent dimension that matters, and images."""
    torch.manual_seed(0)
    model = vae.VAE(latent_size=1, image_size=12, width=8)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2)
        model.decoder[-1].bias += 5
        # Without training, q must be about as wide as the prior, or the weights have no finite variance.
        model.encoder[-1].weight *= 0.2
        model.encoder[-1].bias *= 0.2
    return model, torch.randint(0, 2, (6, 12), dtype=torch.uint8)


def exact_log_likelihood(model: vae.VAE, images: torch.Tensor) -> np.ndarray:
    """Log p(x) of a model with one latent dimension, by quadrature over a fine grid."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    logits = model.double().decode(grid.unsqueeze(1))
    log_joint = Bernoulli(logits=logits).log_prob(images.double().unsqueeze(1)).sum(-1).detach().numpy()
    return logsumexp(log_joint + norm.logpdf(grid.numpy()) + math.log(18 / 20_000), axis=1)


def test_architecture():
    model = vae.VAE()
    sizes = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(784, 300), (300, 300), (300, 200), (100, 300), (300, 300), (300, 784)]
    activations = [type(layer) for part in (model.encoder, model.decoder) for layer in part[1::2]]
    assert activations == [torch.nn.ELU] * 4
    with torch.no_grad():
        model.decoder[-1].weight.zero_()
        model.decoder[-1].bias.zero_()
    assert (model.decode(torch.randn(3, 100)) == -5).all()


@given(logits=st.lists(st.floats(-300, 300), min_size=1, max_size=20), seed=st.integers(0, 100))
def test_likelihood_from_logits(logits, seed):
    logits = torch.tensor([logits], dtype=torch.float64)
    x = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(seed)).double()
    reference = Bernoulli(logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(vae.log_likelihood_logits(logits, x), reference, rtol=1e-12, atol=1e-12)


def test_elbo_is_the_sum_of_the_graded_functions():
    torch.manual_seed(0)
    model, x, noise = vae.VAE(latent_size=7), torch.randint(0, 2, (5, 784), dtype=torch.uint8), torch.randn(5, 7)
    mean, logvar = model.encode(x.float())
    z = mean + torch.exp(logvar / 2) * noise
    expected = log_likelihood_bernoulli(torch.sigmoid(model.decode(z)), x.float())
    expected = expected - kl_gaussian_gaussian_analytic(mean, logvar, *[torch.zeros_like(mean)] * 2)
    torch.testing.assert_close(vae.elbo(model, x, noise), expected)


def test_path_elbo_has_the_mean_and_the_mean_gradient_of_the_elbo():
    torch.manual_seed(0)
    model = vae.VAE(latent_size=2, image_size=6, width=5)
    x, noise = torch.randint(0, 2, (1, 6)).expand(200_000, 6), torch.randn(200_000, 2)
    values, gradients = [], []
    for objective in (vae.elbo, vae.path_elbo):
        value = objective(model, x, noise).mean()
        values.append(value.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))]))
    assert values[1] == pytest.approx(values[0], abs=0.02)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.05, atol=0.01)


def test_evaluation_multiplies_to_the_same_numbers_as_training():
    torch.manual_seed(0)
    model, z = vae.VAE(latent_size=7), torch.randn(3, 50, 7)
    with torch.no_grad():
        evaluated = model.decode(z)
    torch.testing.assert_close(evaluated, model.decode(z), rtol=1e-5, atol=1e-5)


def test_importance_sampling_finds_the_likelihood(small):
    model, images = small
    estimate = vae.log_likelihood(model, images, num_samples=2_000_000, rows=200_000)
    np.testing.assert_allclose(estimate.numpy(), exact_log_likelihood(model, images), atol=0.03)


@pytest.mark.parametrize("rows", [1, 7, 64, 2000])
def test_importance_sampling_by_hand(small, rows):
    """Any block size covers every image and every draw; the weights are those of the formula."""
    model, images = small
    estimate = vae.log_likelihood(model, images, num_samples=50, rows=rows, seed=3)
    generator = torch.Generator().manual_seed(3)
    expected, count = [], min(50, rows)
    for x in images.split(max(1, rows // 50)):
        mean, logvar = (s.unsqueeze(1).expand(-1, 50, -1) for s in model.encode(x.float()))
        parts = [torch.randn(len(x), min(count, 50 - i), 1, generator=generator) for i in range(0, 50, count)]
        z = (mean + torch.exp(logvar / 2) * torch.cat(parts, dim=1)).flatten(0, 1)
        target = x.float().repeat_interleave(50, dim=0)
        log_weights = log_likelihood_bernoulli(torch.sigmoid(model.decode(z)), target)
        log_weights = log_weights + log_likelihood_normal(torch.zeros_like(z), torch.zeros_like(z), z)
        log_weights = log_weights - log_likelihood_normal(mean.reshape(-1, 1), logvar.reshape(-1, 1), z)
        expected.append(torch.logsumexp(log_weights.view(len(x), 50), dim=1) - math.log(50))
    torch.testing.assert_close(estimate, torch.cat(expected).detach(), rtol=1e-4, atol=1e-4)


def test_the_bound_tightens(small):
    model, images = small
    many = images.repeat(500, 1)
    bounds = [vae.log_likelihood(model, many, num_samples=k).mean().item() for k in (1, 10, 100)]
    assert bounds[0] < bounds[1] < bounds[2] < exact_log_likelihood(model, images).mean() + 0.01
    assert bounds[0] == pytest.approx(vae.evaluate_elbo(model.float(), many).mean().item(), abs=0.1)


def test_kl_per_dimension_adds_up():
    torch.manual_seed(0)
    model, images = vae.VAE(latent_size=5), torch.randint(0, 2, (8, 784), dtype=torch.uint8)
    mean, logvar = model.encode(images.float())
    total = kl_gaussian_gaussian_analytic(mean, logvar, *[torch.zeros_like(mean)] * 2).mean()
    torch.testing.assert_close(vae.kl_per_dimension(model, images).sum(), total.detach())


def test_hidden_pixels_keep_the_expected_input():
    x = torch.randint(0, 2, (2000, 784), dtype=torch.uint8)
    seen = vae.hide(x, 0.25, torch.Generator().manual_seed(0))
    assert seen[x == 0].eq(0).all()
    assert seen[x == 1].unique().tolist() == pytest.approx([0, 4 / 3])
    assert seen.mean().item() == pytest.approx(x.float().mean().item(), abs=2e-3)
    model, noise = vae.VAE(latent_size=3), torch.randn(2000, 3)
    for objective in (vae.elbo, vae.path_elbo):
        assert torch.equal(objective(model, x, noise, x.float()), objective(model, x, noise))
        assert not torch.equal(objective(model, x, noise, seen), objective(model, x, noise))


def start(out: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "vae.py", *QUICK, "--out", str(out), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    whole = start(tmp_path / "whole")
    assert whole.wait() == 0
    rng, path = random.Random(0), tmp_path / "killed" / "checkpoint.pt"
    for epochs_to_live in (1, 2, 2):
        process, seen = start(tmp_path / "killed"), 0
        while process.poll() is None and seen < epochs_to_live:
            before = path.stat().st_mtime_ns if path.exists() else None
            while process.poll() is None and (path.stat().st_mtime_ns if path.exists() else None) == before:
                time.sleep(0.001)
            seen += 1
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")]
    states = [checkpoint.load(tmp_path / name / "checkpoint.pt")["vae"] for name in ("whole", "killed")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for result in results:
        result.pop("train_seconds")
        result.pop("estimate_seconds")
        for record in result["history"]:
            record.pop("seconds")
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--epochs", "many"], "--epochs"),
        (["--learning_rate", "-1"], "learning_rate"),
        (["--schedule", "linear"], "schedule must be one of"),
        (["--dataset", "mnist"], "unknown data set"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--num_samples", "0"], "num_samples"),
        (["--no_such_flag", "1"], "no_such_flag"),
    ],
)
def test_bad_input_gives_one_line_and_status_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        vae.main([*QUICK, "--out", str(tmp_path / "run"), *arguments])
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_a_folder_of_another_run_is_left_alone(tmp_path, capsys):
    vae.main([*QUICK, "--epochs", "1", "--out", str(tmp_path)])
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stop:
        vae.main([*QUICK, "--epochs", "2", "--out", str(tmp_path)])
    assert stop.value.code == 2 and "holds a run with epochs=1" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held


def test_compiled_and_plain_training_agree(tmp_path):
    if not compiled.has_compiler():
        pytest.skip("no C++ compiler here")
    splits = data.Splits(*(split[:96] for split in data.digits()))
    results = {}
    for choice in ("yes", "no"):
        options = vae.Hyperparameters(epochs=3, latent_size=4, compile=choice, out=str(tmp_path / choice))
        results[choice] = vae.train(options, splits, progress=False)[1][-1]
    assert results["yes"]["train_elbo"] == pytest.approx(results["no"]["train_elbo"], rel=1e-4)


def test_without_a_compiler_the_same_function_runs(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert compiled.compile_where_possible(vae.elbo) is vae.elbo
    assert capsys.readouterr().err.count("\n") == 1


def test_the_first_epoch_on_the_real_data(tmp_path, real_data):
    options = vae.Hyperparameters(
        dataset="binarized_mnist", data=str(real_data), epochs=1, num_samples=[1], out=str(tmp_path / "run")
    )
    result = vae.run(options, progress=False)[2]
    assert -180 < result["valid_elbo"]["mean"] < -140
    assert result["valid_elbo"]["mean"] == pytest.approx(result["history"][-1]["valid_elbo"])
