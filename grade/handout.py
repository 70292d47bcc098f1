"""The hand-out: what students get, from the project's own modules, so that the two cannot drift apart."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from grade.verdict import Shares

ROOT = Path(__file__).resolve().parent.parent
GIVEN = Path(__file__).with_name("given")
# What students write.
GRADED = {
    "q1_solution": "log_likelihood_bernoulli log_likelihood_normal log_mean_exp kl_gaussian_gaussian_analytic "
    "kl_gaussian_gaussian_mc",
    "gan": "jsd w1 ogp r1gp make_losses apply_exponential_moving_average make_train_step",
    "solution": "planar_transformation get_logdet Flow.forward loss1 loss2",
}
# What they are given beside it, with all that it uses.
KEPT = {
    "gan": "AVAILABLE_LOSSES AVAILABLE_REGULARIZERS make_eval_step __main__",
    "solution": "PlanarTransformation Flow",
    "model": "Generator Critic",
    "dirac": "DiracGenerator DiracCritic",
    "data/densities": "density_arcs density_sine",
}
DROPPED = {"PlanarTransformation.inverse", "Flow.inverse", "Flow.planar"}
CONFIGURATIONS = """
import dataclasses, json, run_exp
print(json.dumps({name: dataclasses.asdict(values) for name, values in run_exp.CONFIGURATIONS.items()}))
"""
UNTIDY = {
    r"\n{3,}(?=    \S)": "\n\n",
    r"\n{4,}": "\n\n\n",
    r"^ *>>> .*\.(inverse|planar)\(.*\n.*\n": "",  # examples of methods that are dropped
    # The answers to questions 3.3 and 3.5.
    r"\|1 \+ u \\cdot \\psi\(x\)\|\\big\), .*": r"|\\det \\partial f(x) / \\partial x|\\big)",
    r"^ +By the matrix determinant lemma.*\n\n?": "",
    r"(?<=A chain of planar layers with its log-determinant\.\n)\n +\.\. math::.*\n(?: {8}.*\n)*": "",
    r"^ +Raises:\n( +ValueError:.*\n(?:^ {12}.*\n)*)+\n?": "",  # checks that no question asks for
}
NOT_IMPLEMENTED = "raise NotImplementedError"


def write(folder: Path, points: Shares) -> str:
    """Write the hand-out.

    Raises:
        ValueError: The folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty")
    (folder / "public_tests").mkdir(parents=True)
    for name in {**GRADED, **KEPT}:
        source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
        text = strip(source, GRADED.get(name, "").split(), KEPT.get(name, "").split())
        (folder / f"{Path(name).name}.py").write_text(text, encoding="utf-8")
    for name in ("arcs", "sine"):
        shutil.copyfile(ROOT / "data" / f"data_{name}.npy", folder / f"data_{name}.npy")
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n", encoding="utf-8")
    for path in sorted(GIVEN.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if path.stem.startswith("test_"):
            (folder / "public_tests" / f"{path.stem}.py").write_text(text, encoding="utf-8")
        elif path.stem == "run_exp":
            (folder / "run_exp.py").write_text(text.replace("CONFIGURATIONS = {}", _configurations()), encoding="utf-8")
        elif path.stem == "README":
            (folder / "README.md").write_text(_with_points(text, points), encoding="utf-8")
        else:
            (folder / f"{path.stem}.ipynb").write_text(json.dumps(notebook(text), indent=1) + "\n", encoding="utf-8")
    return f"{folder}: {len(list(folder.rglob('*.*')))} files; README.md has the questions"


def strip(source: str, graded: list[str], kept: list[str]) -> str:
    """A module of which functions are left to be written, and of the rest only what is named and what that uses."""
    tree, lines = ast.parse(source), source.splitlines()
    named = {name: node for node in tree.body for name in _names(node)}
    wanted, pending = set(), [*(name.split(".")[0] for name in graded), *kept]
    while pending:
        name = pending.pop()
        if name in named and name not in wanted:
            wanted.add(name)
            pending += [] if name in graded else _used(named[name])
            pending += [part.id for part in ast.walk(_signature(named[name])) if isinstance(part, ast.Name)]
    edits: list[tuple[int, int, list[str]]] = []  # first line, last line, what stands there instead
    for node in tree.body[1:]:
        names = _names(node)
        if not set(names) & wanted:
            edits.append((_first(node, lines), node.end_lineno or 0, []))
        elif isinstance(node, ast.FunctionDef) and node.name in graded:
            edits.append(_emptied(node))
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                label = f"{node.name}.{getattr(method, 'name', '')}"
                if label in DROPPED:
                    edits.append((_first(method, lines), method.end_lineno or 0, []))
                elif label in graded and isinstance(method, ast.FunctionDef):
                    edits.append(_emptied(method))
    for first, last, instead in sorted(edits, reverse=True):
        lines[first - 1 : last] = instead
    body = "\n".join(lines[tree.body[0].end_lineno :]).strip("\n")
    doc = (ast.get_docstring(tree) or "").split("\n\n")[0]
    imports = "\n".join(_imports(tree, body))
    text = f'"""{doc}"""\n\n{imports}\n\n\n{body}\n'
    for pattern, tidy in UNTIDY.items():
        text = re.sub(pattern, tidy, text, flags=re.MULTILINE)
    return text


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.If):
        return ["__main__"]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _used(node: ast.stmt) -> list[str]:
    """Names that a definition uses, but for methods that are dropped or left to be written."""
    if isinstance(node, ast.ClassDef):
        kept = [
            part for part in node.body if f"{node.name}.{getattr(part, 'name', '')}" not in DROPPED | {"Flow.forward"}
        ]
        return [name for part in kept for name in _used(part)]
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _signature(node: ast.stmt) -> ast.AST:
    """A function's arguments and annotations."""
    if not isinstance(node, ast.FunctionDef):
        return ast.Module([], [])
    return ast.FunctionDef("f", node.args, [ast.Pass()], [], node.returns)


def _first(node: ast.stmt, lines: list[str]) -> int:
    """A definition's first line, with decorators and the comment above."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first


def _emptied(node: ast.FunctionDef) -> tuple[int, int, list[str]]:
    """Everything after the docstring."""
    documented = ast.get_docstring(node) is not None
    after = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    return (after or 0) + 1, node.end_lineno or 0, [" " * (node.col_offset + 4) + NOT_IMPLEMENTED]


def _imports(tree: ast.Module, body: str) -> list[str]:
    """The imports that what is left uses, examples in docstrings included."""
    examples = "\n".join(line for line in body.splitlines() if line.lstrip().startswith((">>>", "...")))
    used = {part.id for part in ast.walk(ast.parse(body)) if isinstance(part, ast.Name)}
    used |= {"torch", *re.findall(r"\w+", examples)}
    found = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [alias for alias in node.names if (alias.asname or alias.name).split(".")[0] in used]
            if node.names:
                found.append(ast.unparse(node))
    return found


def _configurations() -> str:
    """The table of ``run_exp.py``, asked from the program itself."""
    done = subprocess.run([sys.executable, "-c", CONFIGURATIONS], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"run_exp.py does not tell its configurations: {done.stderr.strip().splitlines()[-1]}")
    fields = re.findall(
        r"^    (\w+): ", (GIVEN / "run_exp.txt").read_text(encoding="utf-8").split("class Management")[0], re.MULTILINE
    )
    table: dict[str, dict[str, Any]] = json.loads(done.stdout)
    rows = [
        f"    {name!r}: Hyperparameters({', '.join(f'{key}={_plain(values[key])!r}' for key in fields)}),"
        for name, values in table.items()
    ]
    return "\n".join(["CONFIGURATIONS = {", *rows, "}"])


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _with_points(text: str, points: Shares) -> str:
    worth = {number: shares["points"] for number, shares in points.items() if isinstance(shares, dict)}
    worth["total"] = sum(worth.values())
    return re.sub(r"\{(\d\.\d+|total)\}", lambda match: f"{worth[match[1]]:g}", text)


def notebook(text: str) -> dict[str, Any]:
    """A notebook from a text whose cells begin with ``# %%`` or, those of prose, ``# %% [markdown]``."""
    cells: list[dict[str, Any]] = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        lines = body.strip("\n").splitlines(keepends=True)
        if "[markdown]" in head:
            prose = [re.sub(r"^# ?", "", line) for line in lines]
            cells.append({"cell_type": "markdown", "metadata": {}, "source": prose})
        else:
            cells.append({"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
