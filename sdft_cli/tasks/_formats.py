"""What the tasks with real sources share: records by format, texts out of their fields, and a name for every bad row.

A task lists its `Format`\\ s; a row goes to the first one whose ``matches`` is true, so formats are told apart by
content, never by file name. A parser raises `BadRow` for one bad row, which is dropped by name; a file in which no
row has a known format is refused whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft_cli.data.dataset import FILTERED, describe
from sdft_cli.data.readers import SUFFIXES, RawRow, read_rows, source_files
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Example, Message


@dataclass(frozen=True, slots=True)
class Found:
    """One example made of a raw record, and the split its source meant it for.

    ``role`` is a split, or "pool" (the source leaves splitting to us). Rows that share one of their ``keys`` ask the
    same thing and so must share a split; a corpus row has none. ``held_out`` is what the record becomes in validation
    and test, where that differs from its training row.
    """

    example: Example
    role: str
    keys: tuple[bytes, ...]
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
    parse: Callable[[RawRow], list[Found | Dropped]]


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


def gather(task: str, paths: list[Path], formats: tuple[Format, ...], more: tuple[str, ...] = ()) -> Gathered:
    """Read all files of ``paths``; `UsageError` for one that cannot be read or that holds no known format.

    ``more`` are suffixes of files that are read in folders beside the usual ones.
    """
    gathered = Gathered()
    for path in paths:
        for name, file in source_files(path, (*SUFFIXES, *more)):
            gather_file(task, name, file, formats, gathered)
    need_rows(task, gathered, formats)
    return gathered


def need_rows(task: str, gathered: Gathered, formats: tuple[Format, ...]) -> None:
    """`UsageError` where nothing was found in any file."""
    if not gathered.found:
        first = f"; the first bad row is {describe(gathered.dropped[0])}" if gathered.dropped else ""
        raise UsageError(f"task {task!r}: no usable row in its sources{first}", _formats_hint(task, formats))


def gather_file(
    task: str, name: str, file: Path, formats: tuple[Format, ...], into: Gathered, delimiter: str | None = None
) -> None:
    """Everything in one file, which is called ``name``; `UsageError` where it holds no known format."""
    known, fields, before = False, set[str](), len(into.dropped)
    for row in read_rows(name, file, delimiter):
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
        first = f" ({describe(into.dropped[before])})" if into.dropped[before:] and not fields else ""
        raise UsageError(f"{file}: not a format that task {task!r} reads; {seen}{first}", _formats_hint(task, formats))


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


def prompt_key(content: str) -> bytes:
    """Two prompts with the same key are the same question; white space does not tell them apart (case may: SMILES)."""
    return hashlib.blake2b(" ".join(content.split()).encode(), digest_size=16).digest()


def slug(name: str) -> str:
    """``name`` as part of an id: small letters, digits and hyphens."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-") or "x"


def _parse_row(match: Format, row: RawRow, into: Gathered) -> None:
    try:
        for item in match.parse(row):
            if isinstance(item, Dropped):
                into.dropped.append(item)
            else:
                into.found.append(item)
    except BadRow as bad:
        into.dropped.append(Dropped(row.where, bad.reason, bad.detail))


def _formats_hint(task: str, formats: tuple[Format, ...]) -> str:
    return f"{task} reads: {'; '.join(f.name for f in formats)}"


def _some(fields: dict[str, Any] | set[str]) -> str:
    names = sorted(fields)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
