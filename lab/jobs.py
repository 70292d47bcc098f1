"""Worker processes, and runs as jobs: processes of their own on this machine or a Slurm cluster, through submitit.

A job that dies half way, by a signal, a time limit or pre-emption, is resubmitted; what it does must go on from a
checkpoint of its own.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
import torch
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Resources:
    """Jobs: where runs are done, and what each asks for."""

    # none: in this process; local: jobs as processes of this machine; slurm: a cluster
    executor: Literal["none", "local", "slurm"] = "none"
    parallel: int = 0  # jobs at once; 0 for as many as there are
    job_minutes: int = 24 * 60  # time limit of a job, which is resubmitted when it reaches it
    job_cpus: int = 1  # cores of a job
    job_gpus: int = 0  # GPUs of a job
    job_memory: int = 0  # memory of a job in GB; 0 for the cluster's default
    partition: str = ""  # Slurm's partition; left empty, the default one
    tries: int = 4  # how often a run that dies is started, at most

    def __post_init__(self) -> None:
        if self.executor not in ("none", "local", "slurm"):
            raise ValueError(f"executor must be none, local or slurm, got {self.executor}")
        at_least_1 = (self.job_minutes, self.job_cpus, self.tries)
        if min(at_least_1) < 1 or min(self.parallel, self.job_gpus, self.job_memory) < 0:
            raise ValueError("job_minutes, job_cpus and tries must be at least 1, other numbers of jobs at least 0")


@contextlib.contextmanager
def pool(workers: int, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with their parent, whichever way it ends.

    Args:
        workers: How many.
        threads: Of torch in each; None for its default.
    """
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()  # one process at a time writes to the screen
    tqdm.set_lock(lock)
    executor = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(threads, lock))
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    executor.shutdown()


def bar(workers: int, **options: Any) -> tqdm:
    """A progress bar that has a line of its own among those of a pool's workers, and leaves none behind.

    A bar that stayed on the screen would move the cursor, of which the other processes know nothing.
    """
    number = re.search(r"\d+$", multiprocessing.current_process().name)  # consecutive within a pool
    return tqdm(position=int(number[0]) % workers if number else 0, leave=workers == 1, **options)


def _begin_worker(threads: int | None, lock: Any) -> None:
    tqdm.set_lock(lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    if threads:
        torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@dataclass
class Task:
    """A function and its arguments, both such as can be pickled."""

    function: Callable[..., None]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> None:
        self.function(*self.arguments)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What is resubmitted at a time limit or pre-emption: the same, since a run keeps its own checkpoint."""
        return submitit.helpers.DelayedSubmission(self)


@dataclass
class _Entry:
    name: str
    task: Task
    job: Any = None
    tries: int = 0
    gone: int = 0  # how often in a row Slurm did not know the job


def make_executor(folder: Path, resources: Resources, parallel: int) -> submitit.AutoExecutor:
    """An executor whose jobs can import this project.

    Raises:
        ValueError: There is no Slurm here.
    """
    previous = os.environ.get("PYTHONPATH")
    if str(ROOT) not in (previous or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), previous]))
    try:
        executor = submitit.AutoExecutor(
            folder=str(folder / "%j"), cluster=resources.executor, slurm_max_num_timeout=resources.tries - 1
        )
    except RuntimeError as error:
        raise ValueError(f"no {resources.executor} here: {error}") from None
    executor.update_parameters(
        name="run_exp",
        timeout_min=resources.job_minutes,
        cpus_per_task=resources.job_cpus,
        gpus_per_node=resources.job_gpus,
    )
    if resources.executor == "slurm":
        executor.update_parameters(slurm_array_parallelism=parallel, slurm_additional_parameters={"requeue": True})
        if resources.partition:
            executor.update_parameters(slurm_partition=resources.partition)
        if resources.job_memory:
            executor.update_parameters(mem_gb=resources.job_memory)
    return executor


def run_jobs(
    tasks: dict[str, Task], folder: Path, resources: Resources, progress: bool = True, poll: float = 1.0
) -> dict[str, str]:
    """Do tasks as jobs, and resubmit those that die.

    Args:
        tasks: Name to what is done.
        folder: Where submitit keeps the jobs' files and logs.
        resources: What each asks for, and how many at once.
        progress: Show how many are done.
        poll: Seconds between two looks.

    Returns:
        The names of those that failed, and why: an error in the task, or too many deaths.

    Raises:
        ValueError: There is no such cluster here, or it refuses the jobs.
    """
    parallel = resources.parallel or len(tasks)
    executor = make_executor(folder, resources, parallel)
    waiting = [_Entry(name, task) for name, task in tasks.items()]
    running: list[_Entry] = []
    failed: dict[str, str] = {}
    with tqdm(total=len(tasks), desc=resources.executor, unit=" runs", disable=not progress) as bar:
        while waiting or running:
            # Slurm holds back what is too much by itself, in an array; processes are held back here.
            room = len(waiting) if resources.executor == "slurm" else parallel - len(running)
            batch, waiting = waiting[:room], waiting[room:]
            if batch:
                for entry, job in zip(batch, submit(executor, batch), strict=True):
                    entry.job, entry.tries, entry.gone = job, entry.tries + 1, 0
                running += batch
            for entry in [entry for entry in running if ended(entry)]:
                running.remove(entry)
                why = failure(entry.job)
                if why == "died" and entry.tries < resources.tries:
                    tqdm.write(f"{entry.name} died and is resubmitted", file=sys.stderr)
                    waiting.append(entry)
                    continue
                if why:
                    failed[entry.name] = f"{why} (logs: {entry.job.paths.folder})"
                bar.update()
            time.sleep(poll)
    return failed


def submit(executor: submitit.AutoExecutor, batch: list[_Entry]) -> list[submitit.Job]:
    """Submit entries, with Slurm as one array.

    Raises:
        ValueError: The cluster refuses them.
    """
    try:
        with executor.batch():
            return [executor.submit(entry.task) for entry in batch]
    except submitit.core.utils.FailedJobError as error:
        raise ValueError(f"the cluster refuses the jobs: {error}") from None


def ended(entry: _Entry) -> bool:
    """Whether a job has left a result, or is gone without one. Slurm is asked by squeue, which needs no accounting."""
    if entry.job.paths.result_pickle.exists():
        return True
    if not isinstance(entry.job, submitit.SlurmJob):
        return entry.job.done()
    asked = subprocess.run(["squeue", "-h", "-j", entry.job.job_id, "-o", "%T"], capture_output=True, text=True)
    busy = asked.returncode == 0 and bool(asked.stdout.strip())
    unreachable = asked.returncode != 0 and "Invalid job id" not in asked.stderr
    entry.gone = 0 if busy or unreachable else entry.gone + 1
    return entry.gone >= 3  # a result may come to a shared disk later than the job's end


def failure(job: submitit.Job) -> str:
    """Nothing where the job ended well, ``died`` where it left no result, else the last line of its error."""
    if not job.paths.result_pickle.exists():
        return "died"
    outcome, result = submitit.core.utils.pickle_load(job.paths.result_pickle)
    return "" if outcome == "success" else str(result).strip().splitlines()[-1]
