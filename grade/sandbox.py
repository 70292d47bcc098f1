"""Runs a submission's code away from the grader: a child process for every question, killed when its time is up."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from grade import scenarios
from grade.submission import Submission

CHILD = Path(__file__).with_name("child.py")
PROJECT = Path(__file__).resolve().parent.parent
# Packages that submissions import often: imported once, before the questions' processes are forked.
COMMON = ("numpy", "scipy.stats", "matplotlib.pyplot", "torchvision", "tqdm", "PIL.Image", "pandas", "sklearn")
IMPORT_SECONDS = 8.0  # for importing a file, after which only its definitions are judged
LARGEST_ANSWER = 64 << 20  # bytes
Json = dict[str, Any]


@dataclass
class Answers:
    """What a child sent back: one result for each case, None where there is none, and then why."""

    results: list[Json | None]
    reason: str = ""  # why a result is missing
    notes: list[str] = field(default_factory=list)
    printed: str = ""


class Sandbox:
    """Runs questions of one submission, in a scratch folder."""

    def __init__(self, submission: Submission, scratch: Path, seconds: float) -> None:
        self.submission, self.scratch, self.seconds = submission, scratch, seconds
        self.server: subprocess.Popen[str] | None = None
        self.said: Queue[str | None] = Queue()
        self.parts: dict[str, str] = {}  # files of which only the definitions are judged, and why
        self.count = 0
        self.packages = _packages(submission)
        self.forks = hasattr(os, "fork")
        if self.forks:
            self._start()

    def run(self, file: str, scenario: str, cases: list[Json], stand_in: Json | None = None) -> Answers:
        """Run a scenario's cases on a file. Where one ends the process, a new one runs those of other functions."""
        answers = self._attempt(file, scenario, cases, stand_in)
        if answers is None:  # the end came before the file was loaded
            self.parts[file] = "importing it ends the process or takes too long"
            answers = self._attempt(file, scenario, cases, stand_in)
        if answers is None:
            return Answers([None] * len(cases), "its definitions cannot be loaded: the process ends")
        if None in answers.results:
            end = answers.results.index(None)
            others = [n for n in range(end + 1, len(cases)) if _called(cases[n]) != _called(cases[end])]
            if others:
                found = self.run(file, scenario, [cases[n] for n in others], stand_in)
                for number, result in zip(others, found.results, strict=True):
                    answers.results[number] = result
        return answers

    def close(self) -> None:
        if self.server:
            self.server.kill()
            self.server.wait()
            for pipe in (self.server.stdin, self.server.stdout):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()
            self.server = None

    def _attempt(self, file: str, scenario: str, cases: list[Json], stand_in: Json | None) -> Answers | None:
        self.count += 1
        folder = self.scratch / f"run{self.count}"
        work = folder / "work"
        self._lay_out(file, work)
        request = {
            "work": str(work.resolve()),
            "project": str(PROJECT),
            "answer": str(folder / "answer"),
            "printed": str(folder / "printed"),
            "file": file,
            "whole": file not in self.parts,
            "seconds": self.seconds,
            "import_seconds": min(IMPORT_SECONDS, self.seconds / 2),
            "scenario": scenario,
            "cases": [_encode(case) for case in cases],
            "stand_in": stand_in,
        }
        reason = self._serve(request) if self.forks else self._once(request)
        lines = _read(folder / "answer", LARGEST_ANSWER).split("\n")
        printed = _read(folder / "printed", 4000)
        shutil.rmtree(folder, ignore_errors=True)
        records = [record for line in lines if (record := _parse(line)) is not None]
        if not records or "loaded" not in records[0]:
            return None
        if not records[0]["loaded"]:
            self.parts.setdefault(file, str(records[0].get("why")))
        results: list[Json | None] = [*records[1:], *[None] * len(cases)][: len(cases)]
        partly = "only imports, definitions and constants are judged:"
        return Answers(results, reason, [f"{partly} {self.parts[file]}"] if file in self.parts else [], printed)

    def _lay_out(self, file: str, work: Path) -> None:
        work.mkdir(parents=True)
        sources = {source.path: source.text for source in self.submission.sources.values()}
        for name, path in self.submission.neighbours[file].items():
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                if path in sources:
                    target.write_text(sources[path], encoding="utf-8")
                else:
                    shutil.copyfile(path, target)
        for name, source in self.submission.sources.items():
            if name == file or source.path.parent == self.submission.sources[file].path.parent:
                (work / f"{name}.py").write_text(source.text, encoding="utf-8")

    def _command(self, what: str) -> list[str]:
        return [sys.executable, "-P", "-B", str(CHILD), what, *self.packages]

    def _start(self) -> None:
        self.server = subprocess.Popen(
            self._command("serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(),
            cwd=self.scratch,
            start_new_session=True,
        )
        self.said = Queue()
        threading.Thread(target=_listen, args=(self.server, self.said), daemon=True).start()

    def _serve(self, request: Json) -> str:
        """Let the server fork a child; say why the child ended, if not by itself."""
        if self.server is None or self.server.poll() is not None:
            self._start()
        assert self.server and self.server.stdin
        try:
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            pid = int(self.said.get(timeout=120) or "")
        except (OSError, Empty, ValueError):
            self.close()
            return "the process could not be started"
        try:
            status = self.said.get(timeout=self.seconds)
        except Empty:
            _kill(pid)
            self.said.get(timeout=30)
            return f"no answer within {self.seconds:g} seconds: an endless loop, or too slow"
        finally:
            _kill(pid)
        if status is None:
            self.close()
            return "the process ended (it crashed)"
        return _reason(int(status))

    def _once(self, request: Json) -> str:
        """The same without fork: a new interpreter for each question."""
        child = subprocess.Popen(
            self._command("once"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(),
            cwd=self.scratch,
        )
        try:
            child.communicate(json.dumps(request) + "\n", timeout=self.seconds + 20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return f"no answer within {self.seconds:g} seconds: an endless loop, or too slow"
        return _reason(child.returncode)


def _called(case: Json) -> tuple[str | None, ...]:
    """What of the submission a case calls, as far as the case says it."""
    return case.get("function"), case.get("form"), case.get("scenario")


def _reason(status: int) -> str:
    if status >= 0:
        return "the process ended by itself (exit)"
    name = signal.Signals(-status).name if -status in {s.value for s in signal.Signals} else str(-status)
    if name == "SIGXCPU":
        return "no answer within the limit of time: an endless loop, or too slow"
    more = ": too little memory?" if name == "SIGKILL" else ""
    return f"the process crashed ({name}{more})"


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _listen(server: "subprocess.Popen[str]", said: "Queue[str | None]") -> None:
    assert server.stdout
    for line in server.stdout:
        said.put(line.strip())
    said.put(None)


def _environment() -> dict[str, str]:
    """The grader's environment without a way to the project, to a screen or to a GPU."""
    dropped = ("PYTHONSTARTUP", "PYTHONINSPECT", "PYTEST_CURRENT_TEST", "DISPLAY", "OLDPWD")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    paths = [p for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p and not (Path(p) / "q1_solution.py").exists()]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return kept | threads | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONBREAKPOINT": "0",
        "PYTHONIOENCODING": "utf-8:replace",
        "MPLBACKEND": "Agg",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


def _packages(submission: Submission) -> list[str]:
    text = "\n".join(source.text for source in submission.sources.values())
    return [name for name in COMMON if name.split(".")[0] in text]


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return scenarios.encode(value) if hasattr(value, "dtype") else value


def _read(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""


def _parse(line: str) -> Json | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
