"""Finds the graded files of a submission, wherever they lie in it and whatever a browser made of their names."""

import ast
import itertools
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FILES = ("q1_solution", "gan", "solution")
SKIPPED = {"__MACOSX", "__pycache__", "site-packages", "node_modules", "venv", "env"}
LARGEST = 200 << 20  # bytes that a zip may unpack to, and that neighbours of a graded file may have
MOST = 2000  # files beside a graded one that a child gets
# Folders of old copies, or of what was handed out.
ASIDE = re.compile(r"(?i)(^|[^a-z])(old|backup|bak|draft|copy|starter|original|template|handout|previous)s?($|[^a-z])")
ARCHIVES = {".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z"}  # that are not read


class SubmissionError(Exception):
    """The submission cannot be read."""


@dataclass
class Source:
    """One graded file, made readable: text in UTF-8 without notebook commands or blocks that do not parse."""

    path: Path
    text: str
    notes: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)  # definitions that do not parse, and why

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


@dataclass
class Submission:
    """The graded files that were found, by their proper names."""

    sources: dict[str, Source]
    neighbours: dict[str, dict[str, Path]]  # for each graded file, other Python files that it may import
    lines: list[str] = field(default_factory=list)  # what was not found, and what is there


def group(arguments: list[Path]) -> list[list[Path]]:
    """The submissions on a command line: each folder and zip is one, single files of the same folder are one."""
    groups: dict[Path, list[Path]] = {}
    for path in arguments:
        single = path.is_file() and path.suffix.lower() not in {".zip", *ARCHIVES}
        groups.setdefault(path.resolve().parent / "*" if single else path, []).append(path)
    return list(groups.values())


def open_submission(paths: list[Path], scratch: Path) -> Submission:
    """Read a submission; a zip is unpacked in ``scratch``.

    Raises:
        SubmissionError: Nothing can be read.
    """
    first = paths[0]
    root: Path | None = first
    names: list[str] = []
    if first.suffix.lower() in ARCHIVES and first.is_file():
        raise SubmissionError(f"{first.name}: tar and rar archives are not read, unpack it first")
    if first.suffix.lower() == ".zip" and first.is_file():
        root = scratch / "unpacked"
        names = _unpack(first, root)
    elif not first.is_dir():
        root = None
    files = paths if root is None else sorted(_files(root), key=lambda path: (len(path.parts), str(path)))
    names = names or [path.name for path in files]
    candidates, unread = [path for path in files if path.suffix.lower() == ".py"], []
    if not all(any(_rank(path, name) is not None for path in candidates) for name in FILES):
        for number, archive in enumerate(path for path in files if root and path.suffix.lower() == ".zip"):
            inner = scratch / f"inner{number}"
            try:
                names += _unpack(archive, inner)
            except SubmissionError as error:
                unread.append(str(error))
            candidates += sorted(path for path in _files(inner) if path.suffix.lower() == ".py")
    fitting = {name: [path for path in candidates if _rank(path, name) is not None] for name in FILES}
    base = root if root else scratch
    _refuse_several([[path for path in paths if not _aside(path, base)] for paths in fitting.values()])
    company = Counter(path.parent for paths in fitting.values() for path in paths)
    found = {
        name: sorted(paths, key=lambda path: (_aside(path, base), -company[path.parent], _rank(path, name)))
        for name, paths in fitting.items()
    }
    sources, neighbours = {}, {}
    for name, ranked in found.items():
        if not ranked:
            continue
        path = ranked[0]
        sources[name] = read(path)
        rivals = [p for p in ranked[1:] if _aside(p, base) or p.parent == path.parent or company[p.parent] > 1]
        if rivals:
            one, *others = (str(Path(candidate.parent.name, candidate.name)) for candidate in (path, *rivals))
            sources[name].notes.append(f"{one} is graded, not {', '.join(others)}")
        beside = candidates if root is None else [c for c in candidates if c.is_relative_to(path.parent)]
        neighbours[name] = {
            str(other.name if root is None else other.relative_to(path.parent)): other
            for other in beside
            if other != path
        }
    return Submission(sources, neighbours, [*_missing(sources, names), *unread])


def _missing(sources: dict[str, Source], names: list[str]) -> list[str]:
    """A line on what was not found, with what is there instead."""
    missing = [f"{name}.py" for name in FILES if name not in sources]
    if not missing:
        return []
    others = sorted(set(names) - {source.path.name for source in sources.values()})
    there = f"; found: {', '.join(others[:8])}{', ...' * (len(others) > 8)}" if others else ""
    packed = any(Path(name).suffix.lower() in ARCHIVES for name in names)
    return [f"not found: {', '.join(missing)}{there}{' (tar and rar archives are not read)' * packed}"]


def _refuse_several(candidates: list[list[Path]]) -> None:
    """Refuse files of several students: in folders of their own, or with names that begin with their owner's.

    Raises:
        SubmissionError: Two folders beside each other have two of the graded files each, or names as Canvas exports
            them, ``owner_1234_5678_gan.py``, begin with different owners.
    """
    exported = [re.match(r"(?i)(.+?)_(?:late_)?\d+_\d+_", path.name) for paths in candidates for path in paths]
    owners = sorted({match[1] for match in exported if match})
    if len(owners) > 1:
        raise SubmissionError(_several(*owners))
    doubled = set()
    for paths in candidates:
        folders = {path.parent for path in paths}
        for one, other in itertools.combinations(sorted(folders), 2):
            if len(one.parts) == len(other.parts):
                if (one, other) in doubled:
                    raise SubmissionError(_several(one.name, other.name))
                doubled.add((one, other))


def _several(one: str, other: str, *_: str) -> str:
    return (
        f"files of several submissions ({one}, {other}): put each into a folder of its own, and name all: submissions/*"
    )


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that may be part of a submission."""
    total, count = 0, 0
    pending = [folder]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.name.startswith(".") or path.name in SKIPPED or path.is_symlink():
                continue
            if path.is_dir():
                pending.insert(0, path)
            elif path.is_file():
                python = path.suffix.lower() == ".py"
                total, count = total + path.stat().st_size * python, count + python
                if count > MOST or total > LARGEST:
                    return
                yield path


def _aside(path: Path, base: Path) -> bool:
    """Whether a file lies in a folder below ``base`` that is named like an old copy or the hand-out."""
    return path.is_relative_to(base) and any(ASIDE.search(folder) for folder in path.relative_to(base).parts[:-1])


def _rank(path: Path, name: str) -> int | None:
    """How well a file's name fits: 0 is the name itself, 1 a copy of it, 2 one with a prefix; None is another."""
    stem = path.stem.lower()
    if path.suffix.lower() != ".py" or re.match(r"tests?[_\W]", stem):
        return None
    if stem == name:
        return 0
    copy = r"[\s_.-]*(\(\d+\)|copy|\d+|v\d+|final)?[\s_.-]*(\(\d+\))?"
    if re.fullmatch(re.escape(name) + copy, stem):
        return 1
    before = r".*[^a-z0-9]" if name != "solution" else r"(?!.*q1[\s_-]*solution).*[^a-z0-9]"
    return 2 if re.fullmatch(before + re.escape(name) + copy, stem) else None


def _unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack Python files and zips within; return the names of all files."""
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not stat.S_ISLNK(m.external_attr >> 16)]
            if sum(member.file_size for member in members) > LARGEST:
                raise SubmissionError(f"{archive.name} unpacks to more than {LARGEST >> 20} MB")
            for member in members:
                if member.filename.lower().endswith((".py", ".zip")):
                    opened.extract(member, folder)
            names = [Path(member.filename).name for member in members if not member.is_dir()]
            return [name for name in names if not name.startswith(".")]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise SubmissionError(f"{archive.name} cannot be unpacked: {error}") from error


def read(path: Path) -> Source:
    """A file's text, with what keeps it from being Python taken out and named in the notes."""
    data = path.read_bytes()
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            text = data.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        text = data.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    text = re.sub(r"\A((?:#.*\n)?)[ \t]*#.*coding[:=].*", r"\1#", text)  # it is UTF-8 from here on
    source = Source(path, text if text.endswith("\n") else text + "\n")
    if _fault(source.text):
        cleaned = re.sub(r"^([ \t]*)([%!?].*)$", r"\1pass  # \2", source.text, flags=re.MULTILINE)
        if cleaned != source.text:
            source.notes.append("notebook commands (% or !) are left out")
            source.text = cleaned
    if _fault(source.text):
        _salvage(source)
    return source


def _fault(text: str) -> SyntaxError | None:
    try:
        compile(text, "file", "exec")
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error))
    return None


def _salvage(source: Source) -> None:
    """Keep the statements that are Python, one by one; a statement begins in the first column."""
    lines = source.text.split("\n")
    goes_on = re.compile(r"[\s#)\]}]|(else|elif|except|finally)\b|$")
    starts = [number for number, line in enumerate(lines) if not goes_on.match(line)] + [len(lines)]
    number = 0
    while number < len(starts) - 1:
        first = starts[number]
        # A decorator, or a string over several lines, is whole only with what follows.
        ends = starts[number + 1 : number + 31]
        length = next((n for n, end in enumerate(ends, 1) if not _fault("\n".join(lines[first:end]))), 0)
        if not length:
            error = _fault("\n".join(lines[first : ends[0]]))
            assert error
            line = first + (error.lineno or 1)
            name = re.match(r"(?:async )?(?:def|class)\s+(\w+)", lines[first])
            source.broken[name[1] if name else f"line {line}"] = f"line {line} is not Python ({error.msg})"
            lines[first : ends[0]] = [""] * (ends[0] - first)
        number += length or 1
    whys = list(source.broken.values())
    more = f" and {len(whys) - 1} more" if len(whys) > 1 else ""
    source.notes.append(f"{whys[0] if whys else 'the file is not Python'}{more}: what it stands in is left out")
    source.text = "\n".join(lines)
    if _fault(source.text):
        source.text = "\n"


def idle(source: Source, names: tuple[str, ...]) -> bool:
    """Whether all of the functions, or methods ``Class.name``, that are there do nothing."""
    bodies = [body for name in names if (body := _body(source.tree.body, name.split("."))) is not None]
    return bool(bodies) and all(_idle(node) for body in bodies for node in body)


def _body(nodes: list[ast.stmt], path: list[str]) -> list[ast.stmt] | None:
    for part in path:
        found = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == part]
        if not found:
            return None
        nodes = found[-1].body
    return nodes


def _idle(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Pass, ast.Expr)):
        return isinstance(node, ast.Pass) or isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Return):
        return node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
    if isinstance(node, ast.Raise):
        return node.exc is not None and "NotImplementedError" in ast.unparse(node.exc)
    if isinstance(node, (ast.For, ast.With)):
        return all(_idle(part) for part in node.body)
    return False
