"""Recipe files as tables: read from TOML, laid over each other, narrowed to one method. Nothing is checked here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from sdft_cli.config.sections import TEACHER_KINDS
from sdft_cli.errors import UsageError
from sdft_cli.types import Json

#: Some of a recipe's keys, nested as in the file. Its values are whatever the user wrote until a `Recipe` is built.
Layer = dict[str, Json]


#: The integers of TOML: its parsers must refuse any other, and Python's takes those of up to 4300 digits.
_INTEGERS = range(-(2**63), 2**63)


def read_toml(path: Path) -> Layer:
    """A recipe file as a dict; `UsageError` names the file and the line of a mistake."""
    if not path.is_file():
        raise UsageError(f"no recipe at {path}", "name a .toml file, or leave it out to use the defaults")
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "see recipes/ for examples") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "name a readable .toml file") from error


def parse_toml(text: str) -> Layer:
    """TOML as a dict; TOMLDecodeError for anything else, ValueError for an integer of more than 64 bits and for nesting
    that Python does not read."""
    try:
        tables = tomllib.loads(text)
        _check_integers(tables)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:  # of more digits than Python reads
        raise ValueError("an integer of more than 64 bits") from error
    return tables


def _check_integers(value: Json) -> None:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        _check_integers(one)
    if isinstance(value, int) and value not in _INTEGERS:
        raise ValueError("an integer of more than 64 bits")


def method_tables(layer: Mapping[str, Json], where: str) -> dict[str, Layer]:
    """The ``[methods.NAME]`` tables of a layer, by method."""
    tables = layer.get("methods", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{where}: 'methods' must hold a table per method", "write [methods.sft.train]")
    return tables


def for_method(layer: Mapping[str, Json], method: str, where: str = "recipe") -> Layer:
    """``layer`` with its ``[methods.<method>]`` table laid over it, and without those of other methods."""
    shared = {k: v for k, v in layer.items() if k != "methods"}
    return merge(shared, method_tables(layer, where).get(method, {}))


def merge(base: Mapping[str, Json], over: Mapping[str, Json]) -> Layer:
    """``over`` laid over ``base``: tables are merged key by key, any other value replaces the one below."""
    merged = dict(base)
    for key, value in over.items():
        if key == "teacher" and isinstance(value, str) and value in TEACHER_KINDS:
            value = TEACHER_KINDS[value]
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
