"""The speed of training GANs of images.

    python -m benchmarks.gan

times in turns, for each kind of configuration, a generator update (with its critic updates and the average) of the
plain eager float32 loop and of the fast path: channels last, fused Adam, bfloat16 where the device computes it natively
and, on CUDA, the step as a graph. Beside it: which precision the fast path took, the share that it achieves of the
device's own rate in matrix products of that precision, the memory, the share of evaluation in a run, and what an update
of the full configurations needs on any device. The plain loop is what one gets without asking: on CUDA its
convolutions are allowed TF32, as torch comes. On a CPU the networks are narrow.
"""

import dataclasses
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lab import interruption
from lab.device import GRAPH_WARMUP, Graphed, choose_device, native_bfloat16
from lab.device import precision as device_precision
from lab.files import write_json
from lab.options import InputError, parse
from question2 import score
from question2.configurations import CONFIGURATIONS, Hyperparameters, Management
from question2.images import Players, make_advance

KINDS = {"JSD": "cifar10-jsd-1", "JSD, spectral norm": "cifar10-jsd-2", "JSD, R1": "cifar10-jsd-3"}


@dataclass
class Options:
    """What to measure."""

    width: int = 0  # of both networks; 0 takes the configurations' on CUDA and 32 on a CPU
    rounds: int = 5  # turns of the two
    updates: int = 0  # updates in each turn; 0 takes 100 on CUDA and 4 on a CPU
    eval_samples: int = 0  # images of a timed evaluation; 0 takes 10000 on CUDA and 500 on a CPU
    device: str = "auto"  # auto, cpu, cuda, ...
    out: str = "runs/benchmark/gan.json"  # where the result goes

    def __post_init__(self) -> None:
        if not self.out.endswith(".json"):
            raise InputError(f"out must be a .json file, got {self.out}")
        if self.rounds < 1 or min(self.width, self.updates, self.eval_samples) < 0:
            raise InputError("rounds must be at least 1; width, updates and eval_samples at least 0")


class Count(TorchDispatchMode):
    """Counts operations of convolutions and matrix products, and the bytes of the tensors that live at once.

    torch's own ``FlopCounterMode`` follows modules too, which it cannot do inside ``autograd.grad``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = self.most_bytes = 0
        self.living: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function._overloadpacket):
            self.operations += count(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        """Count memory from now until it is freed; views share it."""
        name, size = storage._cdata, storage.nbytes()
        if name not in self.living:
            self.living.add(name)
            weakref.finalize(storage, self._forget, name, size)
            self.bytes += size
            self.most_bytes = max(self.most_bytes, self.bytes)

    def _forget(self, name: int, size: int) -> None:
        self.living.discard(name)
        self.bytes -= size


def needs(hp: Hyperparameters, images: int = 50_000) -> dict[str, float]:
    """What an update of the plain loop needs: multiplications and additions, and memory without the libraries' own.

    They are counted on tensors without values, so that no machine is too small for them.
    """
    device = torch.device("meta")
    with Count() as count:
        real = torch.zeros((images, 3, 32, 32), dtype=torch.uint8, device=device)
        players = Players(hp, device, fast=False)
        advance = make_advance(hp, players, real, torch.zeros((), device=device))
        advance()  # the first one makes the optimisers' state
        first = count.operations
        advance()
    return {"tera_operations": (count.operations - first) / 1e12, "gigabytes": count.most_bytes / 1e9}


def wait(device: torch.device) -> None:
    """Synchronise the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeat(function: Callable[[], object], times: int) -> None:
    """Call a function so often."""
    for _ in range(times):
        function()


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long a call takes."""
    wait(device)
    started = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - started


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: the median of several."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    times = [seconds(lambda: a @ b, device) for _ in range(12)][2:]
    return 2 * n**3 / statistics.median(times)


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds of an update of both paths, per kind, and what an evaluation takes.

    Raises:
        InputError: There is no such device.
    """
    device = choose_device(options.device)
    gpu = device.type == "cuda"
    updates = options.updates or (100 if gpu else 4)
    images = torch.randint(0, 256, (50_000 if gpu else 1000, 3, 32, 32), dtype=torch.uint8).to(device)
    precision = device_precision(True, device)
    rate = matrix_rate(device, getattr(torch, precision))
    kinds: dict[str, dict[str, Any]] = {}
    for kind, name in KINDS.items():
        hp = CONFIGURATIONS[name]
        width = options.width or (hp.generator_dimh if gpu else 32)
        hp = dataclasses.replace(hp, generator_dimh=width, critic_dimh=width)
        runs: dict[str, Callable[[], None]] = {}
        memory = {}
        for path in ("plain", "fast"):
            before = torch.cuda.memory_allocated(device) if gpu else 0
            if gpu:
                torch.cuda.reset_peak_memory_stats(device)
            players = Players(hp, device, path == "fast")
            real = images.contiguous(memory_format=torch.channels_last) if path == "fast" else images
            bfloat16 = path == "fast" and precision == "bfloat16"
            advance = make_advance(hp, players, real, torch.zeros((), device=device), bfloat16)
            runs[path] = Graphed(advance) if gpu and path == "fast" else advance
            for _ in range(GRAPH_WARMUP + 2 if gpu else 1):
                runs[path]()
            wait(device)
            memory[path] = (torch.cuda.max_memory_allocated(device) - before) / 1e9 if gpu else None
        milliseconds: dict[str, list[float]] = {path: [] for path in runs}
        for _ in range(options.rounds):
            for path, run in runs.items():
                milliseconds[path].append(1e3 / updates * seconds(partial(repeat, run, updates), device))
        median = {path: statistics.median(values) for path, values in milliseconds.items()}
        of_an_update = needs(hp, len(images))
        kinds[kind] = {
            "milliseconds": milliseconds,
            "median": median,
            "times_faster": median["plain"] / median["fast"],
            "tera_operations": of_an_update["tera_operations"],
            "share_of_rate": 1e12 * of_an_update["tera_operations"] / (median["fast"] / 1e3) / rate,
            "gigabytes": memory,
        }
    samples = options.eval_samples or (10_000 if gpu else 500)
    scorer = score.own_classifier(device=device)
    with tempfile.TemporaryDirectory() as folder:
        eval_step = score.make_evaluation(scorer, images[:1000], hp.generator_dimz, folder)
    real_batches = score.batches(images, samples)
    evaluation = seconds(lambda: eval_step(real_batches, players.critic, players.averaged), device)
    between = Management().eval_every * kinds["JSD"]["median"]["fast"] / 1e3
    return {
        "device": torch.cuda.get_device_name(device) if gpu else "CPU",
        "precision": precision,
        "native_bfloat16": native_bfloat16(device),
        "width": width,
        "batch_size": hp.batch_size,
        "rounds": options.rounds,
        "updates": updates,
        "matrix_tera_operations_a_second": rate / 1e12,
        "kinds": kinds,
        "full": {kind: needs(CONFIGURATIONS[name]) for kind, name in KINDS.items()},
        "full_updates": Hyperparameters.max_iters,
        "evaluation": {"samples": samples, "seconds": evaluation, "share_of_run": evaluation / (evaluation + between)},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(
        Options, "Time the training of GANs of images, plain and fast.", argv, program="python -m benchmarks.gan"
    )
    with interruption.one_line_errors():
        result = measure(options)
        why = f"bfloat16 is {'' if result['native_bfloat16'] else 'not '}native here"
        print(f"{result['device']}, width {result['width']}, batch {result['batch_size']}; ", end="")
        print(f"the fast path computes in {result['precision']}: {why}")
        print(f"{'ms an update':20} {'plain':>9} {'fast':>9} {'faster':>8} {'of the matrix rate':>19}")
        for kind, row in result["kinds"].items():
            median = row["median"]
            print(
                f"{kind:20} {median['plain']:9.2f} {median['fast']:9.2f} {row['times_faster']:7.1f}x"
                f" {row['share_of_rate']:18.0%}"
            )
            if row["gigabytes"]["fast"] is not None:
                print(f"{'  memory, GB':20} {row['gigabytes']['plain']:9.2f} {row['gigabytes']['fast']:9.2f}")
        for kind, row in result["full"].items():
            print(f"in full width, {kind}: {row['tera_operations']:.2f}e12 operations, {row['gigabytes']:.2f} GB")
        evaluation = result["evaluation"]
        print(
            f"scoring {evaluation['samples']} samples takes {evaluation['seconds']:.1f} s,"
            f" {evaluation['share_of_run']:.0%} of a run that does it every {Management().eval_every} updates"
        )
        write_json(options.out, result)


if __name__ == "__main__":
    main()
