"""The machine: cores and devices, bfloat16 where it is native, CUDA graphs, and torch.compile where it can."""

import contextlib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lab.options import InputError


def usable_cores() -> int:
    """The number of cores that this process may use, which ``taskset`` or a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warn_if_busy() -> None:
    """Say so in one line where other programs keep all cores busy: threads that wait for each other are then slow."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > usable_cores() and torch.get_num_threads() > 1:
        print(
            f"this machine is busy (load {load:.1f}, {usable_cores()} cores): OMP_NUM_THREADS=1 may be much faster",
            flush=True,
        )


def choose_device(name: str) -> torch.device:
    """The named device; ``auto`` takes CUDA where there is one, else the CPU.

    Raises:
        InputError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise InputError(f"no device {name!r} here")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"no device {name!r} here ({str(error).splitlines()[0]})") from None


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 natively: CUDA from capability 8.0, a CPU with AVX-512 BF16 or AMX.

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False  # bfloat16 instructions come with AVX-512 alone
    # torch has no public question for these; where it lacks one of them, the answer is no.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def in_bfloat16(network: nn.Module) -> Callable[..., Tensor]:
    """A network's passes with bfloat16 convolutions; parameters and output stay float32.

    Each pass is an autocast region of its own, because weights that it had cast would be stale after an update.
    Spectrally normalised weights are computed before it, in float32: their singular values are what is asked for.
    """
    device_type = next(network.parameters()).device.type

    def cast(*inputs: Tensor) -> Tensor:
        with nn.utils.parametrize.cached():
            for module in network.modules():
                if nn.utils.parametrize.is_parametrized(module):
                    _ = module.weight
            with torch.autocast(device_type, torch.bfloat16):
                return network(*inputs).float()

    return cast


GRAPH_WARMUP = 3  # calls before a function is captured as a CUDA graph


class Graphed:
    """A function of no arguments that replays itself as a CUDA graph after some ordinary calls.

    The calls before the capture are full updates, so nothing happens twice or not at all.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self.function, self.calls = function, 0
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream()

    def __call__(self) -> None:
        if self.calls < GRAPH_WARMUP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.function()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            if self.calls == GRAPH_WARMUP:
                with torch.cuda.graph(self.graph, stream=self.stream):
                    self.function()
            self.graph.replay()
        self.calls += 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let each operation of torch run in the thread that calls it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)


def compile_where_possible(function: Callable, **options: Any) -> Callable:
    """Compile a function for fixed shapes; where that fails, say so in one line and run it as it is.

    The first call with a new shape compiles for some seconds. Later processes find the result in torch's cache.
    ``options`` are those of the compiler's back end, torch._inductor.config.
    """
    if not has_compiler():
        print("no C++ compiler found: running uncompiled, which is slower and gives the same results", file=sys.stderr)
        return function
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of CUDA on machines without
    warnings.filterwarnings("ignore", "Guards may run slower")  # torch's advice to install a newer Python than 3.13.0
    current: Callable | None = None

    def call(*arguments: Any, **keywords: Any) -> Any:
        nonlocal current
        try:
            if current is None:
                current = torch.compile(function, dynamic=False, options=options or None)
                print("compiling, up to a minute", flush=True)
            return current(*arguments, **keywords)
        except (RuntimeError, OSError, ImportError) as error:
            if current is function:
                raise
            # Compilation comes before anything is computed, so nothing has been done that would be done twice.
            reason = " ".join(str(error).split())[:300]
            print(f"compiling failed, running uncompiled, which is slower: {reason}", file=sys.stderr)
            current = function
            return function(*arguments, **keywords)

    return call
