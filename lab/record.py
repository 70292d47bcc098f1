"""What every trainer writes down: ``metrics.jsonl`` and TensorBoard's events."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from lab.files import atomic_write


class Record:
    """A run's lines of numbers.

    Args:
        folder: The run's folder.
        lines: Those up to where the run resumes, from its checkpoint: later ones will come again.
    """

    def __init__(self, folder: Path, lines: Sequence[dict[str, Any]] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds of imports that only training needs

        path, self.lines = folder / "metrics.jsonl", list(lines)
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        self.metrics: TextIO = path.open("a", encoding="utf-8")
        self.writer = SummaryWriter(str(folder), purge_step=self.lines[-1]["step"] + 1 if self.lines else 0)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *error: object) -> None:
        self.metrics.close()
        self.writer.close()

    def add(self, step: int, **values: float) -> None:
        """Add a line of numbers."""
        line = {"step": step, **values}
        self.lines.append(line)
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
