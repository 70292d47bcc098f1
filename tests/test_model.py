"""Shapes, parameter counts and the parts of the networks, worked out from their description."""

import pytest
import torch
from torch import nn

import gan
from model import Critic, Generator, ResBlock


@pytest.mark.parametrize("h", [4, 8])
def test_generator_layers_and_shapes(h):
    generator = Generator(dimz=10, dimh=h, default_batch_size=3)
    transposed = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding) for m in transposed] == [
        (10, 4 * h, (4, 4), (1, 1), (0, 0)),
        (4 * h, 2 * h, (4, 4), (2, 2), (1, 1)),
        (2 * h, h, (4, 4), (2, 2), (1, 1)),
        (h, 3, (4, 4), (2, 2), (1, 1)),
    ]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in generator.modules()) == 9
    images = generator()
    assert images.shape == (3, 3, 32, 32) and images.abs().max() <= 1
    assert generator(torch.zeros(5, 10)).shape == (5, 3, 32, 32)


def test_generator_draws_new_noise_in_its_own_type():
    generator = Generator(dimz=4, dimh=2, default_batch_size=2).double()
    first, second = generator(), generator()
    assert first.dtype == torch.float64 and not torch.equal(first, second)


@pytest.mark.parametrize("sn", [False, True])
def test_critic_layers_and_shapes(sn):
    critic = Critic(dimh=4, sn=sn)
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions if m.kernel_size == (4, 4)] == [
        (3, 4),
        (4, 8),
        (8, 16),
        (16, 1),
    ]
    assert all(nn.utils.parametrize.is_parametrized(m) == sn for m in convolutions) and len(convolutions) == 10
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    for count in (1, 5):
        assert critic(torch.zeros(count, 3, 32, 32)).shape == (count,)


def test_residual_block_mixes_a_little_of_the_block_at_first():
    block = ResBlock(3, nn.Identity())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(block(x), x)  # (1 - s)x + sx
    block = ResBlock(3, nn.Threshold(torch.inf, 0.0))  # a block that returns zeros
    torch.testing.assert_close(block(x), x * (1 - 1 / (1 + torch.tensor(3.0).exp())))
    assert block.mix.requires_grad and block.mix.shape == ()


def test_residual_block_is_the_generators_by_default():
    kinds = [type(m).__name__ for m in ResBlock(4).block]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU"]
    kinds = [type(m).__name__ for m in Critic(4).layers[2].block]
    assert kinds == ["Conv2d", "LeakyReLU", "Conv2d", "LeakyReLU"]
    assert [m.negative_slope for m in Critic(4).modules() if isinstance(m, nn.LeakyReLU)] == [0.2] * 9


@pytest.mark.slow
def test_spectral_norm_holds_every_layers_largest_singular_value_at_one_after_training():
    """The estimate follows by one iteration a pass: a few per cent behind moving weights, and exact where they rest."""
    torch.manual_seed(0)
    critic, generator = Critic(4, sn=True), Generator(5, 4, default_batch_size=4)
    optimizers = [torch.optim.Adam(p.parameters(), lr=2e-4, betas=(0.0, 0.99)) for p in (critic, generator)]
    step = gan.make_train_step("JSD", 2)
    data = iter(lambda: torch.rand(4, 3, 32, 32), None)
    before = [p.detach().clone() for p in critic.parameters()]
    for _ in range(40):
        step(data, critic, optimizers[0], generator, None, optimizers[1])
    assert not any(torch.equal(p, q) for p, q in zip(critic.parameters(), before, strict=True))
    assert largest_singular_values(critic) == pytest.approx([1.03] * 10, abs=0.04)
    for _ in range(400):
        critic(torch.zeros(1, 3, 32, 32))
    assert largest_singular_values(critic) == pytest.approx([1] * 10, abs=1e-3)


def largest_singular_values(critic):
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    return [torch.linalg.svdvals(m.weight.detach().flatten(1))[0].item() for m in convolutions]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"z has shape \(3, 8\)"):
        Generator(dimz=4, dimh=2)(torch.zeros(3, 8))
    for shape in ((2, 3, 64, 64), (2, 1, 32, 32)):
        with pytest.raises(ValueError, match="x has shape"):
            Critic(dimh=2)(torch.zeros(shape))
    assert Generator(dimz=4, dimh=2)(torch.zeros(3, 4, 1, 1)).shape == (3, 3, 32, 32)
