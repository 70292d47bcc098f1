"""A run's lines: those of its checkpoint, whatever has become of the file."""

import json
import shutil
import time

import pytest

from lab.record import Record


@pytest.mark.parametrize("damage", ["longer", "cut", "gone"])
def test_the_lines_are_those_that_the_run_resumes_from(damage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Record(tmp_path) as record:
        for step in (10, 20, 30):
            record.add(step, metric=step / 10)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-20] if damage == "cut" else whole + b'{"step": 40, "met')
    with Record(tmp_path, record.lines[:2]) as record:
        assert [line["step"] for line in record.lines] == [10, 20]
        record.add(30, metric=7.0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["metric"]) for line in lines] == [(10, 1.0), (20, 2.0), (30, 7.0)]


@pytest.mark.slow
def test_a_folder_that_vanishes_is_one_error_and_no_traceback(tmp_path, capsys):
    """TensorBoard writes in a thread of its own, whose error the next line raises."""
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(OSError, match="No such file"), Record(folder) as record:
        while folder.exists():  # the thread may be writing into it
            shutil.rmtree(folder, ignore_errors=True)
        for step in range(1, 1000):
            record.add(step, value=1.0)
            time.sleep(0.01)
    assert "Traceback" not in capsys.readouterr().err
    assert not folder.exists()
