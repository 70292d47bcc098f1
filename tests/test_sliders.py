"""The notebooks' sliders in a browser: a slider is moved with the mouse, as a reader would, and the picture changes.

Jupyter serves the notebook, a headless Chromium opens it, and the test speaks to both as a person would: it runs the
cells, looks at the page, clicks. Chromium is driven over its DevTools protocol,
https://chromedevtools.github.io/devtools-protocol.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import websocket
from nbformat.v4 import new_code_cell, new_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from tests.test_notebooks import SMALL

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PATIENCE = 600  # seconds until something is given up: the machine may be busy
CONNECTED = """
import matplotlib.pyplot as plt
from ipywidgets import FloatSlider, interact

@interact(slope=FloatSlider(value=1.0, min=0.0, max=2.0, step=0.5))
def line(slope):
    plt.plot([0, 1], [0, slope])
    plt.ylim(0, 2)
    plt.show()
"""
LOOSE = """
import matplotlib.pyplot as plt
from ipywidgets import FloatSlider

plt.plot([0, 1], [0, 1])
plt.show()
display(FloatSlider(value=1.0, min=0.0, max=2.0, step=0.5))
"""


class Page:
    """A page in a browser."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=PATIENCE)
        self.count = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the DevTools protocol."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.count:
            pass  # events of the page, which nobody asked for
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, expression: str) -> Any:
        """The value of an expression as soon as it is true; while the page loads, it may also fail."""
        return wait_until(
            lambda: self.evaluate(f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()")
        )

    def click(self, x: float, y: float) -> None:
        """Press and release the left mouse button at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def wait_until(check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"nothing came in {seconds} seconds"
        time.sleep(0.2)
    return value


def stopped(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[str]:
    """The address of a headless browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome found: apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "--remote-allow-origins=*"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([program, *flags, "--window-size=1200,1600"], stdout=log, stderr=log)
    try:
        port_file = folder / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and port_file.read_text())
        yield f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    finally:
        stopped(process)


@pytest.fixture
def page(browser) -> Page:
    """A new page; one that shows a notebook cannot be left without a question whether to save it."""
    with urllib.request.urlopen(urllib.request.Request(f"{browser}/json/new?about:blank", method="PUT")) as answer:
        return Page(json.load(answer)["webSocketDebuggerUrl"])


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A Jupyter server: the folder that it serves, and its address with a place for a notebook's name."""
    folder = tmp_path_factory.mktemp("server")
    places = {name: str(folder / name) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    command = [sys.executable, "-m", "notebook", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=token"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **places}, stdout=log, stderr=log)

    def running() -> dict[str, Any] | None:
        assert process.poll() is None, (folder / "log.txt").read_text()
        found = next((folder / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"), None)
        return json.loads(text) if found and (text := found.read_text()) else None

    try:
        port = wait_until(running)["port"]
        yield folder, f"http://127.0.0.1:{port}/notebooks/{{}}?token=token"
    finally:
        stopped(process)


def tagged(cell: nbformat.NotebookNode, *tags: str) -> bool:
    return bool(set(tags) & set(cell.metadata.get("tags", [])))


def has_sliders(cell: nbformat.NotebookNode) -> bool:
    return tagged(cell, "sliders") or any(
        call in cell.source for call in ("interact(", "interactive_output(", "show_sliders(")
    )


def shortened(name: str, folder: Path) -> nbformat.NotebookNode:
    """A notebook with small parameters, whose code before and between cells with sliders is one cell each.

    Where cells are tagged ``setup``, the sliders need no others.
    """
    given = parameterize_notebook(
        load_notebook_node(str(ROOT / name)), {**SMALL[name], "out": str(folder / name / "run")}
    )
    code = [cell for cell in given.cells if cell.cell_type == "code"]
    if any(tagged(cell, "setup") for cell in code):
        needed = ("parameters", "injected-parameters", "setup")
        code = [code[0], *(cell for cell in code[1:] if tagged(cell, *needed) or has_sliders(cell))]
    cells, sources = [], [f"import os\nos.chdir({str(ROOT)!r})"]
    for cell in code:
        if has_sliders(cell):
            cells += [new_code_cell("\n".join(sources)), new_code_cell(cell.source, metadata={"tags": ["sliders"]})]
            sources = []
        else:
            sources.append(cell.source)
    return new_notebook(cells=cells, metadata=given.metadata)


def show(page: Page, address: str) -> None:
    """Open a notebook and run all its cells."""
    page.call("Page.navigate", url=address)
    panel = "jupyterapp.shell.currentWidget"
    page.wait_until(f"{panel}.sessionContext.session.kernel.status === 'idle' && {panel}.content.widgets.length > 0")
    page.evaluate(f"window.cells = {panel}.content.widgets; 0")
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.done = true }); 0")
    page.wait_until("window.done")


def errors(page: Page) -> list[str]:
    """What went wrong in the notebook's cells, and in what its sliders run."""
    found = "cells.flatMap(c => c.model.outputs.toJSON()).filter(o => o.output_type === 'error').map(o => o.evalue)"
    shown = "[...document.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.error\"]')].map(e => e.innerText)"
    return page.evaluate(f"{found}.concat({shown})")


def pictures(page: Page, cell: int) -> list[str]:
    """The pictures below a cell."""
    found = f"[...cells[{cell}].outputArea.node.querySelectorAll('img, canvas')]"
    return page.evaluate(f"{found}.map(e => e.src || e.toDataURL())")


def move_slider(page: Page, cell: int) -> None:
    """Click on the track of the first slider below a cell, far from its handle."""
    page.evaluate(f"jupyterapp.shell.currentWidget.content.scrollToItem({cell}).then(() => 0)")
    track = f"cells[{cell}].outputArea.node.querySelector('.noUi-base')"
    page.wait_until(f"!!{track}")
    page.evaluate(f"{track}.scrollIntoView({{block: 'center'}})")
    boxes = f"[{track}, {track}.querySelector('.noUi-handle')].map(e => e.getBoundingClientRect().toJSON())"
    track_box, handle_box = page.evaluate(boxes)
    middle = track_box["x"] + track_box["width"] / 2
    share = 0.2 if handle_box["x"] > middle else 0.8
    page.click(track_box["x"] + share * track_box["width"], track_box["y"] + track_box["height"] / 2)


def check(page: Page, server: tuple[Path, str], notebook: nbformat.NotebookNode, seconds: float = PATIENCE) -> None:
    """Every cell with sliders: they move, and the picture changes."""
    folder, address = server
    nbformat.write(notebook, folder / "notebook.ipynb")
    show(page, address.format("notebook.ipynb"))
    assert not errors(page)
    for index, cell in enumerate(notebook.cells):
        if has_sliders(cell):
            wait_until(lambda index=index: pictures(page, index))
            before = pictures(page, index)
            move_slider(page, index)
            wait_until(lambda index=index, before=before: (now := pictures(page, index)) and now != before, seconds)
            assert not errors(page)


def small(source: str) -> nbformat.NotebookNode:
    cell = new_code_cell(source, metadata={"tags": ["sliders"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=[cell], metadata={"kernelspec": kernel})


@pytest.mark.slow
def test_a_connected_slider_changes_its_picture(page, server):
    check(page, server, small(CONNECTED))


@pytest.mark.slow
def test_a_loose_slider_is_noticed(page, server):
    with pytest.raises(AssertionError, match="nothing came"):
        check(page, server, small(LOOSE), seconds=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_sliders_change_their_pictures(name, page, server):
    notebook = shortened(name, server[0])
    assert notebook.cells, f"{name} has no cell with sliders"
    check(page, server, notebook)
