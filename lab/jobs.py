"""Worker processes of this machine, and jobs of a Slurm cluster through submitit."""

import collections
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from lab.interruption import terminate
from lab.options import InputError, check, option

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Resources:
    """Jobs: where runs are done, and what each asks for."""

    # none: one after the other, in this process; local: several at once on this machine; slurm: jobs of a cluster
    executor: Literal["none", "local", "slurm"] = "none"
    parallel: int = option(0, at_least=0)  # runs at once; 0 for one a core (local), or as many as there are (slurm)
    job_minutes: int = option(24 * 60, at_least=1)  # Slurm: time limit; a job that reaches it is resubmitted
    job_cpus: int = option(1, at_least=1)  # Slurm: cores of a job
    job_gpus: int = option(0, at_least=0)  # Slurm: GPUs of a job
    job_memory: int = option(0, at_least=0)  # Slurm: memory of a job in GB; 0 for the cluster's default
    partition: str = ""  # Slurm: partition; left empty, the default one

    def __post_init__(self) -> None:
        check(self)


def run_in_processes(
    function: Callable[..., Any],
    calls: Mapping[str, Sequence[Any]],
    workers: int,
    threads: int | None = None,
    done: Callable[[str], Any] = lambda name: None,
) -> dict[str, Any]:
    """Call a function in worker processes.

    Ctrl-C, SIGTERM or an error asks the workers to save and stop, and waits for them. They also end when their parent
    does.

    Args:
        function: What is called.
        calls: Name to arguments, in the order in which calls are started.
        workers: How many calls at once.
        threads: Of torch in each worker; None for its default.
        done: Called with the name of each call that has returned.

    Returns:
        Name to result.

    Raises:
        ChildProcessError: The system ended a worker, as it does where memory is short.
    """
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()  # one process at a time writes to the screen
    tqdm.set_lock(lock)
    waiting = collections.deque(calls)
    running: dict[Future, str] = {}
    results: dict[str, Any] = {}
    executor = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(threads, lock))
    try:
        while waiting or running:
            while waiting and len(running) < workers:  # no more than can begin: what is queued cannot be stopped
                name = waiting.popleft()
                running[executor.submit(_call, function, calls[name])] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                results[running[future]] = _result(future, running)
                done(running.pop(future))
    except BaseException as error:
        processes = list((executor._processes or {}).values())
        if isinstance(error, KeyboardInterrupt):
            print("\nstopping, once each worker has saved; Ctrl-C again stops at once", file=sys.stderr)
        try:
            for process in processes:
                process.terminate()
            wait(running)
        except KeyboardInterrupt:
            for process in processes:
                process.kill()
        executor.shutdown()
        raise
    executor.shutdown()
    return {name: results[name] for name in calls}


def _result(future: Future, running: Mapping[Future, str]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        names = ", ".join(running.values())
        raise ChildProcessError(
            f"the system ended a worker, perhaps for lack of memory, during {names}; run the same command to resume"
        ) from None


def bar(workers: int, **options: Any) -> tqdm:
    """A progress bar that has a line of its own among those of the workers, and leaves none behind.

    A bar that stayed on the screen would move the cursor, of which the other processes know nothing.
    """
    number = re.search(r"\d+$", multiprocessing.current_process().name)  # consecutive within a pool
    return tqdm(position=int(number[0]) % workers if number else 0, leave=workers == 1, **options)


def _begin_worker(threads: int | None, lock: Any) -> None:
    tqdm.set_lock(lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops its workers
    signal.signal(signal.SIGTERM, _ignore)
    if threads:
        import torch

        torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _call(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """A worker's call, which SIGTERM stops. A worker without work ignores it and ends with the pool."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        return function(*arguments)
    finally:
        signal.signal(signal.SIGTERM, _ignore)


def _ignore(number: int, frame: Any) -> None:
    pass


def run_on_slurm(
    function: Callable[..., Any], calls: Mapping[str, Sequence[Any]], folder: Path, resources: Resources
) -> dict[str, str]:
    """Call a function in jobs of a Slurm cluster, and wait for them. submitit resubmits a job at its time limit.

    Args:
        function: What is called; it must resume from a checkpoint of its own.
        calls: Name to arguments, of one job each.
        folder: Where submitit keeps the jobs' files and logs.
        resources: What each job asks for.

    Returns:
        The names of the calls that failed, and why.

    Raises:
        InputError: There is no Slurm here, or it refuses the jobs.
    """
    import submitit

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        executor = submitit.SlurmExecutor(folder=str(folder / "%j"), max_num_timeout=10)
        executor.update_parameters(
            job_name="run_exp",
            time=resources.job_minutes,
            cpus_per_task=resources.job_cpus,
            gpus_per_node=resources.job_gpus,
            array_parallelism=resources.parallel or len(calls),
            additional_parameters={"requeue": True},
            **({"partition": resources.partition} if resources.partition else {}),
            **({"mem": f"{resources.job_memory}GB"} if resources.job_memory else {}),
        )
        with executor.batch():
            jobs = [executor.submit(_Resumable(function), *arguments) for arguments in calls.values()]
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise InputError(f"Slurm is not available, or refuses the jobs: {error}") from None
    print(f"{len(jobs)} jobs, {jobs[0].job_id} to {jobs[-1].job_id}: scancel stops them", file=sys.stderr)
    failed = {}
    for name, job in tqdm(list(zip(calls, jobs, strict=True)), desc="slurm", unit=" runs"):
        if failure := job.exception():
            failed[name] = f"{str(failure).strip().splitlines()[-1]} (logs: {job.paths.folder})"
    return failed


class _Resumable:
    """A function that is submitted again, with the same arguments, at a time limit or a pre-emption."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)
