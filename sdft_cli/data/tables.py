"""Rows of CSV and TSV files, whose first line names the columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Literal

from sdft_cli.data.json_rows import LONGEST_LINE
from sdft_cli.data.raw_rows import Items, RawRow
from sdft_cli.data.source_files import suffix
from sdft_cli.data.streams import opened
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped

_DELIMITERS = ",;\t|"
#: So many lines decide on the delimiter.
_SAMPLE = 50
#: What Excel takes a delimiter from, in a line before the header.
_SAID = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
#: What pandas writes for a missing value in a column that it was told to make text.
_MISSING = ("", "nan", "NaN")


def rows(name: str, file: Path, delimiter: str | None) -> Items:
    """A row with more or fewer fields than the header is dropped; broken quoting is an error. An empty cell is a
    missing value (None), and a row of nothing else is passed over."""
    csv.field_size_limit(LONGEST_LINE)
    with opened(file) as stream:
        lines = _decoded(name, file, stream)
        sample = list(islice(lines, _SAMPLE))
        said = _SAID.fullmatch(sample[0])
        delimiter = delimiter or (said[1] if said else _delimiter(file, sample))
        reader = csv.reader(chain(sample, lines), delimiter=delimiter, quoting=_quoting(sample, delimiter), strict=True)
        if said:
            next(reader)
        try:
            columns = _columns(name, next((cells for cells in reader if any(map(str.strip, cells))), []))
            for cells in reader:
                where = f"{name}:{reader.line_num}"
                if not any(map(str.strip, cells)):
                    continue
                if not any(map(str.strip, cells[len(columns) :])):
                    cells = cells[: len(columns)]  # a delimiter at the end of every line
                if len(cells) != len(columns):
                    yield Dropped(where, "ragged row", f"{len(cells)} fields, the header has {len(columns)}")
                else:
                    yield RawRow(_record(columns, cells), where, reader.line_num)
        except csv.Error as error:
            raise UsageError(
                f"{name}:{reader.line_num}: broken CSV: {error}", 'inside a quoted field, write a quote twice: ""'
            ) from error


def looks_like_one(head: bytes) -> bool:
    """Whether a text that begins with ``head`` has columns."""
    try:
        sample = head.decode("utf-8").splitlines(keepends=True)[:-1][:_SAMPLE]
    except UnicodeDecodeError:
        return False
    return len(sample) > 1 and any(_width(sample, delimiter) for delimiter in _DELIMITERS)


def _record(columns: list[str], cells: list[str]) -> dict[str, str | None]:
    values = zip(columns, cells, strict=True)
    return {column: None if cell in _MISSING else cell for column, cell in values if column}


def _decoded(name: str, file: Path, stream: BinaryIO) -> Iterator[str]:
    for number, raw in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
        if len(raw) > LONGEST_LINE:
            raise UsageError(
                f"{name}:{number}: a line of more than {LONGEST_LINE / 1e6:.0f} MB", "is a quote left open?"
            )
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line)"
            hint = f"save it as UTF-8 (Excel: CSV UTF-8), or convert it: iconv -f WINDOWS-1252 -t UTF-8 {file.name}"
            raise UsageError(place, hint) from error


def _delimiter(file: Path, sample: list[str]) -> str:
    """Tab in a .tsv file whose header has one; else the delimiter that divides every row into as many fields as the
    header, the most of them; else whichever occurs in the header most often."""
    header = sample[0] if sample else ""
    if suffix(file.name) == ".tsv" and "\t" in header:
        return "\t"
    widths = {delimiter: _width(sample, delimiter) for delimiter in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda delimiter: widths[delimiter])
    return best if widths[best] else max(",;\t|", key=header.count)


def _quoting(sample: list[str], delimiter: str) -> Literal[0, 3]:
    """None in a file with tabs whose quotes are part of the text."""
    plain = delimiter == "\t" and not _width(sample, delimiter) and _width(sample, delimiter, csv.QUOTE_NONE)
    return csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL


def _width(sample: list[str], delimiter: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> int:
    """The number of fields if all rows of a sample have as many, and more than one; else 0."""
    try:
        reader = csv.reader(sample, delimiter=delimiter, quoting=quoting, strict=True)
        parsed = [len(cells) for cells in reader if cells]
    except csv.Error:
        return 0
    whole = parsed[:-1] if len(sample) == _SAMPLE and len(parsed) > 2 else parsed  # the last row may go on
    return whole[0] if whole and whole[0] > 1 and len(set(whole)) == 1 else 0


def _columns(name: str, header: list[str]) -> list[str]:
    columns = [cell.strip() for cell in header]
    if repeated := [c for c in columns if c and columns.count(c) > 1]:
        hint = "the first line must name the columns, each by its own name: add or correct it"
        raise UsageError(f"{name}:1: two columns are called {repeated[0]!r}", hint)
    return columns
