"""The process that runs a submission. A script of its own: it imports nothing of the project but its two neighbours.

It reads requests from its standard input, one JSON object a line, and forks a process for each; where there is no fork
it does one request itself (``once``). That process loads the submission's file, runs the request's scenario on each of
its cases, and writes lines of JSON to the answer's file: one for the file, one for each case.
"""

import ast
import builtins
import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

Json = dict[str, Any]
BUILTINS = [
    "abs",
    "bool",
    "dict",
    "float",
    "frozenset",
    "int",
    "len",
    "list",
    "max",
    "min",
    "range",
    "set",
    "str",
    "tuple",
]
# Kept from before the submission can change them.
_dumps, _write, _exit = json.dumps, os.write, os._exit
lines: dict[str, list[str]] = {}  # of the submission's file, which may delete it


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"grade_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Stalled(BaseException):
    """Importing the submission takes too long."""


def load(path: Path, name: str, whole: bool, seconds: float) -> tuple[ModuleType, str]:
    """The submission's module, and why it is not the whole file: empty where it is."""
    source = path.read_text(encoding="utf-8")
    lines[str(path)] = source.splitlines()
    why = "" if whole else "importing it ends the process or takes too long"
    if whole:
        module, alarm = _module(path, name), hasattr(signal, "SIGALRM")
        try:
            if alarm:
                signal.signal(signal.SIGALRM, _stall)
                signal.setitimer(signal.ITIMER_REAL, seconds)
            exec(compile(source, str(path), "exec"), module.__dict__)
            return module, ""
        except BaseException as error:
            why = "importing it takes too long" if isinstance(error, Stalled) else f"importing it fails: {say(error)}"
        finally:
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
    module = _module(path, name)
    for statement in _definitions(ast.parse(source).body):
        try:
            exec(compile(ast.Module([statement], []), str(path), "exec"), module.__dict__)
        except BaseException:  # what needs the missing part says so when it is called
            continue
    return module, why


def _module(path: Path, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    return module


def _stall(*_: object) -> None:
    raise Stalled


def _definitions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Imports, definitions and constants, one at a time; none that runs the submission's own functions."""
    known = {*BUILTINS, *(alias.split(".")[0] for statement in body for alias in _imported(statement))}
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:  # one that fails does not take the others with it
                yield _with_names(statement, alias)
        elif _harmless(statement, known):
            yield statement
        elif isinstance(statement, ast.If) and "__main__" not in ast.dump(statement.test):
            yield from _definitions(statement.body)


def _imported(statement: ast.stmt) -> list[str]:
    nodes = [node for node in ast.walk(statement) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [alias.asname or alias.name for node in nodes for alias in node.names]


def _harmless(statement: ast.stmt, known: set[str]) -> bool:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)):
        return True
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return all(_root(node.func) in known for node in ast.walk(statement) if isinstance(node, ast.Call))
    if isinstance(statement, ast.Try):
        inner = [
            *statement.body,
            *statement.orelse,
            *statement.finalbody,
            *(s for h in statement.handlers for s in h.body),
        ]
        return all(_harmless(part, known) for part in inner)
    return False


def _with_names(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.copy_location(ast.Import([alias]), statement)
    return ast.copy_location(ast.ImportFrom(statement.module, [alias], statement.level), statement)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Call)):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else ""


def stand_in(module: ModuleType, source: str, names: list[str]) -> None:
    """Put the reference's functions where the submission's are, also for those who kept the function itself."""
    reference = ModuleType("reference")
    exec(compile(source, "reference", "exec"), reference.__dict__)
    for name in names:
        theirs, ours = module.__dict__.get(name), getattr(reference, name)
        if isinstance(theirs, FunctionType) and not theirs.__code__.co_freevars and isinstance(ours, FunctionType):
            hidden = f"__reference_{name}"
            theirs.__globals__[hidden] = ours
            space: Json = {}
            exec(f"def {name}(*args, **kwargs): return {hidden}(*args, **kwargs)", space)
            theirs.__code__, theirs.__defaults__, theirs.__kwdefaults__ = space[name].__code__, None, None
        else:
            module.__dict__[name] = ours


def say(error: BaseException) -> str:
    """One line about an error."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def describe(error: BaseException, work: Path) -> Json:
    """An error, where it was raised, and whether the submission itself says that it is not implemented."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(work))]
    line = own[-1].lineno if own else None
    stated = isinstance(error, NotImplementedError) and bool(own) and frames[-1] is own[-1]
    text = lines.get(own[-1].filename, [])[(line or 1) - 1 : line] if own else []
    return {
        "error": say(error),
        "kind": type(error).__name__,
        "line": line,
        "not_implemented": stated and any(re.search(r"\braise\b", part) for part in text),
    }


def answer(request: Json) -> None:
    """Do what a request asks, in this process."""
    work = Path(request["work"])
    out = os.open(request["answer"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def tell(record: Json, dumps: Callable[[Any], str] = _dumps, write: Callable[[int, bytes], int] = _write) -> None:
        data = (dumps(record) + "\n").encode()
        while data:
            data = data[write(out, data) :]

    scenarios, confine = sys.modules["grade_scenarios"], sys.modules["grade_confine"]
    printed = os.open(request["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, printed), (2, os.open(os.devnull, os.O_WRONLY))):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(work)
    os.environ.update(HOME=str(work), TMPDIR=str(work), PWD=str(work))
    sys.path.insert(0, str(work))
    sys.argv = [request["file"]]
    debugger: Any = importlib.import_module("pdb")
    sys.breakpointhook = debugger.set_trace = lambda *_, **__: None
    builtins.input = _no_input
    confine.limit(request["seconds"])
    confine.confine(work, Path(request["project"]))
    module, why = load(work / f"{request['file']}.py", request["file"], request["whole"], request["import_seconds"])
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    _flush()
    if request["stand_in"]:
        stand_in(module, request["stand_in"]["source"], request["stand_in"]["names"])
    tell({"loaded": not why, "why": why})
    for number, case in enumerate(request["cases"]):
        started = time.perf_counter()
        torch.manual_seed(number)
        try:
            result = getattr(scenarios, request["scenario"])(module, scenarios.decode(case))
        except BaseException as error:
            result = describe(error, work)
        _flush()
        tell(result | {"seconds": time.perf_counter() - started})


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _no_input(*_: object) -> str:
    raise EOFError("there is nobody to answer input()")


def serve() -> None:
    """Fork a process for each request; say its number, and when it has ended, how."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                answer(json.loads(line))
            finally:
                _exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def main(arguments: list[str]) -> None:
    """``serve`` or ``once``, then packages to import beforehand, each only once for all questions."""
    torch.set_num_threads(1)
    for name in ("scenarios", "confine"):
        _neighbour(name)
    for package in arguments[1:]:
        try:
            importlib.import_module(package)
        except Exception:
            continue
    if arguments[0] == "serve":
        serve()
    else:
        answer(json.loads(sys.stdin.readline()))
        _exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
