"""JSONL, line by line: every line comes with its number, and an unreadable one with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Json


class JsonLine(NamedTuple):
    """One non-blank line: its number (from 1) and either the parsed ``data`` or, in ``bad``, why it cannot be read."""

    number: int
    data: Json
    bad: Dropped | None


def read_bytes(path: Path) -> bytes:
    """The content of a file without its byte-order mark; `UsageError` if it cannot be read or is UTF-16."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is UTF-16", "save it as UTF-8")
    return raw.removeprefix(b"\xef\xbb\xbf")


def json_lines(raw: bytes, name: str) -> Iterator[JsonLine]:
    """Every non-blank line of a JSONL file; ``name`` is what the file is called in reasons."""
    for number, line in enumerate(raw.split(b"\n"), start=1):  # not splitlines(): JSON text may contain U+2028
        if line.strip():
            yield JsonLine(number, *parse_line(line, f"{name}:{number}"))


def parse_line(raw: bytes, where: str, nan_is_null: bool = False) -> tuple[Json, Dropped | None]:
    """The value on one line of JSONL, or None and why it cannot be read."""
    try:
        return parse_json(raw, nan_is_null), None
    except UnicodeDecodeError as error:
        return None, Dropped(where, "not UTF-8", f"byte {error.start + 1} of the line")
    except (ValueError, RecursionError) as error:
        return None, Dropped(where, "broken JSON", str(error))


def parse_json(raw: bytes, nan_is_null: bool = False) -> Json:
    """Strict JSON from UTF-8 bytes: no infinite numbers, no lone surrogates, which no tokenizer accepts, and no NaN,
    unless that stands for a missing value, as pandas writes one."""
    constant = _null_for_nan if nan_is_null else _refuse_constant
    data = json.loads(raw.decode("utf-8"), parse_constant=constant)
    if b"\\ud" in raw.lower():
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("lone surrogate (half of a pair of \\ud8xx escapes)") from error
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _null_for_nan(name: str) -> None:
    if name != "NaN":
        _refuse_constant(name)
