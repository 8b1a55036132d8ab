"""Values of tables (Parquet, Arrow, Excel, CSV) as JSON values, so that rows of every file format look alike."""

from __future__ import annotations

import ast
import datetime
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sdft_cli.types import Json

#: The fields of an image, a sound or a video in a file of the `datasets` library.
_MEDIA = {"bytes", "path"}


class NotText(Exception):
    """A value that has no form in text: an image, a sound, or bytes that are not UTF-8."""


def is_media(value: Any) -> bool:
    """Whether a value is an image, a sound or a video, as files of the `datasets` library hold them."""
    return isinstance(value, Mapping) and set(value) == _MEDIA and any(v is not None for v in value.values())


def plain(value: Any) -> Json:
    """``value`` as JSON. NaN and NaT are missing values (None), as pandas means them; a decimal is a number if that
    loses no digit; dates and times are in ISO form, without a time of midnight. Raises `NotText`."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        if is_media(value):
            raise NotText("an image, a sound or a video")
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise NotText("bytes that are not text") from None
    return _scalar(value)


def _scalar(value: Any) -> Json:
    if isinstance(value, Decimal):
        return _number(value)
    if value != value:  # NaT
        return None
    if isinstance(value, datetime.datetime):
        midnight = value.tzinfo is None and value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)  # numpy's scalars and arrays


def _number(value: Decimal) -> Json:
    if not value.is_finite():
        return None if value.is_nan() else str(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def parsed(value: Json) -> Json:
    """The list or object that the text of a cell spells, in JSON or (as pandas writes it) in Python; else ``value``."""
    if not isinstance(value, str) or not (text := value.strip()).startswith(("[", "{")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            data = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(data, list | dict):
            return data
    return value
