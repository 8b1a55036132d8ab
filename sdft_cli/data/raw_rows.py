"""What the readers of all file formats give: a raw row, a `Dropped`, or a part of the file that is not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sdft_cli.data import cells
from sdft_cli.data.dataset import FILTERED
from sdft_cli.types import Dropped, Json


@dataclass(frozen=True, slots=True)
class RawRow:
    """One raw record: its ``data``, where it is (``file:line`` or ``file[index]``), that number, and the split that the
    file itself says it belongs to (a sheet or a list of that name)."""

    data: dict[str, Json]
    where: str
    number: int
    split: str | None = None


class NotRead(NamedTuple):
    """A part of a file, such as a sheet, that is left out, and why."""

    name: str
    why: str


Item = RawRow | Dropped | NotRead
Items = Iterator[Item]


def row_of_cells(data: Mapping[str, Any], where: str, number: int, split: str | None = None) -> RawRow | Dropped:
    """The record of a table's row; left out by design if a cell has no form in text."""
    record: dict[str, Json] = {}
    for name, value in data.items():
        try:
            record[name] = cells.plain(value)
        except cells.NotText as error:
            return Dropped(where, f"{FILTERED}holds {error}", f"field {name!r}")
    return RawRow(record, where, number, split)
