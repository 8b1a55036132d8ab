"""Values of a record as the readers give them: numbers, dates, lists stored as text, and what counts as missing."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal

from sdft_cli.rows.formats import BadRow, text
from sdft_cli.types import Json


def is_missing(value: Json) -> bool:
    """Whether a field says nothing: null, NaN (an empty cell in a table of numbers), or blank text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def present(data: Mapping[str, Json], column: str | None) -> Json:
    """The value of a column; None if there is no such column, or nothing in it."""
    value = data.get(column) if column else None
    return None if is_missing(value) else value


def as_text(value: Json, noun: str, column: str) -> str:
    """A value as text: ``true``, ``1`` (also for 1.0: a column of whole numbers with an empty cell is read as floats),
    ``72.50`` of a decimal, ``2024-05-01`` of a date. Raises `BadRow` for a list, an object and blank text."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"{noun} is not a number", f"field {column!r} is {value}")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        midnight = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return text({column: value}, column, noun)


def parsed(value: Json, openers: str = "[{") -> Json:
    """``value``, read where it is the text of a list or an object: JSON, or what Python prints for one (as a table
    of lists is saved to CSV). Any other value, and text that is neither, is returned as it is."""
    if not isinstance(value, str) or not value.strip().startswith(tuple(openers)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return value


def rows_of(value: Json) -> Json:
    """A list of objects, also where it is stored by columns: ``{"role": [...], "content": [...]}``."""
    if not isinstance(value, dict) or not value or not all(isinstance(each, list) for each in value.values()):
        return value
    lengths = {len(each) for each in value.values()}
    if len(lengths) != 1:
        return value
    return [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]
