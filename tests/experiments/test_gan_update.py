"""The critic's metric before and after the generator's update."""

import dataclasses

import pytest
import torch

from experiments import gan_update
from question2 import image_gan
from question2.configurations import CONFIGURATIONS, Hyperparameters

SMALL = {"generator_dimz": 4, "generator_dimh": 4, "critic_dimh": 4, "batch_size": 32, "critic_wd": 0.0}
IMAGES = torch.randint(256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def small(**changes: float) -> tuple[Hyperparameters, image_gan.Players]:
    hp = dataclasses.replace(CONFIGURATIONS["cifar10-w1-2"], **SMALL, **changes)
    return hp, image_gan.Players(hp, torch.device("cpu"), fast=False)


def states(players: image_gan.Players) -> list[torch.Tensor]:
    return [v.clone() for network in (players.critic, players.generator) for v in network.state_dict().values()]


def test_an_update_brings_the_metric_down_and_the_run_stays_where_it_was():
    hp, players = small(generator_lr=0.02, critic_lr=1e-12)
    before, random = states(players), torch.get_rng_state()
    found = gan_update.measure(players, hp, IMAGES, window=6, fast=False, bfloat16=False)
    change = found["difference"]
    assert change["mean"] < -5 * change["standard_error"]
    assert change["mean"] == pytest.approx(found["after"]["mean"] - found["before"]["mean"], abs=1e-6)
    # As long as the critic stays, its passes in training give the same singular values.
    error = 5 * (found["recorded"]["standard_error"] + found["before"]["standard_error"])
    assert found["recorded"]["mean"] == pytest.approx(found["before"]["mean"], abs=error)
    values = players.critic.eval()(IMAGES.float() / 127.5 - 1)
    assert found["level"] == pytest.approx(values.mean().item(), rel=0.05)
    assert found["spread"] == pytest.approx(values.std().item(), rel=0.3)
    assert all(torch.equal(*pair) for pair in zip(before, states(players), strict=True))
    assert torch.equal(torch.get_rng_state(), random)


def test_without_an_update_nothing_changes_nor_do_the_measurements_change_the_critic(monkeypatch):
    used = []

    def no_advance(hp, players, *_):
        used.append(players)
        return lambda: None

    monkeypatch.setattr(image_gan, "make_advance", no_advance)
    hp, players = small()
    before = [value.clone() for value in players.critic.state_dict().values()]
    found = gan_update.measure(players, hp, IMAGES, window=2, fast=False, bfloat16=False, power_iterations=7)
    assert found["difference"]["mean"] == found["recorded"]["mean"] == 0 != found["before"]["mean"]
    (copied,) = used
    iterations = [m.n_power_iterations for m in copied.critic.modules() if hasattr(m, "n_power_iterations")]
    assert len(iterations) == 10 and set(iterations) == {7}
    assert copied is not players and copied.critic.training
    after = copied.critic.state_dict().values()  # the vectors of the power iteration too
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
