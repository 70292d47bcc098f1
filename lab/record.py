"""What every trainer writes down: ``metrics.jsonl``, ``log.txt`` and TensorBoard's events."""

import json
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter

from lab import checkpoint


class Record:
    """A run's lines of numbers, cut back to where the run goes on.

    Args:
        folder: The run's folder.
        step: The step that the run goes on from; what was written later is dropped, since it will come again.
        unit: What a step is.
    """

    def __init__(self, folder: Path, step: int, unit: str = "update") -> None:
        self.path, self.unit = folder / "metrics.jsonl", unit
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []
        self.lines = [line for line in map(_parsed, lines) if line and line["step"] <= step]
        with checkpoint.atomic_write(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        self.metrics: TextIO = self.path.open("a", encoding="utf-8")
        self.log: TextIO = (folder / "log.txt").open("a", encoding="utf-8")
        self.hook, threading.excepthook = threading.excepthook, self._in_a_thread
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for part in (self.metrics, self.log, self.writer):
                part.close()
        finally:
            threading.excepthook = self.hook

    def _in_a_thread(self, failure: threading.ExceptHookArgs) -> None:
        """Say nothing of a file that TensorBoard's thread cannot write: the next line, or closing, raises it again."""
        if not issubclass(failure.exc_type, OSError):
            self.hook(failure)

    def add(self, step: int, **values: float) -> None:
        """One line of numbers."""
        line = {"step": step, **values}
        self.lines.append(line)
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()
        self.say(f"{self.unit} {step}: " + ", ".join(f"{name} {value:.5g}" for name, value in values.items()))
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        """A line of the log."""
        self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self.log.flush()


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of metrics; None for what is damaged, as the last one of a run that was killed while it wrote."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None
