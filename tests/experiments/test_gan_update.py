"""The critic's metric before and after the generator's update."""

import dataclasses

import pytest
import torch

from experiments import gan_update
from question2 import image_gan
from question2.configurations import CONFIGURATIONS

SMALL = {
    "generator_dimz": 4,
    "generator_dimh": 4,
    "critic_dimh": 4,
    "batch_size": 32,
    "critic_lr": 1e-12,
    "critic_wd": 0.0,
}


@pytest.mark.parametrize("learns", [False, True])
def test_the_metric_after_an_update_is_lower_where_the_generator_learns(learns):
    hp = dataclasses.replace(CONFIGURATIONS["cifar10-w1-2"], **SMALL, generator_lr=0.02 if learns else 1e-12)
    images = torch.randint(256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    players = image_gan.Players(hp, torch.device("cpu"), fast=False)
    critic = {name: value.clone() for name, value in players.critic.state_dict().items()}
    generator = {name: value.clone() for name, value in players.generator.state_dict().items()}
    random = torch.get_rng_state()
    found = gan_update.measure(players, hp, images, window=12, fast=False)
    error = 4 * (found["before"]["standard_error"] + found["after"]["standard_error"])
    if learns:
        assert found["after"]["mean"] < found["before"]["mean"]  # the critic stays, so each update brings it down
    else:
        assert found["after"]["mean"] == pytest.approx(found["before"]["mean"], abs=error)
        assert found["before"]["standard_error"] > 0
    assert found["after_in_bfloat16"]["mean"] == pytest.approx(found["after"]["mean"], rel=0.01)
    # The run goes on from where it was.
    for before, network in ((critic, players.critic), (generator, players.generator)):
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
