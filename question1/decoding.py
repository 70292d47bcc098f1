"""The likelihood of images under many latent vectors, at the pace of the matrix products.

An estimate of the log-likelihood decodes millions of latent vectors, without a gradient. Beside the products it has an
exponential for each unit and pixel, and written as for training it takes two to three times as long as the products.
Three things make it faster here. Results go to memory that is allocated once, and all but the products is done in
parts that stay in the processor's cache, because to allocate and to fetch costs more than the arithmetic; biases are
added there too. A unit's term is an exponential and a clamp, a pixel's an exponential and a logarithm, which torch
computes faster than ``elu`` and ``softplus``. Each thread takes whole blocks, so that none waits for another.
"""

import contextlib
import functools
import math
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from torch import Tensor, nn

from lab.device import one_thread
from lab.files import read_json, write_json

ONEDNN_ON_X86 = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
CACHED = 150_000  # numbers; two such tensors of float32 take about a megabyte, which the second cache of a core holds
WORTH_MEASURING = 10_000_000  # multiplications, about a tenth of a millisecond


class Likelihood:
    r"""The log-likelihood of binary images under draws of the latent vector.

    .. math:: \log p(x|z) = x \cdot \ell - \sum_i \log(1 + e^{b_i} e^{(W h)_i}), \quad \ell = W h + b, \quad
        x \cdot \ell = (x W) \cdot h + x \cdot b

    h are the last hidden units; :math:`x W` and :math:`x \cdot b` serve all draws of an image.

    Args:
        network: Linear layers with ELU between them, from latent vectors to logits.
        shift: What is added to the logits.
        images: 0 or 1, ``(N, D)``.
        rows: Of latent vectors at once. For these it is decided which library multiplies.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Sequential, shift: float, images: Tensor, rows: int) -> None:
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        self.products = [Product(layer.weight, rows) for layer in linear]
        *self.biases, self.last_bias = [layer.bias.detach() for layer in linear[:-1]] + [linear[-1].bias + shift]
        self.factor, self.zero, self.one = self.last_bias.exp(), images.new_zeros(()), images.new_ones(())
        self.curve = Buffer()
        self.image_weights = (images @ linear[-1].weight).unsqueeze(1)
        self.image_biases = (images @ self.last_bias).view(-1, 1, 1)

    @torch.no_grad()
    def __call__(self, z: Tensor, block: slice = slice(None)) -> Tensor:
        """Log p(x|z), ``(B, K)`` in nats, of a block of images under draws z ``(B, K, L)``."""
        h = z.flatten(0, 1)
        for product, bias in zip(self.products[:-1], self.biases, strict=True):
            h = product(h)
            for part in _parts(h):  # ELU is min(max(h, 0), exp(h) - 1), which torch computes faster so
                curve = torch.exp(part.add_(bias), out=self.curve(part.shape, part)).sub_(1)
                torch.clamp(part, self.zero, curve, out=part)
        log_partition = torch.cat([self._log_partition(part) for part in _parts(self.products[-1](h))])
        if not log_partition.isfinite().all():  # an exponential, of a product or a bias, is more than the type holds
            log_partition = F.softplus(self.products[-1](h) + self.last_bias, threshold=40).sum(1)
        h = h.view(*z.shape[:2], -1).transpose(1, 2)
        score = torch.baddbmm(self.image_biases[block], self.image_weights[block], h).squeeze(1)
        return score.sub_(log_partition.view_as(score))

    def _log_partition(self, part: Tensor) -> Tensor:
        return torch.addcmul(self.one, self.factor, part.exp_(), out=part).log_().sum(1)


class Buffer(threading.local):
    """Memory for a tensor, which each thread allocates once and the next call in the same thread hands out again."""

    def __init__(self) -> None:
        self.memory = torch.empty(0)

    def __call__(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of this shape, with dtype and device of ``like``; its values are arbitrary."""
        size, memory = math.prod(shape), self.memory
        if len(memory) < size or (memory.dtype, memory.device) != (like.dtype, like.device):
            self.memory = like.new_empty(size)
        return self.memory[:size].view(*shape)


class Product:
    """The product of row vectors with a weight matrix ``(out, in)``, in memory that the next call overwrites.

    oneDNN's results are new memory instead.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.weight, self.result = weight.detach(), Buffer()
        eligible = ONEDNN_ON_X86 and weight.dtype == torch.float32 and weight.device.type == "cpu"
        self.in_onednn = eligible and prefers_onednn(rows, weight.shape[1], weight.shape[0])

    def __call__(self, x: Tensor) -> Tensor:
        if self.in_onednn:
            return F.linear(x.to_mkldnn(), self.weight).to_dense()
        return torch.mm(x, self.weight.T, out=self.result((len(x), len(self.weight)), x))


def _parts(rows: Tensor) -> tuple[Tensor, ...]:
    """The rows in parts that stay in the processor's cache from one operation to the next; on CUDA all of them."""
    return rows.split(max(1, CACHED // rows.shape[1])) if rows.device.type == "cpu" else (rows,)


def in_threads(
    draw: Callable[[slice], Tensor], work: Callable[[slice, Tensor], Tensor], blocks: Sequence[slice], workers: int
) -> list[Tensor]:
    """``work(block, draw(block))`` of each block, in threads that take whole blocks.

    The draws are made one at a time, in the order of the blocks, and torch works with one thread in each of these:
    the results do not depend on how many there are.
    """
    remaining, lock = deque(enumerate(blocks)), threading.Lock()
    results: list[Tensor] = [torch.empty(0)] * len(blocks)

    def go_on() -> None:
        try:
            while True:
                with lock:
                    if not remaining:
                        return
                    place, block = remaining.popleft()
                    drawn = draw(block)
                results[place] = work(block, drawn)
        finally:
            stop()  # an error ends the other threads too

    def stop() -> None:
        with lock:
            remaining.clear()

    # The number of threads is set twice: OpenMP has one for each thread that asks, MKL one for all.
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(go_on) for _ in range(workers)]
        try:
            for future in futures:
                future.result()
        finally:
            stop()  # so does Ctrl-C
    return results


@functools.cache
def prefers_onednn(rows: int, size_in: int, size_out: int) -> bool:
    """Whether this processor multiplies ``(rows, size_in)`` by ``(size_in, size_out)`` clearly faster in oneDNN.

    For float32 on the CPU torch takes MKL, which uses AVX-512 on Intel's processors alone. oneDNN uses it wherever it
    is, at the price of converting the tensors: it halves the time on one processor and doubles it on another. The two
    add in another order, so the choice can move the last digit.

    Both are run some times, some tens of milliseconds together, and their best times compared; by a quarter it must be
    faster. The decision is kept in torch's cache folder: however busy the machine is later, another process decides
    the same, and a resumed run gets the same digits. A product so small that it does not matter is not measured.
    """
    if rows * size_in * size_out < WORTH_MEASURING:
        return False
    path = choices_path()
    case = f"{platform.node()}, torch {torch.__version__}, a thread, no bias: {rows} x {size_in} x {size_out}"
    choice = None
    with contextlib.suppress(OSError, Timeout):  # where nothing can be written, each process measures for itself
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=60):
            choices = read_json(path) or {}
            choice = choices.get(case)
            if not isinstance(choice, bool):
                choice = _measure_onednn(rows, size_in, size_out)
                write_json(path, {**choices, case: choice})
    return _measure_onednn(rows, size_in, size_out) if choice is None else choice


def choices_path() -> Path:
    """The file that remembers which library is faster."""
    return Path(torch.hub.get_dir()).parent / "matrix_products.json"


@one_thread()
def _measure_onednn(rows: int, size_in: int, size_out: int) -> bool:
    shapes = (rows, size_in), (size_out, size_in), (rows, size_out)
    x, weight, out = (torch.ones(shape, dtype=torch.float32) for shape in shapes)
    ways = {
        "mkl": lambda: torch.mm(x, weight.T, out=out),
        "onednn": lambda: F.linear(x.to_mkldnn(), weight).to_dense(),
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
