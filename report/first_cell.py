# Finds the project's code: in this folder, in a colab.zip (`make colab.zip`), or at its address. Where the code is here
# already, nothing happens. Elsewhere only those packages are installed that are missing: Colab's torch stays.
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = os.environ.get("REPOSITORY", "")  # the project's git address


def get_project(folder: str) -> None:
    """Put the code into a folder."""
    archive = Path("colab.zip")
    if not archive.exists() and not REPOSITORY and "google.colab" in sys.modules:
        from google.colab import files

        print("choose the file colab.zip, which `python3 -m report.colab` writes")
        archive = Path(next(iter(files.upload()), archive))
    if archive.exists():
        zipfile.ZipFile(archive).extractall(folder)
    elif REPOSITORY:
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, folder], check=True)
    else:
        raise RuntimeError("the code is not here: put colab.zip beside this notebook, or the address into REPOSITORY")


def missing_packages() -> list[str]:
    """The requirements of which no version is installed; those below the last headline are for development."""
    needed = Path("requirements.txt").read_text(encoding="utf-8").partition("# Development")[0]
    installed = {re.sub("[-_.]+", "-", d.name).lower() for d in importlib.metadata.distributions()}
    lines = [line for line in needed.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if re.split("[<>=!~;]", line)[0] not in installed]


if importlib.util.find_spec("q1_solution") is None and not Path("q1_solution.py").exists():
    if not Path("project").exists():
        get_project("project")
    os.chdir("project")
    if missing := missing_packages():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
sys.path.insert(0, str(Path.cwd()))
