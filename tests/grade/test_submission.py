"""Finding the graded files of a submission."""

import pytest

from grade.submission import SubmissionError, group, idle, open_submission, read
from tests.grade.conftest import zipped


def found(folder, tmp_path):
    submission = open_submission([folder], tmp_path)
    return {name: source.text.strip() for name, source in submission.sources.items()}


def write(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["q1_solution.py", "gan.py", "solution.py"], ["q1_solution.py", "gan.py", "solution.py"]),
        (["a/b/q1_solution (1).py", "Q2/gan(3).py", "q3/solution-1.py"], None),
        (["q1_solution (1).py", "q1_solution.py"], ["q1_solution.py"]),
        (["1_alice_q1_solution.py", "1_alice_gan.py", "1_alice_solution.py"], None),
        (["Q1_Solution.py", "Solution.PY"], None),
        (["old/gan.py", "gan.py"], ["gan.py"]),
        (["__MACOSX/._gan.py", "__MACOSX/gan.py", ".git/gan.py", "venv/gan.py"], []),
        (
            ["test_gan.py", "tests_solution.py", "cgan.py", "organ.py", "resolution.py", "gan.ipynb", "mysolution.py"],
            [],
        ),
    ],
)
def test_names(names, chosen, tmp_path):
    folder = tmp_path / "submission"
    write(folder, names)
    files = [f"# {name}" for name in (names if chosen is None else chosen)]
    assert [*found(folder, tmp_path).values()] == files
    archive = zipped(folder, tmp_path / "s.zip", "prefix/")
    assert [*found(archive, tmp_path / "scratch").values()] == files


def test_a_zip_cannot_write_elsewhere(tmp_path):
    write(tmp_path / "s", ["gan.py"])
    archive = zipped(tmp_path / "s", tmp_path / "s.zip", "../../../")
    assert [*open_submission([archive], tmp_path / "deep" / "scratch").sources] == ["gan"]
    assert not (tmp_path / "gan.py").exists()


def test_a_damaged_zip_is_an_error_of_one_line(tmp_path):
    archive = tmp_path / "s.zip"
    archive.write_bytes(b"PK\x03\x04 nothing more")
    with pytest.raises(SubmissionError, match=r"s\.zip cannot be unpacked"):
        open_submission([archive], tmp_path)


def test_groups(tmp_path):
    write(tmp_path, ["a/gan.py", "b/gan.py", "b/solution.py", "c.zip"])
    a, b, b2, c = (tmp_path / name for name in ("a/gan.py", "b/gan.py", "b/solution.py", "c.zip"))
    assert group([a, b, b2, tmp_path / "a", c]) == [[a], [b, b2], [tmp_path / "a"], [c]]


@pytest.mark.parametrize(
    ("body", "nothing"),
    [
        ("pass", True),
        ("'''What it does.'''", True),
        ("'''What.'''\n    raise NotImplementedError('write me')", True),
        ("for x in y:\n        pass\n    return None", True),
        ("...", True),
        ("return 0", False),
        ("raise ValueError", False),
        ("x = 1", False),
    ],
)
def test_idle(body, nothing, tmp_path):
    path = tmp_path / "gan.py"
    path.write_text(f"class A:\n    def f(self): pass\ndef jsd(y):\n    {body}\n")
    source = read(path)
    assert idle(source, ("jsd",)) is nothing
    assert idle(source, ("A.f",))
    assert not idle(source, ("w1", "A.g"))


def test_statements_that_are_python_are_kept(tmp_path):
    path = tmp_path / "gan.py"
    broken = "\n\n@f\ndef a():\n    return (1\n\n"
    rest = "X = '''\nab\n'''\n\ndef b():\n  return X\n\nif 1:\n    y = 2\nelse:\n    y = = 3\nprint 'x'\n"
    path.write_text("import math" + broken + rest)
    source = read(path)
    kinds = {getattr(node, "name", type(node).__name__) for node in source.tree.body}
    assert kinds == {"Import", "Assign", "b"}
    assert source.text.splitlines()[10] == "def b():"  # lines keep their numbers
    assert "never closed" in source.broken["a"]
