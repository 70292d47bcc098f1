"""What the machine is asked: devices, native bfloat16, a compiler."""

import os
import subprocess
import sys

import pytest
import torch

from lab import device


def test_devices_by_name():
    assert device.choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="no device 'abacus'"):
        device.choose_device("abacus")


def test_cores_that_this_process_may_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert device.usable_cores() == 1


@pytest.mark.parametrize(
    ("capability", "instructions", "native"),
    [("AVX2", True, False), ("AVX512", True, True), ("AVX512", False, False), ("NO AVX", False, False)],
)
def test_bfloat16_is_native_only_with_its_instructions(monkeypatch, capability, instructions, native):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert device.native_bfloat16(torch.device("cpu")) == native


def test_a_gpu_that_emulates_bfloat16_has_none(monkeypatch):
    """A T4 says that it supports it, unless it is asked without emulation."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not device.native_bfloat16(torch.device("cuda"))


@pytest.mark.skipif(not device.has_compiler(), reason="no C++ compiler here")
def test_a_compiled_function_gives_the_same():
    compiled = device.compile_where_possible(lambda x: (x.sin() + 1).sum())
    x = torch.randn(10)
    torch.testing.assert_close(compiled(x), (x.sin() + 1).sum())


UNCOMPILED = """
import torch
from lab.device import compile_where_possible
print([compile_where_possible(lambda x: (x.sin() + i).sum())(torch.zeros(3)).item() for i in range(2)])
"""


@pytest.mark.slow
@pytest.mark.skipif(not device.has_compiler(), reason="no C++ compiler here")
@pytest.mark.parametrize(("cache", "compiler"), [("file/cache", ""), ("cache", "/bin/false")])
def test_a_compiler_that_fails_or_cannot_write_its_cache_is_one_line(cache, compiler, tmp_path):
    (tmp_path / "file").touch()
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / cache), "CXX": compiler}
    done = subprocess.run([sys.executable, "-c", UNCOMPILED], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[0.0, 3.0]", done.stderr
    assert ["uncompiled" in line for line in done.stderr.splitlines()] == [True, True]


def test_an_error_of_a_function_that_cannot_be_compiled_is_its_own(monkeypatch):
    monkeypatch.setattr(device, "has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with pytest.raises(RuntimeError, match="size"):
        device.compile_where_possible(torch.add)(torch.zeros(2), torch.zeros(3))
