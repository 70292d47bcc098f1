"""torch.compile where this machine can, the same code uncompiled where it cannot."""

import os
import shutil
import sys
from collections.abc import Callable

import torch


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)


def compile_where_possible(function: Callable, **options: int | bool | str) -> Callable:
    """Compile a function for fixed shapes; without a C++ compiler say so in one line and return it as it is.

    The first call with a new shape compiles for some seconds. Later processes find the result in torch's
    cache. ``options`` are those of the compiler's back end, torch._inductor.config.
    """
    if not has_compiler():
        print("no C++ compiler found: running uncompiled, which is slower and gives the same results", file=sys.stderr)
        return function
    return torch.compile(function, dynamic=False, options=options or None)
