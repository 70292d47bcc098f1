"""The training of the VAE: killed and started again, compiled and plain, on bad input."""

import pytest
import torch

import data
import vae
from lab.device import has_compiler
from question1 import autoencoder

SHORT = {"epochs": 3, "latent_size": 4, "compile": "no"}
QUICK = ["--dataset", "digits", "--input_dropout", "0.1", "--epochs", "6", "--latent_size", "4", "--num_samples", "5"]


def test_hidden_pixels_keep_the_expected_input():
    x = torch.randint(0, 2, (2000, 784), dtype=torch.uint8)
    seen = vae.hide(x, 0.25, torch.Generator().manual_seed(0))
    assert seen[x == 0].eq(0).all()
    assert seen[x == 1].unique().tolist() == pytest.approx([0, 4 / 3])
    assert seen.mean().item() == pytest.approx(x.float().mean().item(), abs=2e-3)
    model, noise = autoencoder.VAE(latent_size=3), torch.randn(2000, 3)
    for objective in (autoencoder.elbo, autoencoder.path_elbo):
        assert torch.equal(objective(model, x, noise, x.float()), objective(model, x, noise))
        assert not torch.equal(objective(model, x, noise, seen), objective(model, x, noise))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--schedule", "linear"], "invalid choice: 'linear'"),
        (["--dataset", "mnist"], "unknown data set"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--num_layers", "2"], "needs posterior planar"),
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
    previous = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stop:
        vae.main([*QUICK, "--epochs", "1", "--latent_size", "5", "--out", str(tmp_path)])
    assert stop.value.code == 2 and "holds a run with latent_size=4" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == previous


@pytest.mark.slow
def test_compiled_and_plain_training_agree(tmp_path):
    if not has_compiler():
        pytest.skip("no C++ compiler here")
    splits = data.Splits(*(split[:96] for split in data.digits()))
    results = {}
    for choice in ("yes", "no"):
        (tmp_path / choice).mkdir()
        options = vae.Hyperparameters(**{**SHORT, "compile": choice, "out": str(tmp_path / choice)})
        results[choice] = vae.train(options, splits, progress=False)[1][-1]
    assert results["yes"]["train_elbo"] == pytest.approx(results["no"]["train_elbo"], rel=1e-4)


def test_the_first_epoch_on_the_real_data(tmp_path, real_data):
    options = vae.Hyperparameters(
        dataset="binarized_mnist", data=str(real_data), epochs=1, num_samples=[1], out=str(tmp_path / "run")
    )
    result = vae.run(options, progress=False)[2]
    assert -180 < result["valid_elbo"]["mean"] < -140
    assert result["valid_elbo"]["mean"] == pytest.approx(result["history"][-1]["valid_elbo"])


def test_estimates_that_are_done_outlive_a_stop(tmp_path, monkeypatch):
    options = vae.Hyperparameters(
        dataset="digits", epochs=1, latent_size=2, compile="no", num_samples=[1, 2], out=str(tmp_path)
    )
    asked = []

    def stop_at_the_second(model, images, k, progress):
        asked.append(k)
        if asked == [1, 2]:
            raise KeyboardInterrupt
        return torch.arange(4.0)

    monkeypatch.setattr(vae, "log_likelihood", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        vae.run(options, progress=False)
    _, _, result = vae.run(options, progress=False)
    assert asked == [1, 2, 2] and list(result["test_log_px"]) == ["1", "2"]


PLANAR = {"posterior": "planar", "num_layers": 2, "flow_scale": 0.1}


@pytest.mark.parametrize("changes", [{"posterior": "planar"}, PLANAR, {**PLANAR, "gradient": "path"}])
def test_every_objective_trains(tmp_path, changes):
    splits = data.Splits(*(split[:96] for split in data.digits()))
    histories = []
    for i, each in enumerate(({}, changes)):
        (tmp_path / str(i)).mkdir()
        options = vae.Hyperparameters(epochs=3, latent_size=4, compile="no", out=str(tmp_path / str(i)), **each)
        histories.append(vae.train(options, splits, progress=False)[1])
    usual, history = histories
    assert history[-1]["valid_elbo"] > history[0]["valid_elbo"]
    assert history[-1]["valid_elbo"] != usual[-1]["valid_elbo"]  # another objective, or another model
