"""A run's lines: cut back to where it goes on, and none of a damaged one."""

import json
import shutil
import threading
import time

import pytest

from lab.record import Record


def test_lines_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path):
    with Record(tmp_path, 0) as record:
        for step in (10, 20, 30):
            record.add(step, metric=step / 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1, 2]\n{"metric": 5}\n{"step": 40, "met')
    with Record(tmp_path, 20) as record:
        assert [line["step"] for line in record.lines] == [10, 20]
        record.add(30, metric=7.0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["metric"]) for line in lines] == [(10, 1.0), (20, 2.0), (30, 7.0)]
    assert (tmp_path / "log.txt").read_text().count("update 30") == 2


@pytest.mark.slow
def test_a_folder_that_vanishes_is_one_error_and_no_traceback(tmp_path, capsys):
    """TensorBoard writes in a thread of its own, whose error the next line raises."""
    with pytest.raises(OSError, match="No such file"), Record(tmp_path / "run", 0) as record:
        while (tmp_path / "run").exists():  # the thread may be writing into it
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        for step in range(1, 1000):
            record.add(step, value=1.0)
            time.sleep(0.01)
    assert "Traceback" not in capsys.readouterr().err
    assert threading.excepthook is record.hook
