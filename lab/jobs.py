"""Worker processes of this machine, and jobs of a Slurm cluster through submitit."""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from lab.interruption import Interruption, terminate
from lab.options import InputError, check, option

ROOT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.2  # between two looks at whether Ctrl-C was pressed


@dataclass
class Resources:
    """Jobs: where runs are done, and what each asks for."""

    # none: one after the other, in this process; local: several at once on this machine; slurm: jobs of a cluster
    executor: Literal["none", "local", "slurm"] = "none"
    parallel: int = option(0, at_least=0)  # runs at once; 0: one per core (local), all (slurm)
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
    does. The standard library's pool cannot do this: it hands out calls in advance and cannot take them back.

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
    idle: list[Any] = []
    results: dict[str, Any] = {}
    busy: dict[Any, str] = {}  # the name of what each works on
    processes: dict[Any, Any] = {}
    with Interruption("what the workers are at") as stop:
        try:
            for i in range(min(workers, len(calls))):
                connection, process = _start_worker(context, i, (threads, lock))
                processes[connection] = process
                idle.append(connection)
            while waiting or busy:
                if stop.requested:
                    stop.stop("stopped")
                while waiting and idle:
                    connection = idle.pop()
                    busy[connection] = waiting.popleft()
                    with contextlib.suppress(BrokenPipeError):  # receiving will say why
                        connection.send((function, calls[busy[connection]]))
                for ready in multiprocessing.connection.wait(busy, timeout=POLL_SECONDS):
                    name = busy.pop(ready)
                    results[name] = _receive(ready, processes[ready], name)
                    idle.append(ready)
                    done(name)
        except BaseException as error:
            killed = isinstance(error, ChildProcessError)
            for process in processes.values():  # a worker that was killed may have held the lock
                process.kill() if killed else process.terminate()
            if killed:
                print(file=sys.stderr)  # their bars stay, and what follows needs a line of its own
            raise
        finally:
            _end(processes)
            tqdm.set_lock(threading.RLock())
    return {name: results[name] for name in calls}


def _start_worker(context: Any, place: int, options: tuple[Any, ...]) -> tuple[Connection, Any]:
    """A worker process, and the connection that brings it calls."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, *options), name=f"worker-{place}")
    # Ctrl-C reaches all processes of a terminal. Workers leave it to their parent, from their first moment.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else ()
    try:
        process.start()
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that its end is the end of the connection
    return ours, process


def _receive(connection: Any, process: Any, name: str) -> Any:
    """The result of a call, or its error."""
    try:
        result, error = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise ChildProcessError(
            f"a worker ended during {name}, perhaps for lack of memory (exit code {process.exitcode}); run the same"
            " command to resume"
        ) from None
    if error is not None:
        raise error
    return result


def _end(processes: Mapping[Connection, Any]) -> None:
    """Wait until workers without work have ended; a second Ctrl-C ends them at once."""
    try:
        for connection in processes:
            connection.close()
        for process in processes.values():
            process.join()
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def _work(connection: Connection, threads: int | None, lock: Any) -> None:
    """Do calls until the connection closes, SIGTERM comes, or the parent is gone."""
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _stop_worker)
        tqdm.set_lock(lock)
        threading.Thread(target=_follow_parent, daemon=True).start()
        if threads:
            import torch

            torch.set_num_threads(threads)
        while True:
            function, arguments = connection.recv()
            try:
                result, failure = function(*arguments), None
            except Exception as error:
                error.add_note(f"in a worker:\n{traceback.format_exc()}")
                result, failure = None, error
            connection.send((result, failure))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _stop_worker(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # "timeout" sends it to the whole group, and the parent once more
    terminate(number, frame)


def _follow_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])  # type: ignore[union-attr]
    os._exit(1)


def bar(workers: int, **options: Any) -> tqdm:
    """A progress bar that has a line of its own among those of the workers, and leaves none behind.

    A bar that stayed on the screen would move the cursor, of which the other processes know nothing.
    """
    place = re.fullmatch(r"worker-(\d+)", multiprocessing.current_process().name)
    return tqdm(position=int(place[1]) if place else 0, leave=workers == 1, **options)


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
            mem=f"{resources.job_memory}GB" if resources.job_memory else None,
            partition=resources.partition or None,
            array_parallelism=resources.parallel or len(calls),
            additional_parameters={"requeue": True},
        )
        with executor.batch():
            jobs = []
            for arguments in calls.values():
                resumable = submitit.helpers.FunctionSequence()
                resumable.add(function, *arguments)
                jobs.append(executor.submit(resumable))
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise InputError(f"Slurm is not available, or refuses the jobs: {error}") from None
    print(f"{len(jobs)} jobs, {jobs[0].job_id} to {jobs[-1].job_id}: scancel stops them", file=sys.stderr)
    failed = {}
    for name, job in tqdm(list(zip(calls, jobs, strict=True)), desc="slurm", unit="run"):
        if failure := job.exception():
            failed[name] = f"{str(failure).strip().splitlines()[-1]} (logs: {job.paths.folder})"
    return failed
