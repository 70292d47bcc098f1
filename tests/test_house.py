"""The house: who may import whom, and graded modules that work alone."""

import ast
import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GRADED = {"q1_solution", "gan", "model", "solution"}
RUNNERS = {"vae": "question1", "run_exp": "question2", "train": "question3"}
WINGS = set(RUNNERS.values())
ROOMS = {"lab", "data", "experiments", "benchmarks", "pretrained", "report", "grade", *WINGS}
EVERYTHING = (GRADED | RUNNERS.keys() | {"dirac"} | ROOMS) - {"grade", "pretrained"}  # of the latter only notebooks
# What a module or folder may import of the project; a folder's own files always.
ALLOWED = {
    **{name: set() for name in GRADED},
    "lab": set(),
    "data": {"lab"},
    "dirac": {"gan"},
    **{wing: GRADED | {"lab", "data", "dirac"} for wing in WINGS},
    **{runner: GRADED | {"lab", "data", "dirac", wing} for runner, wing in RUNNERS.items()},
    "experiments": EVERYTHING - {"report"},
    "benchmarks": EVERYTHING - {"report", "experiments"},
    "pretrained": EVERYTHING - {"report", "experiments", "benchmarks"},  # its packing reads what runners write
    "report": {"lab"},
    "grade": GRADED,
}
FILES = sorted(path.relative_to(ROOT) for folder in (".", *ROOMS) for path in (ROOT / folder).glob("*.py"))


def imported(path: Path) -> set[Path]:
    """The project's files that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name their whole path"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = {Path(*name.split(".")) for name in names}
    found = {p.with_suffix(".py") for p in candidates} | {p / "__init__.py" for p in candidates}
    return found & set(FILES)


def place(path: Path) -> str:
    """The room or the module at the root that a file belongs to."""
    return path.parts[0] if len(path.parts) > 1 else path.stem


def test_the_root_holds_what_the_assignment_names():
    assert {path.stem for path in FILES if len(path.parts) == 1} == GRADED | RUNNERS.keys() | {"dirac"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_arrows_point_one_way(path):
    others = {place(other) for other in imported(path)} - {place(path)}
    assert others <= ALLOWED[place(path)], f"{path} imports {others - ALLOWED[place(path)]}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_needs_what_windows_lacks(path):
    """Where a module of Unix alone is used, it is imported there, and not with the file."""
    unix = {"resource", "fcntl", "pwd", "grp", "termios", "pty", "syslog"}
    for node in ast.parse((ROOT / path).read_text()).body:
        names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        names |= {node.module} if isinstance(node, ast.ImportFrom) else set()
        assert not names & unix, f"{path}: {names & unix}"


def test_there_is_no_circle():
    graphlib.TopologicalSorter({path: imported(path) for path in FILES}).prepare()


@pytest.mark.parametrize("name", sorted(GRADED))
def test_a_graded_module_works_alone(name, tmp_path):
    shutil.copy(ROOT / f"{name}.py", tmp_path)
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
