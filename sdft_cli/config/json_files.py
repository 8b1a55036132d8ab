"""JSON files of ours, read and checked in one place: whatever is wrong with one is one `UsageError` that names it.

The types of the records (`Record`) are what is checked: a wrong type, a missing key, a number that is not finite or out
of range. Keys that a record does not know are kept, as a later version may have added them. Data that a user brings is
read by `data.jsonl`, row by row.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic can read that of typing only from Python 3.12 on

from sdft_cli.errors import UsageError, shown


@with_config(ConfigDict(extra="allow", allow_inf_nan=False))
class Record(TypedDict):
    """What all records of ours inherit: numbers are finite, unknown keys are kept."""


@with_config(ConfigDict(extra="allow"))
class LoggedRecord(Record):
    """A record whose numbers are not finite where a step went wrong."""


#: A number between 0 and 1.
Share = Annotated[float, Field(ge=0, le=1)]
#: How many there are of something; the bound is where a float stops counting.
Count = Annotated[int, Field(ge=0, le=2**53)]
#: A time in seconds, or another number from 0.
Amount = Annotated[float, Field(ge=0)]
#: A number that may be infinite, such as a log-prob.
Unbounded = Annotated[float, Field(allow_inf_nan=True)]
#: The two ends of an interval.
Ends = Annotated[list[float], Field(min_length=2, max_length=2)]


class Line(NamedTuple):
    """A line of a JSONL file, with its number (from 1)."""

    number: int
    text: bytes


def read(path: Path, kind: Any, hint: str) -> Any:
    """The content of a JSON file as a ``kind``, a type or a `Record`; ``hint`` says what to do if it is none."""
    return parse(content(path, hint), kind, str(path), hint)


def lines(path: Path, hint: str) -> Iterator[Line]:
    """The lines of a JSONL file that are not blank."""
    for number, text in enumerate(content(path, hint).split(b"\n"), start=1):  # JSON text may contain U+2028
        if text.strip():
            yield Line(number, text)


def content(path: Path, hint: str) -> bytes:
    """The bytes of a file without its byte-order mark."""
    try:
        if not path.is_file() and path.exists():  # a pipe would be waited for
            raise OSError(errno.EISDIR if path.is_dir() else errno.EINVAL, "not a file")
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", hint) from error


def parse(text: bytes, kind: Any, where: str, hint: str, later: Any = None) -> Any:
    """JSON text as a ``kind``; ``where`` is its file, and its line if it is one of several. ``later`` is the type of
    what is of none of the kinds that a tag tells apart: a later version may know it."""
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        if later and error.errors()[0]["type"] == "union_tag_invalid":
            return parse(text, later, where, hint)
        raise UsageError(f"{where}: {reason(error)}", hint) from error


def reason(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in one line: the key, what it must be, and what it is."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"not valid JSON: {first['ctx']['error']}"
    key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "missing" else f" (got {shown(first['input'])})"
    return f"{key}: {message}{given}" if key else f"{message}{given}"


def exists(path: Path) -> bool:
    """Whether there is anything at ``path``, even if it cannot be read: a folder, or a link that leads nowhere."""
    return os.path.lexists(path)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
