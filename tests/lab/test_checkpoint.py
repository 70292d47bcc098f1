"""Files that are whole or not there."""

import dataclasses

import pytest
import torch

from lab import checkpoint
from lab.claim import claim
from lab.files import atomic_write, write_json
from lab.options import option


@dataclasses.dataclass
class Config:
    """A run of two fields."""

    seed: int = 1
    out: str = option("here", bookkeeping=True)


def claim(folder, *options, **more) -> None:
    with claim(folder, *options, **more):
        pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text("half of")
        raise KeyError
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_files_have_an_ordinary_mode(tmp_path):
    write_json(tmp_path / "ours.json", 1)
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_checkpoints_come_back_to_the_bit(tmp_path):
    state = {"weights": torch.randn(3), "history": [{"epoch": 1, "elbo": -1 / 3}]}
    assert checkpoint.load(tmp_path / "state.pt") is None
    checkpoint.save(tmp_path / "state.pt", state)
    loaded = checkpoint.load(tmp_path / "state.pt")
    assert torch.equal(loaded["weights"], state["weights"]) and loaded["history"] == state["history"]


def test_a_folder_belongs_to_one_configuration(tmp_path):
    folder = tmp_path / "run"
    claim(folder, Config())
    claim(folder, Config())
    claim(folder, Config(out="there"))
    with pytest.raises(ValueError, match="seed=1"):
        claim(folder, Config(seed=2))


@dataclasses.dataclass
class Later(Config):
    """The same run in a later version, which has fields more, and another name for the seed."""

    steps: int = 10
    rates: list[float] = dataclasses.field(default_factory=lambda: [0.5])


def test_a_field_that_was_added_later_had_its_default(tmp_path):
    claim(tmp_path, Config())
    claim(tmp_path, Later())
    for changes in ({"steps": 11}, {"rates": [0.1]}):
        (tmp_path / "config.json").write_text('{"seed": 1}')
        with pytest.raises(ValueError, match=r"steps=10|rates=\[0.5\]"):
            claim(tmp_path, Later(**changes))
    (tmp_path / "config.json").write_text('{"former_seed": 7}')
    with pytest.raises(ValueError, match="seed=7"):
        claim(tmp_path, Config(), former={"former_seed": "seed"})
    claim(tmp_path, Config(seed=7), former={"former_seed": "seed"})


def test_parts_are_restored_in_place_by_their_names(tmp_path):
    def parts():
        torch.manual_seed(0)
        network = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(network.parameters())
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        return {"network": network, "optimizer": optimizer, "generators": generators, "total": torch.zeros(1)}

    def advance(parts):
        parts["optimizer"].zero_grad()
        parts["network"](torch.randn(3, 2, generator=parts["generators"][1])).sum().backward()
        parts["optimizer"].step()
        parts["total"] += 1

    first, second = parts(), parts()
    state = checkpoint.Checkpoint(tmp_path / "checkpoint.pt", **first)
    assert state.restore() == {}
    advance(first)
    state.save(step=1, curve=[0.5])
    assert checkpoint.Checkpoint(tmp_path / "checkpoint.pt", **second).restore() == {"step": 1, "curve": [0.5]}
    for each in (first, second):
        advance(each)
    assert torch.equal(first["network"].weight, second["network"].weight) and second["total"] == 2


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_good_one_before(tmp_path, monkeypatch):
    weight, path = torch.ones(1), tmp_path / "checkpoint.pt"
    state = checkpoint.Checkpoint(path, weight=weight)
    assert "no checkpoint yet" in state.last_good()
    for step in (1, 2):
        state.save(step=step)
    path.write_bytes(b"damaged")
    resumed = checkpoint.Checkpoint(path, weight=weight)
    assert resumed.restore() == {"step": 1} and str(resumed.previous) in resumed.last_good()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            resumed.save(step=3)
    assert checkpoint.Checkpoint(path, weight=weight).restore() == {"step": 1}
    resumed.save(step=3)
    path.unlink()  # as when a run is killed between the two steps of a save
    assert "previous" in resumed.last_good()
    assert checkpoint.Checkpoint(path, weight=weight).restore() == {"step": 1}


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="no run of ours"):
        claim(tmp_path, Config())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            claim(folder, Config())
