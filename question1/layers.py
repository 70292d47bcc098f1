"""Layers that take torch's usual way where a gradient is asked for, and a faster one to the same where none is.

An estimate of the log-likelihood decodes millions of latent vectors; beside the matrix products, which set its pace,
it has an exponential for each unit and pixel.
"""

import contextlib
import functools
import math
import platform
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.checkpoint import read_json, write_json

HAS_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


class Linear(nn.Linear):
    """``nn.Linear`` that multiplies in oneDNN where no gradient is asked for and that is faster here.

    For float32 on the CPU torch takes MKL, which uses AVX-512 on Intel's processors alone. oneDNN uses it wherever it
    is, at the price of converting the tensors: for the large batches of an evaluation that halves the time on one
    processor and doubles it on another. Which it is, is measured once for each shape (:func:`prefers_onednn`). The two
    add in another order, so the choice can move the last digit.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu" or not HAS_ONEDNN
        rows = x.shape[:-1].numel()
        if plain or not prefers_onednn(rows, self.in_features, self.out_features, torch.get_num_threads()):
            return super().forward(x)
        return F.linear(x.to_mkldnn(), self.weight, self.bias).to_dense()


class ELU(nn.ELU):
    """``nn.ELU`` that takes the exponential, less one, where no gradient is asked for.

    torch's kernel, with ``expm1``, takes several times as long. The difference is that of rounding at 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        negative = x.clamp(max=0).exp_().sub_(1)
        return torch.maximum(x, negative, out=negative)


@functools.cache
def prefers_onednn(rows: int, size_in: int, size_out: int, threads: int) -> bool:
    """Whether this processor multiplies ``(rows, size_in)`` by ``(size_in, size_out)`` clearly faster in oneDNN.

    Both are run some times, some tens of milliseconds together, and their best times compared; by a quarter it must be
    faster. The decision is kept in torch's cache folder: however busy the machine is later, another process decides
    the same, and a resumed run gets the same digits.
    """
    path = choices_path()
    case = f"{platform.node()}, torch {torch.__version__}, {threads} threads: {rows} x {size_in} x {size_out}"
    kept = read_json(path) or {}
    if isinstance(kept.get(case), bool):
        return kept[case]
    choice = _measure_onednn(rows, size_in, size_out)
    with contextlib.suppress(OSError):  # where nothing can be written, each process measures for itself
        write_json(path, {**(read_json(path) or {}), case: choice})
    return choice


def choices_path() -> Path:
    """The file in which it is kept which library multiplies faster."""
    return Path(torch.hub.get_dir()).parent / "matrix_products.json"


def _measure_onednn(rows: int, size_in: int, size_out: int) -> bool:
    x, weight, bias = torch.ones(rows, size_in), torch.ones(size_out, size_in), torch.ones(size_out)
    ways = {
        "mkl": lambda: F.linear(x, weight, bias),
        "onednn": lambda: F.linear(x.to_mkldnn(), weight, bias).to_dense(),
    }
    best = dict.fromkeys(ways, math.inf)
    for way in ways.values():
        way()  # the first call allocates
    for _ in range(5):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - started)
    return 1.25 * best["onednn"] < best["mkl"]


def log_partition(logits: Tensor) -> Tensor:
    r"""Log of the sum of the likelihoods of all binary images, faster than one softplus a pixel.

    .. math:: \sum_i \log(1 + e^{\ell_i}) = \sum_i \max(\ell_i, 0) + \sum_g \log \prod_{i \in g} (1 + e^{-|\ell_i|})

    A group of 16 has a product of at most :math:`2^{16}`, so that a 16th of the logarithms is enough. What is kept is
    the product less one, which for large logits has digits that the product has not. One buffer of the logits' size
    serves twice: a fresh one takes the operating system longer than the arithmetic.

    Args:
        logits: Shape ``(*, D)``.

    Returns:
        Shape ``(*)``, in nats.
    """
    buffer = logits.clamp(min=0)
    positive = buffer.sum(-1)
    excess = torch.abs(logits, out=buffer).neg_().exp_()
    for _ in range(4):
        if excess.shape[-1] % 2 == 0:
            a, b = excess.chunk(2, dim=-1)
            excess = torch.addcmul(b, a, b).add_(a)  # (1 + a)(1 + b) - 1
    return positive + excess.log1p_().sum(-1)
