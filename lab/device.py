"""The machine: which device, what it computes natively, and torch.compile where it can."""

import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch


def choose_device(name: str) -> torch.device:
    """The named device; ``auto`` takes CUDA where there is one, else the CPU.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r} here ({str(error).splitlines()[0]})") from None


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


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)


def compile_where_possible(function: Callable, **options: Any) -> Callable:
    """Compile a function for fixed shapes; without a C++ compiler say so in one line and return it as it is.

    The first call with a new shape compiles for some seconds. Later processes find the result in torch's
    cache. ``options`` are those of the compiler's back end, torch._inductor.config.
    """
    if not has_compiler():
        print("no C++ compiler found: running uncompiled, which is slower and gives the same results", file=sys.stderr)
        return function
    return torch.compile(function, dynamic=False, options=options or None)
