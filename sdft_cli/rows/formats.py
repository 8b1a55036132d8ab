"""Formats of source files: which records a task reads, how they become examples, and a reason for every bad one.

A task lists its `Format`\\ s. A record goes to the first one whose ``matches`` is true, so formats are recognized by
content, never by file name. A parser raises `BadRow` for a bad record, which is then dropped and listed; a file in
which no record has a known format is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from sdft_cli.data import words
from sdft_cli.data.dataset import FILTERED, describe, is_filtered
from sdft_cli.data.readers import NotRead, RawRow, read_rows
from sdft_cli.data.source_files import SUFFIXES, SourceFile, source_files, suffix, unpacked_name
from sdft_cli.data.split_names import Ambiguous
from sdft_cli.data.streams import opened
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Example, Json, Message

NO_OBJECTS = "no line of it is a JSON object"
#: A raw record of a source: its fields by name.
Record = dict[str, Json]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One example made from a raw record, and the split its source put it in.

    ``role`` is a split, or "pool" if the source leaves the split to us. Rows with a common key in ``keys`` ask the same
    question and must end up in the same split; a corpus row has no keys. ``held_out`` is the example for validation and
    test, if it differs from the one for training. ``reading`` is what a user's record says, until all rows together
    have decided what becomes of it (`rows.finished_rows`).
    """

    example: Example
    role: str
    keys: tuple[bytes, ...]
    where: str
    held_out: Example | None = None
    reading: Any = None


class BadRow(Exception):
    """This record cannot be used: the reason (counted) and a detail."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class LeftOut(BadRow):
    """This record is left out by design; it is counted apart from the bad ones."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(FILTERED + reason, detail)


@dataclass(frozen=True)
class Format:
    """One layout of raw records. ``parse`` makes examples from one record, and may drop parts of it."""

    name: str
    licence: str
    matches: Callable[[Record], bool]
    parse: Callable[[RawRow], list[SourceRow | Dropped]]


@dataclass
class Gathered:
    """Everything read from the sources of one task. ``formats`` maps each format that occurred to its files; ``files``
    has a record for every file (`data.manifest.SourceFile`)."""

    rows: list[SourceRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    formats: dict[str, list[str]] = field(default_factory=dict)
    licences: list[str] = field(default_factory=list)
    files: list[dict[str, Json]] = field(default_factory=list)
    digests: dict[tuple[str | Ambiguous | None, str], str] = field(default_factory=dict)  # -> the first such file

    @property
    def source(self) -> str:
        return "; ".join(f"{name}: {', '.join(files)}" for name, files in self.formats.items())

    @property
    def left_out(self) -> list[str]:
        """The files that were not read, with the reasons."""
        return [f"{record['file']} ({record['left_out']})" for record in self.files if "left_out" in record]

    @property
    def licence(self) -> str:
        return "; ".join(dict.fromkeys(self.licences))


def gather(task: str, paths: list[Path], formats: tuple[Format, ...], suffixes: tuple[str, ...] = ()) -> Gathered:
    """Read all files of ``paths``; `UsageError` for one that cannot be read or has no record of a known format.

    ``suffixes`` are those of files that are read from folders besides the usual ones.
    """
    gathered = Gathered()
    for source in source_files(paths, (*SUFFIXES, *suffixes)):
        gather_file(task, source, formats, gathered)
    need_rows(task, gathered, formats)
    return gathered


def need_rows(task: str, gathered: Gathered, formats: tuple[Format, ...]) -> None:
    """`UsageError` if there is no usable row in any file."""
    if not gathered.rows:
        dropped = gathered.dropped[:1]
        first = "".join(f"; the first that is left out is {describe(row).replace(FILTERED, '')}" for row in dropped)
        first = first or "".join(f"; left out: {file}" for file in gathered.left_out[:1])
        raise UsageError(f"task {task!r}: no usable row in its sources{first}", _formats_hint(task, formats))


def gather_file(
    task: str,
    source: SourceFile,
    formats: tuple[Format, ...],
    into: Gathered,
    delimiter: str | None = None,
    sheet: str | None = None,
) -> None:
    """Add all rows of one file, and a record of it.

    `UsageError` if no record has a known format; but a JSON file of a folder that holds no rows at all (settings, the
    names of labels) is left out by name, and so is a second copy of a file.
    """
    digest = "" if source.left_out else _digest(source.path)
    if why := source.left_out or _copy_of(source, digest, into):
        into.files.append({"file": source.name, "left_out": why})
        return
    before, rows = len(into.dropped), len(into.rows)
    read = _Read(source)
    for item in read_rows(source.name, source.path, delimiter, sheet):
        if isinstance(item, NotRead):
            read.parts.append({"file": item.name, "left_out": item.why})
        elif isinstance(item, Dropped):
            into.dropped.append(item)
        else:
            _gather_row(item, formats, into, read)
    if not read.recognized:
        if not read.may_be_settings:
            raise _unknown(task, source, formats, read.fields, into.dropped[before:])
        del into.dropped[before:]
        into.files.append({"file": source.name, "left_out": f"no rows; {_content_of(read.fields)}"})
        return
    split = {"split": source.split} if isinstance(source.split, str) else {}
    count = len(into.rows) - rows
    into.files += [{"file": source.name, "sha256": digest, "rows": count, **split}, *read.parts]
    into.digests.setdefault((source.split, digest), source.name)


class _Read:
    """What has been seen of a file while it is read."""

    def __init__(self, source: SourceFile):
        self.source, self.recognized, self.records = source, False, 0
        self.fields: set[str] = set()
        self.parts: list[dict[str, Json]] = []

    def unknown(self, row: RawRow) -> None:
        self.fields |= set(row.data)
        # records in a list or one a line are data; those that were made of the parts of one object may be anything
        self.records += row.where in (f"{self.source.name}:{row.number}", f"{self.source.name}[{row.number}]")

    @property
    def may_be_settings(self) -> bool:
        return not self.source.given and self.records < 2 and suffix(self.source.name) == ".json"


def _gather_row(row: RawRow, formats: tuple[Format, ...], into: Gathered, read: _Read) -> None:
    match = next((f for f in formats if f.matches(row.data)), None)
    if match is None:
        read.unknown(row)
        into.dropped.append(Dropped(row.where, "unknown format", f"fields: {_list_some(row.data)}"))
        return
    read.recognized = True
    if read.source.name not in into.formats.setdefault(match.name, []):
        into.formats[match.name].append(read.source.name)
        into.licences.append(match.licence)
    _parse_row(match, row, into)


def _copy_of(source: SourceFile, digest: str, into: Gathered) -> str | None:
    """Which file of the same split one of a folder is a copy of, perhaps packed; None if it is none, or was given by
    itself."""
    if source.given or not into.files:
        return None
    found = into.digests.get((source.split, digest))
    unpacked = unpacked_name(source.name)
    if not found and unpacked != source.name and unpacked in into.digests.values():
        with opened(source.path) as stream:
            content = hashlib.file_digest(cast(BufferedReader, stream), "sha256").hexdigest()
        found = into.digests.get((source.split, content))
        found = found if found == unpacked else None
    return found and f"a copy of {found}"


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "change its permissions, or copy it again") from error


def _unknown(
    task: str, source: SourceFile, formats: tuple[Format, ...], fields: set[str], dropped: list[Dropped]
) -> UsageError:
    """The refusal of a file that has no record of a known format."""
    first = f" ({describe(dropped[0])})" if dropped and not fields else ""
    if dropped and is_filtered(dropped[0]) and not fields:
        reason = describe(dropped[0]).replace(FILTERED, "")
        return UsageError(f"{source.path}: none of its rows is used; the first is {reason}", "name another file")
    is_table = suffix(source.name) in (".csv", ".tsv", ".xlsx", ".xlsm")
    no_rows = "none of its rows has the columns of the first one" if is_table else NO_OBJECTS
    content = (_content_of(fields) if fields else no_rows) if fields or dropped else "it has no rows"
    hint = _formats_hint(task, formats)
    if is_table:
        hint += "; the first row must name the columns"
    if not source.given:
        hint += f"; if {source.name} is not meant, name the other files one by one"
    return UsageError(f"{source.path}: not a format that task {task!r} reads; {content}{first}", hint)


def _content_of(fields: set[str]) -> str:
    return f"its fields are: {_list_some(fields)}" if fields else NO_OBJECTS


def text(data: Record, name: str, noun: str) -> str:
    """``data[name]``, which must be text that is not blank; ``noun`` says in errors what the field is for."""
    if data.get(name) is None:
        raise BadRow(f"no {noun}", f"field {name!r} is {'null' if name in data else 'missing'}")
    if not isinstance(data[name], str):
        raise BadRow(f"{noun} is not text", f"field {name!r} is {type(data[name]).__name__}")
    if not data[name].strip():
        raise BadRow(f"empty {noun}", f"field {name!r}")
    return str(data[name])


def texts(data: Record, name: str, noun: str) -> str:
    """Like `text`, but a list of texts is accepted too, and joined by newlines."""
    value = data.get(name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return text({name: "\n".join(value)}, name, noun)
    return text(data, name, noun)


def messages(data: Record, name: str) -> list[Message]:
    """``data[name]`` as chat messages that end with a user's turn."""
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(m, dict) for m in value):
        raise BadRow("prompt is not a list of messages", f"field {name!r} is {type(value).__name__}")
    prompt: list[Message] = [{"role": text(m, "role", "role"), "content": text(m, "content", "prompt")} for m in value]
    roles = [m["role"] for m in prompt]
    if not set(roles) <= {"system", "user", "assistant"} or not roles or roles[-1] != "user":
        raise BadRow("prompt does not end with a user's turn", f"roles: {', '.join(roles) or 'none'}")
    return prompt


def user(content: str) -> list[Message]:
    """A prompt of one user message."""
    return [{"role": "user", "content": content}]


def prompt_keys(*contents: str) -> tuple[bytes, ...]:
    """Prompts that are the same question have a key in common: that of the text but for its white space, or that of its
    words, whatever their case and spelling (`data.words`). The first key is that of the first text as it stands."""
    spelt = [_key(content.split()) for content in contents]
    return tuple(dict.fromkeys([*spelt, *(_key(words.words(content)) for content in contents)]))


def _key(parts: list[str]) -> bytes:
    return hashlib.blake2b(" ".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def slug(name: str) -> str:
    """``name`` as part of an id: lower-case letters, digits and hyphens."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-") or "x"


def _parse_row(match: Format, row: RawRow, into: Gathered) -> None:
    try:
        for item in match.parse(row):
            if isinstance(item, Dropped):
                into.dropped.append(item)
            else:  # what the file says of a row's split counts where its task says nothing
                into.rows.append(replace(item, role=row.split) if row.split and item.role == "pool" else item)
    except BadRow as bad:
        into.dropped.append(Dropped(row.where, bad.reason, bad.detail))


def _formats_hint(task: str, formats: tuple[Format, ...]) -> str:
    return f"{task} reads: {'; '.join(f.name for f in formats)}"


def _list_some(fields: Iterable[str]) -> str:
    names = sorted(fields)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
