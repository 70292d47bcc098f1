"""What the README and its neighbours say can be done: commands parse, files and anchors exist, code runs."""

import importlib
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import run_exp
from experiments.__main__ import chosen, listed
from experiments.options import Options
from lab import options

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PROGRAMS = ("python", "pytest", "make", "jupyter", "tensorboard", "ruff", "mypy")  # as commands begin
# Files that are named and that programs or readers make.
MADE = re.compile(
    r"(config|result|metrics)\.jsonl?|checkpoint(\.previous)?\.pt|log\.txt|generator\.pt|report\.(pdf|html)|colab\.zip|NAME\.(npz|json)|datasets/.*|results/NAME\.json"
    r"|runs/.*|\.venv.*|binarized_mnist.*|.*\{.*|stacked_flows\.py"
)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fenced(text: str, language: str) -> list[str]:
    """The blocks of a language; without a name, those of commands and of plain text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in blocks if name == language]


def spans(text: str) -> list[str]:
    """Code within the lines."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def first_word(command: str) -> str:
    words = [word for word in command.split() if not re.fullmatch(r"[A-Z]+=\S*", word)]
    return Path(words[0]).name if words else ""


def commands(text: str) -> list[str]:
    """Every command of a page, without its comment."""
    lines = [line for block in fenced(text, "") for line in block.splitlines()] + spans(text)
    parts = [part.strip() for line in lines for part in line.split("  #")[0].split(";")[0].split("&&")]
    return list(dict.fromkeys(part for part in parts if first_word(part) in PROGRAMS and " " in part))


COMMANDS = list(dict.fromkeys(command for name in PAGES for command in commands(page(name))))


def existing(path: str) -> None:
    assert (ROOT / path).exists(), f"there is no {path}"


def parse_python(words: list[str]) -> None:
    """Parse the arguments of a program of the project by its own dataclass."""
    name, arguments = (words[1], words[2:]) if words[0] == "-m" else (words[0].removesuffix(".py"), words[1:])
    if words[0] != "-m":
        existing(words[0])
    if arguments == ["--help"]:
        return
    if name == "pytest":
        parse_pytest(arguments)
    elif name in ("gan", "venv"):
        assert arguments == ([] if name == "gan" else [".venv"])
    elif name == "run_exp":
        asked = options.parse_all("", arguments, run_exp.GROUPS, typed=["changed"])
        if asked.request.config:
            assert run_exp.plan(asked.request.config, asked.request.seed, **asked.changed)
        assert asked.request.config or asked.request.list or asked.request.summary
    elif name == "grade":
        importlib.import_module("grade.__main__").parser().parse_args(arguments)
    elif name == "experiments":
        assert chosen(options.parse(Options, "", [each.replace("NAME", "vae") for each in arguments]), listed())
    else:
        mains = {"report": "report.build", "pretrained": "pretrained.__main__"}
        name = mains.get(name, name)
        module = importlib.import_module(name)
        options.parse(getattr(module, "Hyperparameters", None) or module.Options, "", arguments)


def parse_pytest(words: list[str]) -> None:
    for word in words:
        if word.startswith("tests/"):
            existing(word)


def parse_make(words: list[str]) -> None:
    """A dry run of make knows every target, and the programs that it would start take their flags."""
    if shutil.which("make") is None:
        pytest.skip("no make here")
    done = subprocess.run(["make", "-n", *words, "-o", ".venv/installed"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if "bin/python -m" in line and " -c " not in line:
            run = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z]+=\S*", word)][1:]
            if "--runs" in run:  # which need not be there before it has run
                del run[run.index("--runs") : run.index("--runs") + 2]
                run = [word for word in run if word != "--publish"]
            parse_python(run)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z]+=\S*", word)]
    variables = [word for word in shlex.split(command) if word not in words]
    program, arguments = Path(words[0]).name, words[1:]
    if program in ("python", "pytest"):
        (parse_python if program == "python" else parse_pytest)(arguments)
    elif program == "make":
        parse_make(arguments + variables)
    elif program == "jupyter":
        assert arguments[0] == "lab"
        existing(arguments[1])
    elif program == "tensorboard":
        assert arguments == ["--logdir", "runs"]
    else:
        assert f"\n{program}>=" in page("requirements-dev.txt")


def test_a_wrong_flag_is_noticed():
    assert len(COMMANDS) > 20
    for wrong in ("vae.py --epoch_count 3", "run_exp.py --config none-*", "-m experiments --only none", "absent.py"):
        with pytest.raises((SystemExit, AssertionError, ValueError)):
            parse_python(wrong.split())
    with pytest.raises(AssertionError):
        parse_make(["no-such-target"])


@pytest.mark.parametrize("name", PAGES)
def test_named_files_exist(name):
    for span in spans(page(name)):
        if re.fullmatch(r"[\w.{}*-]+(/[\w.{}*-]+)*/?", span) and (re.search(r"\.[a-z]{2,5}$", span) or span[-1] == "/"):
            known = MADE.fullmatch(span) or (ROOT / span).exists() or re.fullmatch(r"(torch|data|lab)\.[a-z_.]+", span)
            assert known, f"{name} names {span}"


def test_the_tree_of_files_is_the_project():
    tree = next(block for block in fenced(page("CONTRIBUTING.md"), "") if "q1_solution.py" in block)
    for entry in re.findall(r"(?<![\w.])([\w/]+(?:\.py|\.ipynb|/))(?=\s)", tree):
        existing(entry)
    shown = set(re.findall(r"\w+\.py|\w+\.ipynb", tree))
    assert shown >= {path.name for pattern in ("*.py", "*.ipynb") for path in ROOT.glob(pattern)}
    folders = {line.split("/")[0] for line in tree.splitlines() if re.match(r"\w+/", line)}
    assert folders == {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests"}


def anchors(text: str) -> set[str]:
    """The headings' names, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = re.sub(r"^```.*?^```", "", page(name), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), target
        else:
            existing(parts.path or name)
            assert not parts.fragment or parts.fragment in anchors(page(parts.path or name)), target


def test_versions_agree():
    version = tomllib.loads(page("pyproject.toml"))["project"]["version"]
    assert f'version: "{version}"' in page("CITATION.cff")
    assert f"## {version}\n" in page("CHANGELOG.md")


def test_the_profiles_take_the_minutes_that_the_readme_says():
    known = listed().values()
    text = page("README.md")
    for profile, said in {
        "assignment": re.search(r"^make report +# .*about (\d+) minutes", text, re.MULTILINE),
        "quick": re.search(r"PROFILE=quick` .*?\((\d+) minutes\)", text),
    }.items():
        assert int(said[1]) - 2 < sum(one.minutes.get(profile, 0) for one in known) <= int(said[1]), profile


def test_the_code_that_packs_published_files_runs(tmp_path, monkeypatch):
    block = next(block for block in fenced(page("README.md"), "python") if "binarized_mnist" in block)
    monkeypatch.chdir(tmp_path)
    Path("datasets").mkdir()
    for number, split in enumerate(("train", "valid", "test")):
        row = " ".join(str(int(pixel % 3 == number)) for pixel in range(784))
        Path(f"binarized_mnist_{split}.amat").write_text(f"{row}\n{row}\n")
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    packed = names["np"].load("datasets/binarized_mnist.npz")
    assert {split: array.shape for split, array in packed.items()} == dict.fromkeys(("train", "valid", "test"), (2, 98))
