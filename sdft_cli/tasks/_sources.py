"""What the tasks with real sources share: reading JSON and JSONL files or folders, and naming every bad row.

A task lists its `Format`\\ s; a row goes to the first one whose ``matches`` is true, so formats are told apart by
content, never by file name. A parser raises `BadRow` for one bad row, which is dropped by name; a file in which no
row has a known format is refused whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft_cli.dataset import FILTERED, json_lines, parse_json, read_bytes
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Example, Message

SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One raw record: its ``data``, where it stood (``file:line`` or ``file[index]``) and that number."""

    data: dict[str, Any]
    where: str
    number: int


@dataclass(frozen=True)
class Found:
    """One example made of a raw record, and the split its source meant it for.

    ``role`` is "train", "test", or "pool" (the source leaves splitting to us). Rows that share one of their
    ``keys`` ask the same thing and so must share a split. ``held_out`` is what the record becomes in validation
    and test, where that differs from its training row.
    """

    example: Example
    role: str
    keys: tuple[str, ...]
    where: str
    held_out: Example | None = None


class BadRow(Exception):
    """This record cannot be used: why (counted) and a detail."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class LeftOut(BadRow):
    """This record is left out by design; it is counted apart from the bad ones."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(FILTERED + reason, detail)


@dataclass(frozen=True)
class Format:
    """One layout of raw records. ``parse`` makes examples of one record and may drop parts of it."""

    name: str
    licence: str
    matches: Callable[[dict[str, Any]], bool]
    parse: Callable[[Row], list[Found | Dropped]]


@dataclass
class Gathered:
    """Everything read from the sources of one task. ``formats`` maps each format met to its files."""

    found: list[Found] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    formats: dict[str, list[str]] = field(default_factory=dict)
    licences: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        return "; ".join(f"{name}: {', '.join(files)}" for name, files in self.formats.items())

    @property
    def licence(self) -> str:
        return "; ".join(dict.fromkeys(self.licences))


def gather(task: str, paths: list[Path], formats: tuple[Format, ...]) -> Gathered:
    """Read all files of ``paths``; `UsageError` for one that cannot be read or that holds no known format."""
    gathered = Gathered()
    for path in paths:
        for name, file in source_files(path):
            _gather_file(task, name, file, formats, gathered)
    if not gathered.found:
        first = f"; the first bad row is {gathered.dropped[0].where}" if gathered.dropped else ""
        raise UsageError(f"task {task!r}: no usable row in its sources{first}", _formats_hint(task, formats))
    return gathered


def source_files(path: Path) -> list[tuple[str, Path]]:
    """(name, file) of a source: the file itself, or all JSON and JSONL files below a folder in a fixed order.

    Names start at the given file or folder, so that nothing of this machine's layout gets into a manifest.
    """
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise UsageError(f"no source file or folder at {path}", "check the path after --source TASK=")
    files = sorted(f for f in path.rglob("*") if f.suffix in SUFFIXES and f.is_file())
    if not files:
        raise UsageError(f"{path} holds no .json or .jsonl file", "name the file, or the folder it lies in")
    top = path.name if path.name not in ("", "..") else path.resolve().name
    return [((Path(top) / f.relative_to(path)).as_posix(), f) for f in files]


def read_rows(name: str, file: Path) -> Iterator[Row | Dropped]:
    """Every record of one file, be it a JSON array, a single JSON object or JSONL; told by its content."""
    raw = read_bytes(file)
    whole = _whole_file(raw, file)
    entries: list[tuple[int, str, Any, Dropped | None]]
    if whole is not None:
        entries = [(i, f"{name}[{i}]", data, None) for i, data in enumerate(whole)]
    else:
        entries = [(line.number, f"{name}:{line.number}", line.data, line.bad) for line in json_lines(raw, name)]
    for number, where, data, bad in entries:
        if bad:
            yield bad
        elif not isinstance(data, dict):
            yield Dropped(where, "not a JSON object", type(data).__name__)
        else:
            yield Row(data, where, number)


def text(data: dict[str, Any], name: str, noun: str) -> str:
    """``data[name]``, which must be text that says something; ``noun`` is what it is to us."""
    if data.get(name) is None:
        raise BadRow(f"no {noun}", f"field {name!r} is {'null' if name in data else 'missing'}")
    if not isinstance(data[name], str):
        raise BadRow(f"{noun} is not text", f"field {name!r} is {type(data[name]).__name__}")
    if not data[name].strip():
        raise BadRow(f"empty {noun}", f"field {name!r}")
    return str(data[name])


def texts(data: dict[str, Any], name: str, noun: str) -> str:
    """Like `text`, but a list of texts is taken too and joined by newlines."""
    value = data.get(name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return text({name: "\n".join(value)}, name, noun)
    return text(data, name, noun)


def messages(data: dict[str, Any], name: str) -> list[Message]:
    """``data[name]`` as chat messages that end with a user's turn."""
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(m, dict) for m in value):
        raise BadRow("prompt is not a list of messages", f"field {name!r} is {type(value).__name__}")
    found = [{"role": text(m, "role", "role"), "content": text(m, "content", "prompt")} for m in value]
    roles = [m["role"] for m in found]
    if not set(roles) <= {"system", "user", "assistant"} or not roles or roles[-1] != "user":
        raise BadRow("prompt does not end with a user's turn", f"roles: {', '.join(roles) or 'none'}")
    return found


def user(content: str) -> list[Message]:
    """A prompt of one user message."""
    return [{"role": "user", "content": content}]


def prompt_key(content: str) -> str:
    """Two prompts with the same key are the same question; white space does not tell them apart (case may: SMILES)."""
    return " ".join(content.split())


def slug(name: str) -> str:
    """``name`` as part of an id: small letters, digits and hyphens."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-") or "x"


def _gather_file(task: str, name: str, file: Path, formats: tuple[Format, ...], into: Gathered) -> None:
    known, fields = False, set[str]()
    for row in read_rows(name, file):
        if isinstance(row, Dropped):
            into.dropped.append(row)
            continue
        match = next((f for f in formats if f.matches(row.data)), None)
        if match is None:
            fields |= set(row.data)
            into.dropped.append(Dropped(row.where, "unknown format", f"fields: {_some(row.data)}"))
            continue
        known = True
        if name not in into.formats.setdefault(match.name, []):
            into.formats[match.name].append(name)
            into.licences.append(match.licence)
        _parse_row(match, row, into)
    if not known:
        seen = f"its fields are: {_some(fields)}" if fields else "no line of it is a JSON object"
        raise UsageError(f"{file}: not a format that task {task!r} reads; {seen}", _formats_hint(task, formats))


def _parse_row(match: Format, row: Row, into: Gathered) -> None:
    try:
        for item in match.parse(row):
            if isinstance(item, Dropped):
                into.dropped.append(item)
            else:
                into.found.append(item)
    except BadRow as bad:
        into.dropped.append(Dropped(row.where, bad.reason, bad.detail))


def _whole_file(raw: bytes, file: Path) -> list[Any] | None:
    """The records of a file that is one JSON value; None for JSONL (also for one object on a single line)."""
    head = raw.lstrip()[:1]
    if head == b"{" and b"\n" not in raw.strip():
        return None
    if head not in (b"[", b"{"):
        return None
    try:
        data = parse_json(raw)
    except UnicodeDecodeError as error:
        if head == b"{":
            return None  # JSONL names the very line
        raise UsageError(f"{file} is not UTF-8 (byte {error.start + 1})", "save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        if head == b"{" or any(line.bad is None and isinstance(line.data, dict) for line in json_lines(raw, "")):
            return None  # JSONL, perhaps with a broken first line
        raise UsageError(f"{file} is not valid JSON: {error}", "the file may be cut off; fetch it again") from error
    return data if isinstance(data, list) else [data]


def _formats_hint(task: str, formats: tuple[Format, ...]) -> str:
    return f"{task} reads: {'; '.join(f.name for f in formats)}"


def _some(fields: dict[str, Any] | set[str]) -> str:
    names = sorted(fields)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
