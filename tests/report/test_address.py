"""The repository's address is one setting, and Colab needs none: the first cell finds the code in an archive."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest

from report import address, colab

ROOT = Path(__file__).parent.parent.parent
GITHUB = "https://github.com/name/project"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "colab.zip"
    colab.pack(path)
    return path


@pytest.fixture
def copy(tmp_path):
    """The files that carry the address, in a folder of their own."""
    for name in ("pyproject.toml", "README.md", "CITATION.cff", *address.NOTEBOOKS):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def set_address(root: Path, value: str) -> dict[str, bytes]:
    path = root / "pyproject.toml"
    path.write_text(address.SETTING.sub(f'Repository = "{value}"', path.read_text()))
    assert address.apply(root) == value
    return {path.name: path.read_bytes() for path in root.iterdir()}


def first_code_cell(path: Path) -> str:
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def test_readme_and_citation_have_the_address_of_pyproject():
    value = address.repository()
    for name, change in (("README.md", address.readme), ("CITATION.cff", address.citation)):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert change(text, value) == text, "make address"
    assert set(address.NOTEBOOKS) == {path.name for path in ROOT.glob("*.ipynb")}


@pytest.mark.parametrize("name", address.NOTEBOOKS)
def test_notebooks_begin_with_the_shared_cell(name):
    assert first_code_cell(ROOT / name) == address.first_cell(address.repository()), "make address"


def test_an_address_goes_everywhere_and_can_be_taken_back(copy):
    before = set_address(copy, "")
    outputs = {name: nbformat.read(copy / name, as_version=4).cells[5:] for name in address.NOTEBOOKS}
    assert not any(b"badge" in content or b"repository-code" in content for content in before.values())
    there = set_address(copy, GITHUB)
    assert all(GITHUB.encode() in there[name] for name in ("pyproject.toml", "CITATION.cff", *address.NOTEBOOKS))
    for name in address.NOTEBOOKS:
        link = f"(https://colab.research.google.com/github/name/project/blob/main/{name})"
        assert there["README.md"].count(link.encode()) == 1
        assert nbformat.read(copy / name, as_version=4).cells[5:] == outputs[name]
    assert set_address(copy, GITHUB) == there
    assert "badge" not in set_address(copy, "https://gitlab.com/name/project")["README.md"].decode()
    assert set_address(copy, "") == before


@pytest.mark.parametrize("given", [f"{GITHUB}/", f"{GITHUB}.git", GITHUB])
def test_addresses_are_written_one_way(given):
    assert address.checked(given) == GITHUB


@pytest.mark.parametrize("given", ["github.com/a/b", "http://github.com/a/b", "https://github.com", 'https://x/a/b"'])
def test_what_is_no_address_is_refused(given, capsys):
    before = (ROOT / "pyproject.toml").read_bytes()
    with pytest.raises(SystemExit):
        address.main(["--repository", given])
    assert "looks like https://" in capsys.readouterr().err
    assert (ROOT / "pyproject.toml").read_bytes() == before


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'version: "{version}"' in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_archive_is_small_and_has_no_report(archive):
    names = zipfile.ZipFile(archive).namelist()
    assert archive.stat().st_size < 5e6
    assert {"q1_solution.py", "question3/plots.py", "data/classifier.pt", "requirements.txt"} <= set(names)
    assert not [name for name in names if name.endswith((".pdf", ".png", ".svg", ".ipynb")) or "tests" in name]
    assert {path.name for path in ROOT.glob("*.py")} <= set(names)


@pytest.mark.parametrize("name", address.NOTEBOOKS)
def test_the_archive_has_what_a_notebook_imports(name, archive):
    packed = {Path(entry).parts[0].removesuffix(".py") for entry in zipfile.ZipFile(archive).namelist()}
    code = [cell.source for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", "\n".join(code), re.MULTILINE))
    ours = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert imported & ours
    assert imported & ours <= packed


def run_first_cell(folder: Path, then: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Execute the cell in a folder, and then a line that shows that the project's modules can be imported."""
    folder.mkdir(exist_ok=True)
    source = f"{address.first_cell('')}\nimport vae, run_exp, train\nprint(Path(vae.__file__).parent.resolve())\n{then}"
    given = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "REPOSITORY")}
    command = [sys.executable, "-c", source]
    return subprocess.run(command, cwd=folder, env={**given, **environment}, capture_output=True, text=True)


def found_in(done: subprocess.CompletedProcess) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_the_first_cell_does_nothing_where_the_code_is():
    assert found_in(run_first_cell(ROOT)) == ROOT.resolve()
    assert not (ROOT / "project").exists()


@pytest.mark.slow
def test_the_first_cell_unpacks_the_archive_beside_it(archive, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(archive, folder)
    then = "vae.main('--dataset digits --epochs 1 --num_samples 2 --out runs/x'.split()); print(vae.__file__)"
    done = run_first_cell(folder, then)
    assert found_in(done).parent == (folder / "project").resolve()
    assert (folder / "project" / "runs" / "x" / "result.json").exists()
    assert found_in(run_first_cell(folder)) == (folder / "project").resolve()  # after a restart of the kernel


def test_the_first_cell_clones_the_address(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("this copy of the project is no git repository that could be cloned")
    done = run_first_cell(tmp_path / "empty", REPOSITORY=ROOT.as_uri())
    assert found_in(done) == (tmp_path / "empty" / "project").resolve()


def test_the_first_cell_asks_for_the_archive_in_colab(archive, tmp_path):
    module = tmp_path / "modules" / "google" / "colab"
    module.mkdir(parents=True)
    # As in Colab: the module is loaded before the first cell, and an upload lands in the folder, renamed if need be.
    (module / "files.py").write_text(
        f"import shutil\ndef upload():\n    shutil.copy({str(archive)!r}, 'colab (1).zip')\n"
        "    return {'colab (1).zip': b''}\n"
    )
    (tmp_path / "modules" / "sitecustomize.py").write_text("import google.colab\n")
    done = run_first_cell(tmp_path / "empty", PYTHONPATH=str(tmp_path / "modules"))
    assert found_in(done) == (tmp_path / "empty" / "project").resolve()
    assert "choose the file colab.zip" in done.stdout


def test_the_first_cell_says_what_it_needs(tmp_path):
    done = run_first_cell(tmp_path / "empty")
    assert done.returncode == 1
    assert "put colab.zip beside this notebook" in done.stderr.splitlines()[-1]


def test_only_missing_packages_are_installed(archive, tmp_path):
    folder, wheels = tmp_path / "empty", tmp_path / "wheels"
    folder.mkdir()
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "absent_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("absent_thing.py", "")
        information = "absent_thing-1.0.dist-info"
        wheel.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: absent-thing\nVersion: 1.0\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    needed = (ROOT / "requirements.txt").read_text()
    # An installed package of another version stays, and what development needs is not installed.
    changed = needed.replace("torch>=2.8", "absent-thing>=1\ntorch>=99") + "no-such-package\n"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(folder / "colab.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, changed if name == "requirements.txt" else source.read(name))
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_TARGET": str(tmp_path / "site")}
    found_in(run_first_cell(folder, **pip))
    assert {path.name.split("-")[0].removesuffix(".py") for path in (tmp_path / "site").glob("absent*")} == {
        "absent_thing"
    }
    assert not list((tmp_path / "site").glob("torch*"))
