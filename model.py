"""The networks of question 2.7: generator and critic of 3×32×32 images in [-1, 1].

Sources: Radford et al. (2016), Unsupervised representation learning with deep convolutional generative adversarial
networks (the convolutions); Miyato et al. (2018), Spectral normalization for generative adversarial networks.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class ResBlock(nn.Module):
    r"""A residual block that starts close to the identity.

    .. math:: (1 - s)\, x + s\, \mathrm{block}(x), \quad s = \sigma(\text{mix}), \quad \text{mix}_0 = -3

    Args:
        dim: Number of channels, in and out.
        block: What is mixed in, of ``dim`` channels in and out; by default the generator's, convolutions with batch
            normalisation.

    Example:
        >>> ResBlock(8)(torch.randn(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, dim: int, block: nn.Module | None = None) -> None:
        super().__init__()
        self.block = generator_block(dim) if block is None else block
        self.mix = nn.Parameter(torch.tensor(-3.0))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(N, dim, H, W)`` in and out."""
        s = torch.sigmoid(self.mix)
        return (1 - s) * x + s * self.block(x)


def generator_block(dim: int) -> nn.Sequential:
    """The generator's residual branch."""
    return nn.Sequential(
        nn.Conv2d(dim, dim, 3, padding=1),
        nn.BatchNorm2d(dim),
        nn.ReLU(),
        nn.Conv2d(dim, dim, 1),
        nn.BatchNorm2d(dim),
        nn.ReLU(),
    )


def critic_block(dim: int) -> nn.Sequential:
    """The critic's residual branch. It has no batch normalisation: a sample's value must depend on it alone."""
    return nn.Sequential(
        nn.Conv2d(dim, dim, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(dim, dim, 1), nn.LeakyReLU(0.2)
    )


def in_full_precision(last: nn.Module, x: Tensor) -> Tensor:
    """Apply a network's last layer in its own dtype, even where autocast computes the other layers in bfloat16.

    A bfloat16 number has 8 bits: critic values near 1,000 would be multiples of 4, and the metric, a small difference
    of their means, would be mostly rounding error.
    """
    with torch.autocast(x.device.type, enabled=False):
        return last(x.to(next(last.parameters()).dtype))


class Generator(nn.Module):
    """Noise to images, by transposed convolutions from 1×1 over 4×4, 8×8 and 16×16 to 32×32.

    Args:
        dimz: Size of the noise vector.
        dimh: Width h; the layers have 4h, 2h, h and 3 channels.
        default_batch_size: Number of images that a call without noise draws.

    Example:
        >>> Generator(dimz=10, dimh=4, default_batch_size=3)().shape
        torch.Size([3, 3, 32, 32])
    """

    def __init__(self, dimz: int = 100, dimh: int = 64, default_batch_size: int = 1) -> None:
        super().__init__()
        self.dimz = dimz
        self.default_batch_size = default_batch_size

        def up(source: int, target: int, stride: int = 2, padding: int = 1) -> list[nn.Module]:
            convolution = nn.ConvTranspose2d(source, target, 4, stride, padding)
            return [convolution, nn.BatchNorm2d(target), nn.ReLU(), ResBlock(target)]

        self.layers = nn.Sequential(
            *up(dimz, 4 * dimh, stride=1, padding=0),
            *up(4 * dimh, 2 * dimh),
            *up(2 * dimh, dimh),
            nn.ConvTranspose2d(dimh, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def draw_noise(self, count: int) -> Tensor:
        """Standard normal noise ``(count, dimz)`` on the model's device and in its type."""
        weight = next(self.parameters())
        return torch.randn(count, self.dimz, device=weight.device, dtype=weight.dtype)

    def forward(self, z: Tensor | None = None) -> Tensor:
        """Images ``(N, 3, 32, 32)`` in [-1, 1] from noise ``(N, dimz)``, drawn here where none is given.

        Raises:
            ValueError: A noise vector has another size than ``dimz``.
        """
        z = self.draw_noise(self.default_batch_size) if z is None else z
        if z.shape[1:].numel() != self.dimz:
            raise ValueError(f"z has shape {tuple(z.shape)}, not (N, {self.dimz})")
        return in_full_precision(self.layers[-2:], self.layers[:-2](z.reshape(-1, self.dimz, 1, 1)))


class Critic(nn.Module):
    """Images to one value each, by convolutions from 32×32 over 16×16, 8×8 and 4×4 to 1×1.

    Args:
        dimh: Width h; the layers have h, 2h, 4h and 1 channels.
        sn: Divide every convolution's weight by an estimate of its largest singular value, one power iteration a pass.

    Example:
        >>> Critic(dimh=4, sn=True)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1])
    """

    def __init__(self, dimh: int = 64, sn: bool = False) -> None:
        super().__init__()

        def down(source: int, target: int) -> list[nn.Module]:
            return [nn.Conv2d(source, target, 4, 2, 1), nn.LeakyReLU(0.2), ResBlock(target, critic_block(target))]

        self.layers = nn.Sequential(
            *down(3, dimh), *down(dimh, 2 * dimh), *down(2 * dimh, 4 * dimh), nn.Conv2d(4 * dimh, 1, 4, 1, 0)
        )
        if sn:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def forward(self, x: Tensor) -> Tensor:
        """Values ``(N,)`` of images ``(N, 3, 32, 32)``.

        Raises:
            ValueError: The images have another shape.
        """
        if x.shape[1:] != (3, 32, 32):
            raise ValueError(f"x has shape {tuple(x.shape)}, not (N, 3, 32, 32)")
        return in_full_precision(self.layers[-1], self.layers[:-1](x)).view(-1)
