"""Whole submissions from the command line: tables, JSON, CSV, and what is said of bad arguments."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grade.__main__ import main, names
from grade.submission import FILES
from tests.grade.conftest import STYLES, changed, right, zipped

ROOT = Path(__file__).parent.parent.parent
NUMBERS = ["1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2", "2.3", "2.4", "2.5", "3.1", "3.4", "3.6", "3.8"]
STARTER = '''
import torch
from torch import nn


def log_likelihood_bernoulli(mu, target):
    """What it returns."""
    batch_size = mu.size(0)
    mu = mu.view(batch_size, -1)
    return


def log_mean_exp(y):
    return None


def kl_gaussian_gaussian_analytic(mu_q, logvar_q, mu_p, logvar_p):
    pass
'''


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_right_submissions_get_everything(style, grade, lay_out):
    report = grade(lay_out(**{f"{file}.py": right(style, file) for file in FILES}), seconds=60)
    assert report.total == report.max == 34, report
    assert [question.number for question in report.questions] == NUMBERS
    assert {question.verdict for question in report.questions} == {"right"}


@pytest.mark.slow
def test_our_own_files_get_everything(tmp_path):
    """As a teaching assistant runs it: in the project, on the project."""
    out = tmp_path / "ours.json"
    command = [sys.executable, "-m", "grade", ".", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "34 of 34 points" in done.stdout
    record = json.loads(out.read_text())
    assert (record["total"], record["max"]) == (34, 34)
    assert not any(question["hint"] or question["notes"] for question in record["questions"]), record


def test_a_starter_is_not_attempted_and_every_question_is_there(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "alice" / "code"
    folder.mkdir(parents=True)
    (folder / "Q1_solution (2).py").write_text(STARTER)
    monkeypatch.chdir(tmp_path)
    assert main(["alice", "--json", "out.json", "--csv", "out.csv"]) == 0
    record = json.loads(Path("out.json").read_text())
    assert set(record) == {"submission", "total", "max", "questions"}
    assert (record["submission"], record["total"], record["max"]) == ("alice", 0, 34)
    by_number = {question["number"]: question for question in record["questions"]}
    assert [*by_number] == NUMBERS
    for question in by_number.values():
        assert {name: type(value) for name, value in question.items()} == {
            "number": str, "points": float, "max": float, "verdict": str, "hint": str, "notes": list,
        }  # fmt: skip
    assert {n: by_number[n]["verdict"] for n in ("1.1", "1.3", "1.4")} == dict.fromkeys(
        ["1.1", "1.3", "1.4"], "not attempted"
    )
    assert by_number["1.2"]["verdict"] == by_number["2.1"]["verdict"] == "missing"
    assert "not found: gan.py, solution.py" in capsys.readouterr().out
    with Path("out.csv").open() as file:
        assert [*csv.reader(file)] == [["submission", "total", *NUMBERS], ["alice", "0.0", *["0.0"] * 14]]


def test_lines_of_other_submissions_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        Path(name).mkdir()
    assert main(["alice", "bob", "--csv", "out.csv"]) == 0
    text = Path("out.csv").read_text()
    Path("out.csv").write_text(text.replace("alice,0.0", "alice,1.0").replace("bob,0.0", "bob,2.0"))
    assert main(["bob", "--csv", "out.csv"]) == 0
    assert [line.split(",")[:2] for line in Path("out.csv").read_text().splitlines()[1:]] == [
        ["alice", "1.0"],
        ["bob", "0.0"],
    ]
    Path("mine.csv").write_text("name,comment\nalice,kept\n")
    assert main(["bob", "--csv", "mine.csv"]) == 2
    assert Path("mine.csv").read_text() == "name,comment\nalice,kept\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice", "bob", "mine.csv", "out.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_is_one_line_and_keeps_what_was_graded(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "q1_solution.py").write_text("while True:\n    pass\n")
    out = tmp_path / "out.csv"
    command = [sys.executable, "-m", "grade", *(str(tmp_path / name) for name in "abc"), "--csv", str(out)]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of tests in the background, and inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "--seconds", "6"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not out.exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert out.read_text().splitlines()[1:][0].startswith("a,")


@pytest.mark.slow
def test_one_bad_submission_stops_no_other(tmp_path, lay_out, capsys):
    good = zipped(lay_out(), tmp_path / "good.zip", "some/where/")
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"not a zip")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.json"
    assert main([str(bad), str(good), str(tmp_path / "empty"), "--json", str(out), "--jobs", "2"]) == 0
    records = json.loads(out.read_text())
    assert [(r["submission"], r["total"]) for r in records] == [("bad.zip", 0), ("good.zip", 34), ("empty", 0)]
    assert "bad.zip cannot be unpacked" in records[0]["questions"][0]["hint"]
    assert all(len(record["questions"]) == 14 for record in records)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "3 submissions, 11.33 of 34 points on average; nothing to grade in bad.zip, empty"


@pytest.mark.slow
def test_one_fault_costs_once(grade, lay_out):
    """Each question is judged with our parts where it builds on a faulty one."""
    gan = right("loops", "gan").replace(
        "return torch.mean(cp) - torch.mean(cq)", "return torch.mean(cq) - torch.mean(cp)"
    )
    gan = gan.replace("- 1) ** 2", ") ** 2").replace("param.data.mul_(alpha)", "param.data.mul_(1 - alpha)")
    q1 = right("methods", "q1_solution").replace("-d / 2 * c - 0.5", "-d / 2 * c - 0.25")
    solution = right("methods", "solution").replace("x + self.u", "x - self.u")
    report = grade(lay_out(**{"gan.py": gan, "q1_solution.py": q1, "solution.py": solution}))
    lost = {
        question.number: question.max - question.points
        for question in report.questions
        if question.points < question.max
    }
    assert lost == {"1.2": 2, "2.1": 1.75, "2.2": 1.5, "2.4": 1, "3.1": 1}, report


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a submission"),
        (["nowhere.zip"], "there is no nowhere.zip"),
        ([".", "--seconds", "0"], "above 0"),
        ([".", "--jobs", "many"], "invalid int value"),
        ([".", "--points", "README.md"], "cannot be read"),
        ([".", "--json", "nowhere/out.json"], "there is no folder"),
        (["--handout", "tests"], "is not empty"),
        (["--no-such-flag"], "unrecognized arguments"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(arguments, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_other_points(tmp_path, monkeypatch, lay_out):
    """A file of points changes what a check is worth; one that does not add up is refused."""
    ours = (ROOT / "grade" / "points.toml").read_text()
    other = tmp_path / "points.toml"
    other.write_text(
        ours.replace("points = 2\nvalues = 0.45", "points = 4\nvalues = 0.45").replace(
            "other_shape = 0.5", "other_shape = 0.25"
        )
    )
    q1 = right("vectorised", "q1_solution").replace(
        "return torch.log(mean) + a", "return (torch.log(mean) + a).unsqueeze(1)"
    )
    folder = lay_out(**{"q1_solution.py": q1, "gan.py": None, "solution.py": None})
    out = tmp_path / "out.json"
    assert main([str(folder), "--points", str(other), "--json", str(out)]) == 0
    record = json.loads(out.read_text())
    (question,) = [question for question in record["questions"] if question["number"] == "1.3"]
    assert (question["points"], question["max"], record["max"]) == (1.0, 4.0, 36.0)
    other.write_text(ours.replace("values = 0.45", "values = 0.5"))
    assert main([str(folder), "--points", str(other)]) == 2


def test_without_fork_each_question_has_an_interpreter(sandbox, verdict_of, monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(sandbox, "forks", False)
    text = right("vectorised", "q1_solution")
    assert verdict_of("1.2", text).verdict == "right"
    assert verdict_of("1.2", text + "\nimport os\nos._exit(0)\n").verdict == "right"


@pytest.mark.skipif(sys.platform == "win32", reason="no server without fork")
def test_the_grader_goes_on_when_its_server_is_gone(sandbox, verdict_of):
    sandbox.server.kill()
    sandbox.server.wait()
    assert verdict_of("1.1", right("vectorised", "q1_solution")).verdict == "right"


def test_submissions_of_the_same_name_are_told_apart():
    assert names([[Path("a/code")], [Path("b/code")], [Path("c.zip")]]) == ["a/code", "b/code", "c.zip"]
    assert names([[Path("x/alice/gan.py"), Path("x/alice/solution.py")]]) == ["alice"]


def test_the_hint_is_of_the_question_itself(verdict_of):
    """Of a step with a fault of its own and another function's, its own is named; what stood in, a note says."""
    gan = right("vectorised", "gan").replace("return cp.mean() - cq.mean()", "return cp - cq")
    verdict = verdict_of("2.5", gan)
    assert (verdict.points, "in the place of" in " ".join(verdict.notes)) == (verdict.max, True), verdict
    gan = changed(gan, "make_train_step", "critic_optim.zero_grad()\n", "pass\n")
    assert "zero_grad" in verdict_of("2.5", gan).hint


def test_a_part_that_builds_on_one_not_attempted_is_judged(verdict_of):
    """The training step where the losses, the penalties and the average are still to be written."""
    gan = right("vectorised", "gan")
    for name in ("jsd", "w1", "ogp", "r1gp", "make_losses", "apply_exponential_moving_average"):
        gan = changed(gan, name, "", "raise NotImplementedError")
    assert verdict_of("2.5", gan).verdict == "right"
    assert verdict_of("2.3", gan).verdict == "not attempted"
    started = changed(gan, "make_train_step", "value.backward()", "raise NotImplementedError")
    started = started.replace("metric, critic_loss = make_losses(loss_type, reg_type, reg_cf)", "pass")
    assert verdict_of("2.5", started).points == 0


def test_single_files_are_one_submission(tmp_path, lay_out, capsys):
    folder = lay_out(**{"gan.py": None, "solution.py": None})
    shutil.copy(folder / "q1_solution.py", folder / "solution.py")
    assert main([str(folder / "q1_solution.py"), str(folder / "solution.py"), "--seconds", "5"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("points\n") == 1
    assert "10 of 34 points" in printed
