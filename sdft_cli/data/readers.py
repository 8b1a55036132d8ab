"""Raw records of any source file: JSONL, JSON, CSV, TSV, Parquet or plain text, recognized by content and streamed.

A row that cannot be read is yielded as a `Dropped` with its place (``file:line``; ``file[index]`` in an array or a
Parquet file), so that the caller can list it and go on. A file that cannot be read at all, or not beyond some point,
raises `UsageError`. In memory at a time: one row of JSONL or CSV, a thousand rows of Parquet, a whole JSON array.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sdft_cli.data.jsonl import parse_json, parse_line, read_bytes
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Json

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
TEXT_SUFFIXES = (".txt", ".md")
#: Bytes in one line. A longer one is not a row but a file that lost its line breaks; it would also be held in memory.
LONGEST_LINE = 10_000_000
_BATCH = 1000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One raw record: its ``data``, where it is (``file:line`` or ``file[index]``) and that number."""

    data: dict[str, Json]
    where: str
    number: int


class _Line(NamedTuple):
    """One JSON value: its ``data``, or in ``bad`` why it cannot be read."""

    number: int
    where: str
    data: Json
    bad: Dropped | None


def source_files(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[str, Path]]:
    """(name, file) of a source: the file itself, or all files in a folder with these ``suffixes``, in a fixed order.

    Names start at the given file or folder, so that no path of this machine gets into a manifest.
    """
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise UsageError(f"no source file or folder at {path}", "check the path after --source TASK=")
    files = sorted(f for f in path.rglob("*") if f.suffix in suffixes and f.is_file())
    if not files:
        kinds = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise UsageError(f"{path} has no {kinds} file", "name the file, or the folder it is in")
    top = path.name if path.name not in ("", "..") else path.resolve().name
    return [((Path(top) / f.relative_to(path)).as_posix(), f) for f in files]


def read_rows(name: str, file: Path, delimiter: str | None = None) -> Iterator[RawRow | Dropped]:
    """Every record of one file, which reasons call ``name``.

    ``delimiter`` is that of a CSV file; without one, the header decides.
    """
    head = _head(file)
    if head.startswith(b"PAR1"):
        return _parquet(name, file)
    if file.suffix in (".csv", ".tsv"):
        return _table(name, file, delimiter)
    if file.suffix in TEXT_SUFFIXES:
        return _text(name, file)
    return _json(name, file, head)


def _text(name: str, file: Path) -> Iterator[RawRow | Dropped]:
    """A text file is one record: its name without the suffix is the ``title``, the rest the ``text``."""
    try:
        yield RawRow({"title": file.stem, "text": read_bytes(file).decode("utf-8").strip()}, name, 0)
    except UnicodeDecodeError as error:
        yield Dropped(name, "not UTF-8", f"byte {error.start + 1}")


def _head(file: Path) -> bytes:
    """The first bytes of a file; `UsageError` if it cannot be read, is empty, or is not text."""
    try:
        with file.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (b"\0" in head and not head.startswith(b"PAR1")):
        raise UsageError(f"{file} is UTF-16 or not text at all", "save it as UTF-8")
    if not head.removeprefix(_BOM).strip() and file.stat().st_size <= len(head):
        raise UsageError(f"{file} is empty", "check how it was made, or download it again")
    return head


# --- JSON and JSONL -----------------------------------------------------------------------------------------------


def _json(name: str, file: Path, head: bytes) -> Iterator[RawRow | Dropped]:
    array = _array(name, file, head)
    if array is None:
        with file.open("rb") as stream:
            yield from map(_record, _lines(name, stream))
    else:
        yield from (_record(_Line(i, f"{name}[{i}]", data, None)) for i, data in enumerate(array))


def _record(line: _Line) -> RawRow | Dropped:
    if line.bad:
        return line.bad
    if not isinstance(line.data, dict):
        return Dropped(line.where, "not a JSON object", type(line.data).__name__)
    return RawRow(line.data, line.where, line.number)


def _lines(name: str, stream: BinaryIO) -> Iterator[_Line]:
    """Every line of a JSONL file that is not blank."""
    number = 0
    stream.seek(len(_BOM) if stream.read(len(_BOM)) == _BOM else 0)
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{name}:{number}"
        if len(raw) > LONGEST_LINE:
            size = len(raw) + _skip_line(stream, raw)
            detail = f"{size / 1e6:.0f} MB, the limit is {LONGEST_LINE / 1e6:.0f}"
            yield _Line(number, where, None, Dropped(where, "line too long", detail))
        elif raw.strip():
            yield _Line(number, where, *parse_line(raw, where))


def _skip_line(stream: BinaryIO, raw: bytes) -> int:
    """Read to the end of a line that begins with ``raw``; returns how many bytes were skipped."""
    skipped = 0
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(LONGEST_LINE)
        skipped += len(raw)
    return skipped


def _array(name: str, file: Path, head: bytes) -> list[Json] | None:
    """The records of a file that is one JSON value; None for JSONL (including one object on a single line)."""
    first = head.removeprefix(_BOM).lstrip()[:1]
    if first not in (b"[", b"{"):
        return None
    if _is_jsonl(name, file):
        return None
    try:
        data = parse_json(read_bytes(file))
    except UnicodeDecodeError as error:
        if first == b"{":
            return None  # read as JSONL, the error names the line
        raise UsageError(f"{file} is not UTF-8 (byte {error.start + 1})", "save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        with file.open("rb") as stream:
            if first == b"{" or any(isinstance(line.data, dict) for line in _lines(name, stream)):
                return None  # JSONL, perhaps with a broken first line
        raise UsageError(f"{file} is not valid JSON: {error}", "the file may be cut off; download it again") from error
    return data if isinstance(data, list) else [data]


def _is_jsonl(name: str, file: Path) -> bool:
    """Whether the first line is an object by itself, or another value with more lines after it."""
    with file.open("rb") as stream:
        first, *more = islice(_lines(name, stream), 2)
    return first.bad is None and (isinstance(first.data, dict) or bool(more))


# --- tables -------------------------------------------------------------------------------------------------------


def _table(name: str, file: Path, delimiter: str | None) -> Iterator[RawRow | Dropped]:
    """CSV with a header line. A row with more or fewer fields than that is dropped; broken quoting is an error."""
    csv.field_size_limit(LONGEST_LINE)
    with file.open("rb") as stream:
        lines = _decoded(name, stream)
        first = next(lines)
        reader = csv.reader(chain((first,), lines), delimiter=delimiter or _delimiter(file, first), strict=True)
        try:
            columns = _columns(name, next(cells for cells in reader if cells))
            for cells in reader:
                where = f"{name}:{reader.line_num}"
                if cells and len(cells) != len(columns):
                    yield Dropped(where, "ragged row", f"{len(cells)} fields, the header has {len(columns)}")
                elif cells:
                    yield RawRow(dict(zip(columns, cells, strict=True)), where, reader.line_num)
        except csv.Error as error:
            raise UsageError(
                f"{name}:{reader.line_num}: broken CSV: {error}", 'inside a quoted field, write a quote twice: ""'
            ) from error


def _decoded(name: str, stream: BinaryIO) -> Iterator[str]:
    for number, raw in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
        if len(raw) > LONGEST_LINE:
            raise UsageError(
                f"{name}:{number}: a line of more than {LONGEST_LINE / 1e6:.0f} MB", "is a quote left open?"
            )
        try:
            yield raw.removeprefix(_BOM if number == 1 else b"").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line)", "save it as UTF-8"
            ) from error


def _delimiter(file: Path, header: str) -> str:
    """Tab in a .tsv file, else whichever of comma, semicolon and tab occurs in the header most often."""
    return "\t" if file.suffix == ".tsv" else max(",;\t", key=header.count)


def _columns(name: str, header: list[str]) -> list[str]:
    columns = [cell.strip() for cell in header]
    if repeated := [c for c in columns if c and columns.count(c) > 1]:
        raise UsageError(f"{name}:1: two columns are called {repeated[0]!r}", "give each column its own name")
    return columns


def _parquet(name: str, file: Path) -> Iterator[RawRow | Dropped]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_BATCH):
                for data in batch.to_pylist():
                    yield RawRow(data, f"{name}[{number}]", number)
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{file} is not a readable Parquet file (after row {number}): {reason}", "download it again"
        ) from error
