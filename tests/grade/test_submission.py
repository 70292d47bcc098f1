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
        (["old/gan.py", "a/b/q1_solution.py", "a/b/gan.py"], ["a/b/q1_solution.py", "a/b/gan.py"]),
        (["draft/solution.py", "final/src/solution.py"], ["final/src/solution.py"]),
        (
            ["code_backup/gan.py", "code_backup/solution.py", "code/gan.py", "code/solution.py"],
            ["code/gan.py", "code/solution.py"],
        ),
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


def test_a_zip_within_is_opened(tmp_path):
    """As Moodle lays it out: a folder for each student, with the zip that was handed in."""
    write(tmp_path / "s", ["hw3/gan.py", "hw3/report.pdf"])
    moodle = tmp_path / "03_carol"
    moodle.mkdir()
    zipped(tmp_path / "s", moodle / "carol_hw3.zip")
    (moodle / "broken.zip").write_bytes(b"PK nothing more")
    for path in (moodle, zipped(moodle, tmp_path / "class.zip")):
        submission = open_submission([path], tmp_path / f"scratch of {path.name}")
        assert [*submission.sources] == ["gan"]
        expected = "not found: q1_solution.py, solution.py; found: broken.zip, carol_hw3.zip, report.pdf"
        assert submission.lines[0] == expected
        assert submission.lines[1].startswith("broken.zip cannot be unpacked")


def test_what_is_there_is_named(tmp_path):
    folder = tmp_path / "s"
    write(folder, ["assignment3.py", "gan.ipynb", "old/hw3.tar.gz"])
    (line,) = open_submission([folder], tmp_path).lines
    assert line.startswith(
        "not found: q1_solution.py, gan.py, solution.py; found: assignment3.py, gan.ipynb, hw3.tar.gz"
    )
    assert line.endswith("(tar and rar archives are not read)")
    archives = [folder / "old" / "hw3.tar.gz", folder / "b.rar"]
    archives[1].touch()
    assert group(archives) == [[archive] for archive in archives]
    for archive in archives:
        with pytest.raises(SubmissionError, match="are not read"):
            open_submission([archive], tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [f"{student}/{file}" for student in ("adams", "brown") for file in ("gan.py", "solution.py", "q1_solution.py")],
        ["adamsjohn_4411_88231_gan.py", "browneve_LATE_4412_88232_gan.py"],
        ["adamsjohn_4411_88231_gan.py", "browneve_4412_88232_solution.py"],
    ],
)
def test_files_of_several_students_are_refused(names, tmp_path):
    folder = tmp_path / "section"
    write(folder, names)
    with pytest.raises(SubmissionError, match=r"several submissions \(adams.*, brown.*\)"):
        open_submission([folder], tmp_path)
    if "_" in names[0].split("/")[0]:
        with pytest.raises(SubmissionError, match="several submissions"):
            open_submission(sorted(folder.iterdir()), tmp_path)


def test_an_older_copy_elsewhere_is_no_other_student(tmp_path):
    folder = tmp_path / "s"
    write(folder, ["gan.py", "solution.py", "old/gan.py", "old/solution.py", "q1/gan.py"])
    assert found(folder, tmp_path) == {"gan": "# gan.py", "solution": "# solution.py"}
