"""Files that are whole or not there, folders of one run, checkpoints that come back to the bit."""

import dataclasses
import errno
import os
from pathlib import Path

import pytest
import torch

import lab.claim
from lab import checkpoint, files
from lab.files import atomic_write, write_json
from lab.options import check, option


@dataclasses.dataclass
class Config:
    """A run of two fields."""

    seed: int = 1
    out: str = option("here", bookkeeping=True)

    def __post_init__(self) -> None:
        check(self)


def claim(folder, *options, **more) -> None:
    with lab.claim.claim(folder, *options, **more):
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


def refuse(number):
    def call(*arguments, **keywords):
        raise NotImplementedError("not here") if number is None else OSError(number, os.strerror(number))

    return call


def test_a_file_system_that_does_not_synchronise_is_one_line_once(tmp_path, monkeypatch, capsys):
    """Nor does it change modes, as Windows drives in WSL, network drives and Google's in Colab."""
    files.warn_once.cache_clear()
    for name in ("fsync", "chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse(errno.EPERM), raising=False)
    for value in (1, 2):
        write_json(tmp_path / "value.json", value)
    assert (tmp_path / "value.json").read_text() == "2\n"
    assert capsys.readouterr().err.count("\n") == 1
    claim(tmp_path / "run", Config())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_cannot_keep_a_file_is_an_error(number, tmp_path, monkeypatch):
    write_json(tmp_path / "value.json", 1)
    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(OSError):
        write_json(tmp_path / "value.json", 2)
    assert (tmp_path / "value.json").read_text() == "1\n" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, None])
def test_a_file_system_that_does_not_lock_is_one_line_once(number, tmp_path, monkeypatch, capsys):
    files.warn_once.cache_clear()
    monkeypatch.setattr(lab.claim, "FileLock", refuse(number))
    for _ in range(2):
        claim(tmp_path, Config())
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not lock" in line and (tmp_path / "config.json").exists()


def test_a_folder_belongs_to_one_configuration_and_one_process(tmp_path):
    folder = tmp_path / "run"
    with lab.claim.claim(folder, Config()), pytest.raises(ValueError, match="another process"):
        claim(folder, Config())
    (folder / f"{files.TEMPORARY}half.pt").touch()  # of a run that was killed
    claim(folder, Config(out="there"))
    assert {entry.name for entry in folder.iterdir()} <= {"config.json", ".lock"}
    with pytest.raises(ValueError, match="seed=1"):
        claim(folder, Config(seed=2))


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="something else"):
        claim(tmp_path, Config())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    for folder in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "run"):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            claim(folder, Config())


def test_the_home_folder_has_its_short_name_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert Path(Config(out="~/runs").out) == Path("/home/me/runs")
    assert Config(out="runs/~").out == "runs/~"


def parts(size: int = 2) -> dict:
    torch.manual_seed(0)
    network = torch.nn.Linear(size, 2)
    optimizer = torch.optim.Adam(network.parameters())
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    return {"network": network, "optimizer": optimizer, "generators": generators, "total": torch.zeros(1)}


def advance(parts: dict) -> None:
    parts["optimizer"].zero_grad()
    parts["network"](torch.randn(3, 2, generator=parts["generators"][1])).sum().backward()
    parts["optimizer"].step()
    parts["total"] += 1


def test_parts_are_restored_in_place_by_their_names(tmp_path):
    first, second, origin = parts(), parts(), {"seed": 1, "betas": (0.0, 0.9)}
    state = checkpoint.Checkpoint(tmp_path / "checkpoint.pt", origin, **first)
    assert state.restore() == {}
    advance(first)
    state.save(step=1, curve=[0.5])
    resumed = checkpoint.Checkpoint(tmp_path / "checkpoint.pt", origin, **second).restore()
    assert resumed == {"step": 1, "curve": [0.5]}
    for each in (first, second):
        advance(each)
    assert torch.equal(first["network"].weight, second["network"].weight) and second["total"] == 2


def test_a_checkpoint_of_another_origin_or_of_other_parts_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.Checkpoint(path, {"seed": 1, "images": "ab"}, **parts()).save(step=1)
    before = path.read_bytes()
    for origin in ({"seed": 2, "images": "ab"}, {"seed": 1, "images": "cd"}):
        with pytest.raises(ValueError, match=r"of another run.*(seed=1|images=ab)"):
            checkpoint.Checkpoint(path, origin, **parts()).restore()
    with pytest.raises(ValueError, match="does not fit"):
        checkpoint.Checkpoint(path, {"seed": 1, "images": "ab"}, **parts(size=3)).restore()
    assert path.read_bytes() == before


def test_random_numbers_of_another_device_start_from_a_seed_that_follows_from_them(tmp_path, capsys):
    """CUDA's generators have a state of 16 bytes, the CPU's one of 5,056."""
    path, drawn = tmp_path / "checkpoint.pt", []
    for seed in (1, 1, 2):
        cuda_state = torch.tensor([seed] * 16, dtype=torch.uint8)
        checkpoint.save(path, {"origin": {}, "generator": cuda_state, "step": 1})
        generator = torch.Generator().manual_seed(0)
        assert checkpoint.Checkpoint(path, {}, generator=generator).restore() == {"step": 1}
        (line,) = capsys.readouterr().err.splitlines()
        assert "device to cpu" in line
        drawn.append(torch.rand(3, generator=generator))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_good_one_before(tmp_path, monkeypatch):
    weight, path = torch.ones(1), tmp_path / "checkpoint.pt"
    state = checkpoint.Checkpoint(path, {}, weight=weight)
    assert "no checkpoint yet" in state.last_good()
    for step in (1, 2):
        state.save(step=step)
    path.write_bytes(b"damaged")
    resumed = checkpoint.Checkpoint(path, {}, weight=weight)
    assert resumed.restore() == {"step": 1}
    with monkeypatch.context() as patch:  # as when a run is killed between the two steps of a save
        patch.setattr(checkpoint, "save", refuse(errno.ENOSPC))
        with pytest.raises(OSError):
            resumed.save(step=3)
    assert "previous" in resumed.last_good()
    assert checkpoint.Checkpoint(path, {}, weight=weight).restore() == {"step": 1}


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    """Though the loss is: it was computed before the last update."""
    weight = torch.ones(2)
    state = checkpoint.Checkpoint(tmp_path / "checkpoint.pt", {}, weight=weight)
    state.save(step=1)
    weight[1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"step 2: weight is not finite; the last good checkpoint is"):
        state.save(step=2)
    assert state.restore() == {"step": 1} and torch.equal(weight, torch.ones(2))


def test_weights_too_large_for_float16_are_not_kept():
    network = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(network.weight, 1e6)
    with pytest.raises(FloatingPointError, match="weight"):
        checkpoint.as_float16(network)
