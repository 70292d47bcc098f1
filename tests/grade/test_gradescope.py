"""The Gradescope package in a folder laid out as its container is."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from grade.__main__ import main
from tests.grade.conftest import changed, right

# The fields that Gradescope documents: https://gradescope-autograders.readthedocs.io/en/latest/specs/
RESULT = {"score", "execution_time", "output", "output_format", "test_output_format", "test_name_format"}
RESULT |= {"visibility", "stdout_visibility", "extra_data", "tests", "leaderboard"}
TEST = {"score", "max_score", "status", "name", "name_format", "number", "output", "output_format"}
TEST |= {"tags", "visibility", "extra_data"}
VISIBILITY = {"hidden", "after_due_date", "after_published", "visible"}


def check_format(results):
    assert set(results) <= RESULT
    assert results["stdout_visibility"] in VISIBILITY
    assert results["visibility"] in VISIBILITY
    assert results["output_format"] in {"text", "html", "simple_format", "md", "ansi"}
    for test in results["tests"]:
        assert set(test) <= TEST
        assert test["visibility"] in VISIBILITY
        assert test["status"] in {"passed", "failed"}
        assert 0 <= test["score"] <= test["max_score"]
        assert isinstance(test["output"], str)
    assert sum(test["max_score"] for test in results["tests"]) == 34
    assert results["score"] == pytest.approx(sum(test["score"] for test in results["tests"]))


@pytest.fixture
def container(tmp_path):
    """``/autograder``, with the package unpacked in ``source``."""
    assert main(["--gradescope", str(tmp_path / "autograder.zip")]) == 0
    root = tmp_path / "autograder"
    with zipfile.ZipFile(tmp_path / "autograder.zip") as package:
        names = set(package.namelist())
        assert {"setup.sh", "run_autograder", "q1_solution.py", "gan.py", "solution.py", "grade/points.toml"} <= names
        assert not [name for name in names if "test" in name or "handout" in name or name.endswith(".txt")]
        assert {info.filename for info in package.infolist() if info.external_attr >> 16 & 0o100} == {
            "setup.sh",
            "run_autograder",
        }
        package.extractall(root / "source")
    (root / "submission").mkdir()
    return root


def run(root, python=None):
    python = Path(python or Path(sys.executable).parent)
    variables = {
        "AUTOGRADER_ROOT": str(root),
        "PATH": f"{python}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", str(root / "source" / "run_autograder")], env=variables, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((root / "results" / "results.json").read_text())


@pytest.mark.slow
def test_the_package_grades(container):
    q1 = changed(
        right("loops", "q1_solution"),
        "log_mean_exp",
        "return torch.stack(out)",
        "print(y)\n    return torch.stack(out)[:, None]",
    )
    (container / "submission" / "q1_solution.py").write_text(q1)
    leak = "raise ValueError(f'the inputs are {cp.tolist()}')"
    (container / "submission" / "gan.py").write_text(changed(right("loops", "gan"), "w1", "", leak))
    (container / "submission" / "solution (1).py").write_text(right("loops", "solution"))
    results = run(container)
    check_format(results)
    assert results["score"] == 31.25
    lost, raised = [test for test in results["tests"] if test["score"] < test["max_score"]]
    line = (container / "submission" / "gan.py").read_text().splitlines().index(f"    {leak}") + 1
    assert raised["output"].splitlines()[1:] == [f"it raises ValueError (line {line})"]
    assert "the shape is (4, 1)" in lost["output"]
    assert "it prints" in lost["output"]
    assert "tensor" not in lost["output"]  # the checks' inputs, printed


def test_there_is_a_result_whatever_happens(container, tmp_path):
    """Without a Python that works, the zero points of the beginning are what is left."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    results = run(container, tmp_path / "bin")
    check_format(results)
    assert results["score"] == 0
    assert len(results["tests"]) == 14


def test_the_scripts_are_bash(container):
    for name in ("setup.sh", "run_autograder"):
        assert subprocess.run(["bash", "-n", str(container / "source" / name)]).returncode == 0
