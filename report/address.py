"""Put the repository's address where it is needed: ``python -m report.address --repository https://...``

The address is one setting, ``Repository`` in ``pyproject.toml``. From there it goes into the notebooks' first cell, the
README's table of notebooks, and CITATION.cff. As long as it is empty, no link is shown that would lead nowhere.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

from lab import checkpoint, command_line

ROOT = Path(__file__).parent.parent
NOTEBOOKS = {
    "vae.ipynb": "1.6, 1.7: the autoencoder",
    "main.ipynb": "2.6, 2.7: the dirac game, and images",
    "flow.ipynb": "3.2, 3.7, 3.9: planar flows",
}
SETTING = re.compile(r'^Repository = ".*"', re.MULTILINE)
PLACEHOLDER = 'os.environ.get("REPOSITORY", "")'  # in first_cell.py
BEGIN, END = "<!-- notebooks: written by make address -->", "<!-- end of notebooks -->"
COLAB = "https://colab.research.google.com"


@dataclass
class Options:
    """What to set."""

    repository: str | None = None  # the address, as https://github.com/NAME/PROJECT; left out, that of pyproject.toml

    def __post_init__(self) -> None:
        if self.repository:
            self.repository = checked(self.repository)


def checked(address: str) -> str:
    """An address without a slash or ``.git`` at its end.

    Raises:
        ValueError: It is no address of a repository that a browser and git both open.
    """
    parts = urlsplit(address)
    names = [name for name in parts.path.split("/") if name]
    plain = re.fullmatch(r"[\w.~:/-]+", address) and not parts.username
    if parts.scheme != "https" or not parts.hostname or len(names) < 2 or not plain:
        raise ValueError(f"an address looks like https://github.com/NAME/PROJECT, got {address!r}")
    return address.rstrip("/").removesuffix(".git")


def repository(root: Path = ROOT) -> str:
    """The address that pyproject.toml names; empty as long as none is set."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    address = settings["project"]["urls"]["Repository"]
    return checked(address) if address else ""


def first_cell(address: str) -> str:
    """The notebooks' first code cell, with the address in it."""
    source = (Path(__file__).parent / "first_cell.py").read_text(encoding="utf-8")
    return source.replace(PLACEHOLDER, PLACEHOLDER.replace('""', f'"{address}"')).strip()


def badge(address: str, notebook: str) -> str:
    """A link that opens a notebook in Colab, which does so for GitHub alone; elsewhere how to open it."""
    parts = urlsplit(address)
    if parts.hostname != "github.com":
        return "upload it and `colab.zip`" if not address else "upload it"
    target = f"{COLAB}/github{parts.path}/blob/main/{notebook}"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target})"


def notebook_table(address: str) -> str:
    """The README's table of notebooks."""
    rows = [f"| [{name}]({name}) | {what} | {badge(address, name)} |" for name, what in NOTEBOOKS.items()]
    return "\n".join(["| notebook | question | in Colab |", "|---|---|---|", *rows])


def readme(text: str, address: str) -> str:
    """The README with the table of notebooks between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{notebook_table(address)}\n{END}{rest.split(END)[1]}"


def citation(text: str, address: str) -> str:
    """CITATION.cff with the address, or without a line of it."""
    lines = [line for line in text.splitlines() if not line.startswith("repository-code:")]
    return "\n".join([*lines, *([f'repository-code: "{address}"'] if address else [])]) + "\n"


def write_first_cell(path: Path, address: str) -> None:
    """Replace a notebook's first code cell; its outputs and the other cells stay as they are."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if first.source == first_cell(address):
        return
    first.source = first_cell(address)
    with checkpoint.atomic_write(path) as temporary:
        nbformat.write(notebook, temporary)


def apply(root: Path = ROOT) -> str:
    """Write the address of pyproject.toml everywhere, and return it; twice does no more than once."""
    address = repository(root)
    for name, change in (("README.md", readme), ("CITATION.cff", citation)):
        _rewrite(root / name, change((root / name).read_text(encoding="utf-8"), address))
    for name in NOTEBOOKS:
        write_first_cell(root / name, address)
    return address


def _rewrite(path: Path, text: str) -> None:
    if text != path.read_text(encoding="utf-8"):
        with checkpoint.atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command_line.parse(Options, "Set the repository's address.", argv, program="python -m report.address")
    with command_line.one_line_errors():
        if options.repository is not None:
            path = ROOT / "pyproject.toml"
            _rewrite(path, SETTING.sub(f'Repository = "{options.repository}"', path.read_text(encoding="utf-8")))
        print(f"the repository's address: {apply() or 'not set, no link is shown'}")


if __name__ == "__main__":
    main()
