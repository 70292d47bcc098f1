"""The notebooks run from top to bottom, were committed with their outputs, and get the code where it is not."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).parent.parent
SMALL = {
    "vae.ipynb": {"dataset": "digits", "epochs": 2, "latent_size": 5, "num_samples": [1, 5]},
    "flow.ipynb": {"num_layers": [1, 2], "num_iter": 20, "starts": 1, "steps": 10},
    "main.ipynb": {"config": "dirac-jsd-[28]", "max_iters": 50, "image_config": "cifar10-jsd-3", "image_iters": 20},
}
# Moves every slider, which must change its picture: one in a widget, or one that its function displays.
MOVE_SLIDERS = """
import gc
import ipywidgets

displayed = [None]
display = lambda picture: displayed.append(getattr(picture, "data", None) or picture.tobytes())
sliders, images = (
    [thing for thing in gc.get_objects() if type(thing) is kind] for kind in (ipywidgets.FloatSlider, ipywidgets.Image)
)
assert len(sliders) >= 2
for slider in sliders:
    shown, start = [], slider.value
    for value in (slider.min, slider.max, start):
        slider.value = value
        shown.append((displayed[-1], *(image.value for image in images)))
    assert shown[0] != shown[1], f"{slider.description} moves nothing"
"""


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_notebook_runs_with_small_parameters_and_its_sliders_move(name, tmp_path):
    notebook = nbformat.read(ROOT / name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(MOVE_SLIDERS))
    nbformat.write(notebook, tmp_path / "in.ipynb")
    parameters = {**SMALL[name], "out": str(tmp_path / "run")}
    options = {"cwd": ROOT, "kernel_name": "python3", "progress_bar": False, "log_output": False}
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / name, parameters, execution_timeout=300, **options)


@pytest.mark.parametrize("name", SMALL)
def test_notebook_is_committed_with_its_outputs(name):
    cells = code_cells(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_notebooks_begin_with_one_short_hidden_cell():
    assert set(SMALL) == {path.name for path in ROOT.glob("*.ipynb")}
    first, *others = (code_cells(name)[0] for name in SMALL)
    assert len(first.source.splitlines()) <= 12
    assert first.source.startswith("# @title")  # Colab's form view shows it
    for cell in (first, *others):
        assert cell.source == first.source
        assert cell.metadata["cellView"] == "form" and cell.metadata["jupyter"]["source_hidden"]


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_shows_a_trained_model_before_its_parameters(name):
    cells = nbformat.read(ROOT / name, as_version=4).cells
    assert [cell.cell_type for cell in cells[:4]] == ["markdown", "code", "markdown", "code"]
    assert len(cells[0].source.split("\n\n")) == 2  # a title and a paragraph
    parameters = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    assert parameters > 3 and "import pretrained" in cells[3].source
    assert any("image/png" in output.get("data", {}) for output in cells[3].outputs)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> bytes:
    """What ``make colab.zip`` makes of the files that are committed."""
    if not (ROOT / ".git").exists() or shutil.which("make") is None:
        pytest.skip("this copy of the project is no git repository, or there is no make")
    said = subprocess.run(["make", "-n", "colab.zip"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    recipe = next(line for line in said.splitlines() if line.startswith("git "))  # make within make says more
    path = tmp_path_factory.mktemp("archive") / "colab.zip"
    subprocess.run(recipe.replace("-o colab.zip", f"-o {path}"), cwd=ROOT, shell=True, check=True)
    return path.read_bytes()


# Stands for pip, so that nothing is installed; and then, where the project's modules are imported from.
STUB = """
import subprocess

real = subprocess.run
subprocess.run = lambda command, **options: print("pip", command[-1]) if "pip" in command else real(command, **options)
"""
WHERE = "\nimport lab\nprint(pathlib.Path(lab.__file__).parent.parent.resolve())"


def run_first_cell(folder: Path, repository: str = "") -> subprocess.CompletedProcess:
    source = code_cells("vae.ipynb")[0].source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    command = [sys.executable, "-E", "-c", STUB + source + WHERE]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def assert_the_code_is_in_project(folder: Path, done: subprocess.CompletedProcess) -> None:
    assert done.stdout.splitlines() == ["pip requirements.txt", str((folder / "project").resolve())], done.stderr


def test_the_first_cell_does_nothing_where_the_code_is():
    assert run_first_cell(ROOT).stdout.splitlines() == [str(ROOT.resolve())]


def test_the_first_cell_unpacks_the_archive_beside_it(archive, tmp_path):
    assert len(archive) < 15e6  # an upload of some seconds
    (tmp_path / "colab.zip").write_bytes(archive)
    for _ in range(2):  # again after a restart of the kernel
        assert_the_code_is_in_project(tmp_path, run_first_cell(tmp_path))
    assert (tmp_path / "project" / "data" / "classifier.pt").exists()
    assert (tmp_path / "project" / "pretrained" / "index.json").exists()
    assert not (tmp_path / "project" / "tests").exists()


@pytest.mark.parametrize("broken", ["missing", "truncated", "damaged"])
def test_a_broken_archive_is_one_line_and_leaves_nothing(broken, archive, tmp_path):
    middle = len(archive) // 2
    rest = b"" if broken == "truncated" else bytes(100) + archive[middle + 100 :]
    if broken != "missing":
        (tmp_path / "colab.zip").write_bytes(archive[:middle] + rest)
    done = run_first_cell(tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("colab.zip is missing or damaged")
    assert not (tmp_path / "project").exists()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this copy of the project is no git repository")
def test_the_first_cell_clones_the_address(tmp_path):
    assert_the_code_is_in_project(tmp_path, run_first_cell(tmp_path, ROOT.as_uri()))
