"""The trained models that ship are what their index says: they load, draw, and give the recorded numbers."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch

import data
import pretrained
from lab import checkpoint, figures
from lab.options import InputError
from model import Generator
from pretrained import HERE, pack, pictures
from pretrained.__main__ import main
from pretrained.pack import measure
from question1.autoencoder import evaluate_elbo

ROWS = pretrained.index()
FIRST = {row["kind"]: name for name, row in reversed(ROWS.items())}  # of each kind
VAES = [name for name, row in ROWS.items() if row["kind"] == "vae"]


@torch.no_grad()
def drawn(model, kind: str) -> torch.Tensor:
    """64 draws of a model."""
    torch.manual_seed(0)
    if kind == "vae":
        return torch.sigmoid(model.decode(torch.randn(64, model.latent_size)))
    return model.inverse(torch.randn(64, 2)) if kind == "flow" else model(torch.randn(64, model.dimz))


@pytest.mark.parametrize("name", ROWS)
def test_a_model_loads_draws_and_gives_its_number(name):
    row, model = ROWS[name], pretrained.load(name)
    assert not model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert hashlib.sha256((HERE / f"{name}.pt").read_bytes()).hexdigest() == row["sha256"]
    draws = drawn(model, row["kind"])
    assert len(draws) == 64 and draws.isfinite().all() and draws.flatten(1).std(0).max() > 0.1
    assert measure(model, row) == pytest.approx(row["check"], rel=1e-3)


@pytest.mark.parametrize("name", VAES)
def test_a_vae_has_its_elbo_on_the_real_data(name, real_data):
    valid = data.binarized_mnist(real_data).valid[:2000]
    elbo = evaluate_elbo(pretrained.load(name), valid)
    error = elbo.std().item() / len(valid) ** 0.5
    assert elbo.mean().item() == pytest.approx(ROWS[name]["scores"]["validation ELBO"], abs=4 * error)


def test_names_are_listed_and_an_unknown_one_is_refused():
    assert pretrained.load() == pretrained.names() == list(ROWS)
    assert sum(row["bytes"] for row in ROWS.values()) < 12e6
    with pytest.raises(InputError, match=f"'no-such-model'.*{VAES[0]}"):
        pretrained.load("no-such-model")


def test_models_and_generators_load_in_any_folder(tmp_path):
    generator = Generator(dimz=3, dimh=2)
    checkpoint.save(tmp_path / "generator.pt", {"dimz": 3, "dimh": 2, "network": checkpoint.as_float16(generator)})
    code = f"""
import pretrained
from question2.images import load_generator
print(load_generator("generator.pt").dimz, type(pretrained.load("{FIRST["flow"]}")).__name__)
"""
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(HERE.parent)}}
    done = subprocess.run([sys.executable, "-c", code], **options, capture_output=True, text=True)
    assert done.stdout == "3 Flow\n", done.stderr


def test_the_sheet_shows_every_model(tmp_path, monkeypatch, capsys):
    shown = {}
    monkeypatch.setattr(pictures, "draw", lambda axes, name, seed, count: shown.update({name: seed}))
    main(["--out", str(tmp_path / "sheet.png"), "--seed", "3"])
    assert shown == dict.fromkeys(ROWS, 3)
    said = capsys.readouterr().out
    assert (tmp_path / "sheet.png").exists() and all(name in said for name in ROWS)


def test_a_panel_depends_on_the_seed_and_names_its_model(tmp_path):
    for name in FIRST.values():
        with figures.figure(tmp_path / f"{name}.png", columns=3) as panels:
            for axes, seed in zip(panels, (0, 0, 1), strict=True):
                pictures.draw(axes, name, seed, count=4)
            same, again, other = (axes.images[0].get_array() for axes in panels)
        assert panels[0].get_title().startswith(name) and (same == again).all()
        assert (same == other).all() == (ROWS[name]["kind"] == "flow")  # a density is no draw


def test_the_page_is_written_from_the_index():
    table = "".join(map(pack.as_line, ROWS.values()))
    assert f"|---|\n{table}\n" in (HERE / "README.md").read_text(encoding="utf-8")
