"""Accidents of whole files: whatever a file does, its right functions count, and nothing outside is touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.grade.conftest import changed, right

ROOT = Path(__file__).parent.parent.parent
Q1 = right("vectorised", "q1_solution")
HARMLESS = {
    "endless loop at import": (Q1 + "\nwhile True:\n    pass\n", "takes too long"),
    "sys.exit at import": (Q1 + "\nimport sys\nsys.exit(0)\n", "SystemExit"),
    "os._exit at import": (Q1 + "\nimport os\nos._exit(0)\n", "ends the process"),
    "segmentation fault at import": (Q1 + "\nimport ctypes\nctypes.string_at(0)\n", "ends the process"),
    "48 GB at import": (Q1 + "\ndata = torch.zeros(12 * 2**30)\n", "DefaultCPUAllocator"),
    "missing package": ("import wandb_is_not_here\nfrom missing_too import x as y, z\n" + Q1, "ModuleNotFoundError"),
    "missing helper file": ("from my_utils import plot\n" + Q1, "ModuleNotFoundError"),
    "input at import": (Q1 + "\nn = int(input('how many? '))\n", "EOFError"),
    "training at the bottom": (Q1 + "\nx = load_data()\nfor i in range(10):\n    train(x)\n", "NameError"),
    "notebook export": (
        "# coding: utf-8\n%matplotlib inline\n" + Q1 + "\n!pip install torch\nget_ipython().magic('x')\n",
        "notebook commands",
    ),
    "BOM and CRLF": (b"\xef\xbb\xbf" + Q1.replace("\n", "\r\n").encode(), ""),
    "UTF-16": (Q1.encode("utf-16"), ""),
    "Latin-1": (("# mod\xe8le\n" + Q1).encode("latin-1"), ""),
    "prints at import": ("print('x' * 100_000)\n" + Q1, "it prints: xxx"),
    "default dtype changed": (Q1 + "\ntorch.set_default_dtype(torch.float64)\n", ""),
    "gradients switched off": (Q1 + "\ntorch.set_grad_enabled(False)\n", ""),
    "files deleted": (
        Q1 + "\nimport os, shutil\nfor name in os.listdir('.'):\n    os.remove(name)\nshutil.rmtree(os.getcwd())\n",
        "",
    ),
    "plt.show()": ("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n" + Q1, ""),
    "assert_close patched": (Q1 + "\ntorch.testing.assert_close = torch.allclose = lambda *a, **k: True\n", ""),
    "json and os patched": (Q1 + "\nimport json, os\njson.dumps = os.write = lambda *a, **k: 0\n", ""),
    "an exit at the end": (Q1 + "\nimport atexit, os\natexit.register(lambda: os._exit(3))\n", ""),
    "standard output closed": (Q1 + "\nimport sys\nsys.stdout.close()\n", ""),
    "a constant used": (
        Q1.replace("math.log(2 * math.pi)", "LOG") + "\nLOG = math.log(2 * math.pi)\nraise ValueError\n",
        "ValueError",
    ),
}


@pytest.mark.parametrize("name", [*HARMLESS])
@pytest.mark.parametrize("number", ["1.2"])
def test_right_functions_count(name, number, verdict_of):
    text, note = HARMLESS[name]
    verdict = verdict_of(number, text, 8 if name == "endless loop at import" else 60)
    assert (verdict.points, verdict.verdict) == (verdict.max, "right"), verdict
    assert note in " ".join(verdict.notes), verdict


def test_a_method_may_take_its_parameters(verdict_of):
    text = right("methods", "solution")
    start = text.index("    def forward")
    body = text[start:].replace("(self, x", "(self, x, u, w, b", 2).replace("self.adjust_u()", "pass")
    for name in "uwb":
        body = body.replace(f"self.{name}", name)
    for number in ("3.1", "3.4"):
        assert verdict_of(number, text[:start] + body).verdict == "right"


def test_each_faulty_check_is_explained(verdict_of):
    gan = changed(right("vectorised", "gan"), "ogp", ".mean()", ".sum()")
    gan = changed(gan, "r1gp", ".sum(dim=1).mean()", ".sum(dim=1).mean() / 2")
    hint = verdict_of("2.2", gan).hint
    assert "the sum over the batch" in hint and "1/2" in hint, hint


def test_a_function_that_does_not_parse_takes_no_other_with_it(verdict_of):
    broken = changed(Q1, "log_mean_exp", "a = y.max(dim=1)[0]", "a = y.max(dim=1)[0")
    assert verdict_of("1.4", broken).verdict == "right"
    verdict = verdict_of("1.3", broken)
    assert (verdict.points, "is not Python" in verdict.hint) == (0, True), verdict


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("def f(:\n  pass\n", "there is no log_mean_exp"),
        ("", "there is no log_mean_exp"),
        (Q1.replace("def log_mean_exp", "def logmeanexp"), "there is no log_mean_exp"),
        ("this is a report, not a program\n", "there is no log_mean_exp"),
    ],
    ids=["no Python", "empty", "another name", "prose"],
)
def test_a_missing_function_is_called_missing(text, hint, verdict_of):
    verdict = verdict_of("1.3", text)
    assert (verdict.points, verdict.verdict) == (0, "missing"), verdict
    assert hint in verdict.hint


def test_nothing_outside_can_be_changed(verdict_of, tmp_path):
    """Neither by Python nor, where Landlock holds, by other programs."""
    victim = tmp_path / "q1_solution.py"
    victim.write_text("kept")
    attack = f"""
import os, shutil, subprocess
def attempt(function, *arguments):
    try:
        function(*arguments)
    except Exception:
        pass
attempt(lambda: open({str(victim)!r}, "w").write("changed"))
attempt(os.remove, {str(victim)!r})
attempt(shutil.rmtree, {str(tmp_path)!r})
attempt(os.rename, {str(victim)!r}, "here")
attempt(lambda: subprocess.run(["rm", "-rf", {str(tmp_path)!r}]))
attempt(os.system, "rm -rf {tmp_path}")
attempt(lambda: torch.save(torch.ones(1), {str(victim)!r}))
attempt(os.kill, os.getppid(), 9)
attempt(os.kill, {os.getpid()}, 15)
"""
    verdict = verdict_of("1.2", Q1 + attack)
    assert verdict.points == verdict.max, verdict
    assert victim.read_text() == "kept"


@pytest.mark.parametrize(
    "place", ["'..'", repr(str(ROOT)), "os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')"]
)
def test_our_answers_cannot_be_imported(place, verdict_of):
    start = f"import os, sys\nsys.path.insert(0, {place})\n"
    assert verdict_of("1.3", start + "import q1_solution as x\nlog_mean_exp = x.log_mean_exp\n").points == 0
    assert (
        verdict_of(
            "1.3", start + "import gan, grade.question1 as x\nlog_mean_exp = x.q1_solution.log_mean_exp\n"
        ).points
        == 0
    )


def test_python_holds_a_submission_where_the_kernel_does_not(tmp_path):
    """The audit hook alone, as on macOS and Windows."""
    work, project = tmp_path / "work", tmp_path / "project"
    work.mkdir()
    project.mkdir()
    (project / "gan.py").write_text("kept")
    script = f"""
import os, shutil, subprocess, sys
from pathlib import Path
from grade import confine
confine._landlock = lambda folders: 0
work, project = Path({str(work)!r}), Path({str(project)!r})
os.chdir(work)
confine.confine(work, project)
(work / "own.txt").write_text("allowed")
os.rename(work / "own.txt", work / "renamed.txt")
refused = [
    lambda: (project / "gan.py").write_text("changed"),
    lambda: (project / "gan.py").read_text(),
    lambda: os.remove(project / "gan.py"),
    lambda: os.rename(work / "renamed.txt", project / "gan.py"),
    lambda: os.symlink(project, work / "link") or (work / "link" / "gan.py").write_text("changed"),
    lambda: shutil.rmtree(project),
    lambda: subprocess.run([sys.executable, "-c", "pass"]),
    lambda: os.system("true"),
    lambda: os.kill(os.getppid(), 0),
]
for number, attempt in enumerate(refused):
    try:
        attempt()
    except OSError:
        continue
    sys.exit(f"attempt {{number}} was not refused")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (project / "gan.py").read_text() == "kept"
    assert (work / "renamed.txt").exists()


def test_a_daemon_left_behind_is_ended(verdict_of):
    text = Q1 + "\nimport os, time\nif os.fork() == 0:\n    time.sleep(1000)\n"
    assert verdict_of("1.2", text).verdict == "right"


def test_what_one_function_does_to_torch_stays_in_its_process(verdict_of):
    vandal = Q1 + "\ntorch.log = torch.exp\n"
    assert verdict_of("1.1", vandal).points == 0
    assert verdict_of("1.1", Q1).verdict == "right"


def test_an_endless_loop_leaves_the_other_cases(verdict_of):
    """The answers before it count: it hangs only for a batch of one."""
    text = changed(Q1, "log_mean_exp", "a = y.max", "while y.size(0) == 1: pass\n    a = y.max")
    verdict = verdict_of("1.3", text, 6)
    assert verdict.points == pytest.approx(0.85 * 2), verdict
    assert "no answer within" in verdict.hint


@pytest.mark.slow
@pytest.mark.parametrize("end", ["while True: pass", "import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"])
def test_what_ends_the_process_costs_its_own_question_alone(end, verdict_of):
    gan = changed(right("vectorised", "gan"), "w1", "return cp.mean() - cq.mean()", end)
    points = {number: verdict_of(number, gan, 6).points for number in ("2.1", "2.2", "2.3", "2.5")}
    assert points == {"2.1": 1.75, "2.2": 3, "2.3": 3, "2.5": 4.5}
