"""What a submission may do to the machine: little. Runs in the child process, before the submission's first line.

Two fences: an audit hook of Python's own, on every system, and on Linux 5.13 or newer Landlock, which the kernel holds
against native code too. On other systems a submission that calls the C library by itself gets around the first.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

MEMORY = 4 << 30  # bytes that a child may allocate
LARGEST_FILE = 64 << 20  # bytes
CHANGING = ("chmod", "chown", "link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate", "utime")
CHANGES = {"shutil.rmtree", *(f"os.{name}" for name in CHANGING)}
SIGNALS = 6  # the version of Landlock from which on it holds back signals
NAMES = (str, bytes, os.PathLike)
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile"}


def limit(seconds: float) -> None:
    """Limits of time, memory and file size, where the system has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: LARGEST_FILE, resource.RLIMIT_CPU: int(seconds) + 5}
    with contextlib.suppress(OSError):  # macOS does not say how much is mapped already, and does not hold the limit
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        wanted[resource.RLIMIT_AS] = mapped + MEMORY
    for kind, value in wanted.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def confine(work: Path, project: Path) -> None:
    """Allow writing in ``work`` alone, and no reading of the project's code."""
    kernel = _landlock([work, Path("/dev")])
    writable, hidden = str(work) + os.sep, str(project) + os.sep

    def absolute(path: Any) -> str:
        return os.path.realpath(os.fsdecode(path))

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], NAMES):
            path = absolute(arguments[0])
            writes = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            if writes and not path.startswith((writable, "/dev/")):
                raise PermissionError(f"a submission may not write to {path}")
            if path.startswith(hidden) and path.endswith((".py", ".pyc")) and "site-packages" not in path:
                raise FileNotFoundError(path)
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, NAMES) and not (absolute(path) + os.sep).startswith(writable):
                    raise PermissionError(f"a submission may not change {absolute(path)}")
        elif event in ("os.kill", "os.killpg") and kernel < SIGNALS and arguments[0] not in (0, os.getpid()):
            raise PermissionError("a submission may not end other processes")
        elif event in PROGRAMS and not kernel:
            raise PermissionError("a submission may not start programs")

    sys.addaudithook(check)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def _landlock(folders: list[Path]) -> int:
    """Let the kernel refuse every write outside of folders, and signals to other processes.

    Returns:
        Landlock's version, 0 where there is none.

    Source: https://docs.kernel.org/userspace-api/landlock.html
    """
    if not sys.platform.startswith("linux"):
        return 0
    create, add, restrict = 444, 445, 446  # the numbers of the system calls, the same on every processor
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return 0
    # Writing, removing, making; from version 2 moving between folders, from 3 truncating.
    access = 1 << 1 | sum(1 << bit for bit in range(4, 13)) | (version >= 2) << 13 | (version >= 3) << 14
    ruleset = _Ruleset(access, 0, 2 if version >= SIGNALS else 0)
    size = 24 if version >= SIGNALS else 8
    descriptor = call(create, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    if descriptor < 0:
        return 0
    for folder in folders:
        opened = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY))
        rule = _Beneath(access, opened)
        call(add, descriptor, 1, ctypes.byref(rule), 0)
        os.close(opened)
    no_new_privileges = ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
    held = no_new_privileges and call(restrict, descriptor, 0) == 0
    os.close(descriptor)
    return version if held else 0
