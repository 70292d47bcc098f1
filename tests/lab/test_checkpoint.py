"""Files that are whole or not there."""

import dataclasses

import pytest
import torch

from lab import checkpoint


@dataclasses.dataclass
class Config:
    """A run of two fields."""

    seed: int = 1
    out: str = "here"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    checkpoint.write_json(path, {"a": 1})
    with pytest.raises(KeyError), checkpoint.atomic_write(path) as temporary:
        temporary.write_text("half of")
        raise KeyError
    with pytest.raises(ValueError):
        checkpoint.write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_files_have_an_ordinary_mode(tmp_path):
    checkpoint.write_json(tmp_path / "ours.json", 1)
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_checkpoints_come_back_to_the_bit(tmp_path):
    state = {"weights": torch.randn(3), "history": [{"epoch": 1, "elbo": -1 / 3}]}
    assert checkpoint.load(tmp_path / "state.pt") is None
    checkpoint.save(tmp_path / "state.pt", state)
    held = checkpoint.load(tmp_path / "state.pt")
    assert torch.equal(held["weights"], state["weights"]) and held["history"] == state["history"]


def test_a_folder_belongs_to_one_configuration(tmp_path):
    folder = tmp_path / "run"
    checkpoint.claim_folder(folder, Config())
    checkpoint.claim_folder(folder, Config())
    checkpoint.claim_folder(folder, Config(out="there"), free=("out",))
    with pytest.raises(ValueError, match="seed=1"):
        checkpoint.claim_folder(folder, Config(seed=2), free=("out",))


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="no run of ours"):
        checkpoint.claim_folder(tmp_path, Config())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="cannot be written to"):
            checkpoint.claim_folder(folder, Config())
