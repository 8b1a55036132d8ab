"""Raw records of any source file, recognized by content and streamed.

A row that cannot be read is yielded as a `Dropped` with its place (``file:line``; ``file[index]`` in a JSON array or a
file of columns), so that the caller can list it and go on. A part that is not read (a second sheet) is yielded as a
`NotRead`. A file that cannot be read at all, or not beyond some point, raises `UsageError`. In memory at a time: one
row of JSONL or CSV, a thousand rows of Parquet or Arrow, a whole JSON value.
"""

from __future__ import annotations

from pathlib import Path

from sdft_cli.data import arrow_rows, json_rows, tables, workbooks
from sdft_cli.data.raw_rows import Items, NotRead, RawRow
from sdft_cli.data.source_files import SUFFIXES, TEXT_SUFFIXES, stem, suffix
from sdft_cli.data.streams import HEAD, kind_of, opened
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped

__all__ = ["SUFFIXES", "TEXT_SUFFIXES", "NotRead", "RawRow", "read_rows"]
_TABLES = (".csv", ".tsv")


def read_rows(name: str, file: Path, delimiter: str | None = None, sheet: str | None = None) -> Items:
    """Every record of one file, which reasons call ``name``.

    ``delimiter`` is that of a CSV file (without one, its first lines decide), ``sheet`` that of an Excel file (without
    one, the first, or all that are named after splits).
    """
    kind = kind_of(file)
    if sheet and kind != "xlsx":
        raise UsageError(f"{file} has no sheets, and the sheet {sheet!r} is named", "leave the sheet out")
    if kind == "xlsx":
        return workbooks.rows(name, file, sheet)
    if kind in ("parquet", "arrow"):
        return arrow_rows.rows(name, file, kind)
    with opened(file) as stream:
        head = stream.read(HEAD)
    if not head.strip() and _is_blank(file):
        raise UsageError(f"{file} is empty", "check how it was made, or download it again")
    if json_rows.is_json(head, certainly=suffix(file.name) in TEXT_SUFFIXES):
        return json_rows.rows(name, file, head)
    if suffix(file.name) in TEXT_SUFFIXES:
        return _text(name, file)
    if suffix(file.name) in _TABLES or (suffix(file.name) not in SUFFIXES and tables.looks_like_one(head)):
        return tables.rows(name, file, delimiter)
    return json_rows.rows(name, file, head)


def _is_blank(file: Path) -> bool:
    with opened(file) as stream:
        return not any(piece.strip() for piece in iter(lambda: stream.read(HEAD), b""))


def _text(name: str, file: Path) -> Items:
    """A text file is one record: its name without the suffix is the ``title``, the rest the ``text``."""
    try:
        with opened(file) as stream:
            body = json_rows.whole(file, stream).decode("utf-8").strip()
        yield RawRow({"title": stem(file.name), "text": body}, name, 0)
    except UnicodeDecodeError as error:
        yield Dropped(name, "not UTF-8", f"byte {error.start + 1}")
