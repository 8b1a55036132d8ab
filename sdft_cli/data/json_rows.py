"""Rows of JSON: one object a line, an array, objects in a row, or one object that wraps them (`json_wrappers`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sdft_cli.data import cells, json_wrappers
from sdft_cli.data.jsonl import parse_json, parse_line
from sdft_cli.data.raw_rows import Item, Items, RawRow, row_of_cells
from sdft_cli.data.streams import BOM, is_packed, opened
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Json

#: Bytes in one line. A longer one is not a row but a file that lost its line breaks; it would also be held in memory.
LONGEST_LINE = 10_000_000
#: Bytes of one value, once unpacked: a packed file of a few MB may hold any number.
LARGEST_VALUE = 1_000_000_000


class _Line(NamedTuple):
    """One JSON value: its ``data``, or in ``bad`` why it cannot be read."""

    number: int
    where: str
    data: Json
    bad: Dropped | None


def is_json(head: bytes, certainly: bool = False) -> bool:
    """Whether a file that begins with ``head`` begins with a JSON object or array, whatever it is called; with
    ``certainly``, one that is whole in the first line."""
    start = head.lstrip()
    if not start.startswith((b"{", b"[")):
        return False
    line = start.split(b"\n", 1)[0]
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return not certainly and start[1:].lstrip()[:1] in (
            b'"',
            b"{",
            b"[",
            b"}",
            b"]",
        )  # the value goes on, or is broken
    return True


def rows(name: str, file: Path, head: bytes) -> Items:
    value = _value(name, file, head)
    if value is None:
        with opened(file) as stream:
            yield from map(_record, _lines(name, stream))
    elif isinstance(value, list):
        yield from (_record(_Line(i, f"{name}[{i}]", data, None)) for i, data in enumerate(value))
    elif (wrapped := json_wrappers.unwrapped(name, value)) is not None:
        yield from wrapped
    else:
        yield RawRow(value, f"{name}:1", 1)


def whole(file: Path, stream: BinaryIO) -> bytes:
    """The rest of a stream; `UsageError` for a packed file that holds too much for the memory."""
    if not is_packed(file):
        return stream.read()
    content = stream.read(LARGEST_VALUE + 1)
    if len(content) > LARGEST_VALUE:
        raise UsageError(
            f"{file} holds one value of more than {LARGEST_VALUE / 1e9:.0f} GB", "write its rows as JSONL, one a line"
        )
    return content


def _record(line: _Line) -> Item:
    if line.bad:
        return line.bad
    if not isinstance(line.data, dict):
        return Dropped(line.where, "not a JSON object", type(line.data).__name__)
    if any(cells.is_media(value) for value in line.data.values()):
        return row_of_cells(line.data, line.where, line.number)
    return RawRow(line.data, line.where, line.number)


def _lines(name: str, stream: BinaryIO) -> Iterator[_Line]:
    """Every line of a JSONL file that is not blank."""
    number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{name}:{number}"
        if len(raw) > LONGEST_LINE:
            size = len(raw) + _skip_line(stream, raw)
            detail = f"{size / 1e6:.0f} MB, the limit is {LONGEST_LINE / 1e6:.0f}"
            yield _Line(number, where, None, Dropped(where, "line too long", detail))
        elif raw.strip():
            raw = raw.removeprefix(BOM)  # where files that begin with one were joined
            yield _Line(number, where, *parse_line(raw, where, nan_is_null=True))


def _skip_line(stream: BinaryIO, raw: bytes) -> int:
    """Read to the end of a line that begins with ``raw``; returns how many bytes were skipped."""
    skipped = 0
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(LONGEST_LINE)
        skipped += len(raw)
    return skipped


def _value(name: str, file: Path, head: bytes) -> list[Json] | dict[str, Json] | None:
    """The array or object that the whole file is; None for JSONL.

    Objects one after the other that are spread over lines are an array too.
    """
    first = head.lstrip()[:1]
    if first not in (b"[", b"{"):
        return None
    with opened(file) as stream:
        one, *more = islice(_lines(name, stream), 2)
    if isinstance(one.data, dict):
        return None if more else one.data
    if one.bad is None and more:
        return None
    try:
        with opened(file) as stream:
            text = whole(file, stream)
        data: Json = parse_json(text, nan_is_null=True)
    except UnicodeDecodeError as error:
        if first == b"{":
            return None  # read as JSONL, the error names the line
        raise UsageError(f"{file} is not UTF-8 (byte {error.start + 1})", "save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        if first == b"{":
            return _in_a_row(text)
        with opened(file) as stream:
            if any(isinstance(line.data, dict) for line in _lines(name, stream)):
                return None  # JSONL, perhaps with a broken first line
        raise UsageError(f"{file} is not valid JSON: {error}", "the file may be cut off; download it again") from error
    return data if isinstance(data, list | dict) else [data]


def _in_a_row(text: bytes) -> list[Json] | None:
    """Objects one after the other, as `jq` writes them; None if the text is anything else, or one of them is no JSON
    to `parse_json`."""
    decoder, rest, values = json.JSONDecoder(), text.decode("utf-8"), list[Json]()
    place = 0
    try:
        while place < len(rest):
            value, end = decoder.raw_decode(rest, place)
            if not isinstance(value, dict):
                return None
            values.append(parse_json(rest[place:end].encode(), nan_is_null=True))
            place = end
            while place < len(rest) and rest[place].isspace():
                place += 1
    except (ValueError, RecursionError):
        return None
    return values
