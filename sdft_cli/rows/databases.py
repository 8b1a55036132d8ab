"""The databases that a user's rows name: found beside them, and given a place in the dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sdft_cli.data.row_files import RowFiles
from sdft_cli.grading.sqlite_runs import Failed, Undecided, is_script, opened, query
from sdft_cli.rows.formats import BadRow
from sdft_cli.types import Example, Json

_NOT_THERE = "databases that are not beside the rows are not used"


class Databases:
    """The databases of one task's rows. ``named`` is what the user calls the column, or a file for all rows."""

    def __init__(self, named: str | None):
        self.named, self.files = named, RowFiles()
        self._tables: dict[str, str] = {}

    def located(
        self, meta: dict[str, Json], beside: Path, seen: Collection[str], remarks: Counter[str]
    ) -> dict[str, Json]:
        """``meta`` of a row of the file ``beside``, with the place of its database in the dataset. ``seen`` are the
        columns that there are. Raises `BadRow`."""
        for_all = self.named if self.named and self.named not in seen else None
        database = meta.get("database") or for_all
        if database is None or (isinstance(database, str) and is_script(database)):
            return {**meta, "database": database} if database else meta
        try:
            place = self.files.place_of(str(database), beside)
        except (ValueError, OSError) as error:
            raise BadRow("the database cannot be read", str(error)) from None
        if place is None and self.named in seen:
            raise BadRow("there is no such database", f"{str(database)!r}, looked for beside {beside.name}")
        if place is None:
            remarks[_NOT_THERE] += 1
        rest = {key: value for key, value in meta.items() if key != "database"}
        return {**rest, "database": place} if place else rest

    def tables(self, meta: dict[str, Json], dialect: str) -> str:
        """The ``CREATE TABLE`` statements of a row's database; "" if it has none that can be read."""
        database = meta.get("database")
        if not isinstance(database, str):
            return ""
        if database not in self._tables:
            self._tables[database] = self._read_tables(database, dialect)
        return self._tables[database]

    def _read_tables(self, database: str, dialect: str) -> str:
        place = self.files.places.get(database)
        try:
            with opened(str(place.absolute()) if place else database, None, dialect) as connection:
                made = query(connection, "SELECT sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL")
        except (Failed, Undecided):
            return ""
        return "\n\n".join(f"{row[0]!s};" for row in made.rows)

    @property
    def is_for_all(self) -> bool:
        """Whether the name that the user gives is that of a file for all rows."""
        return bool(self.files.places) or bool(self.named and is_script(self.named))

    def of_sources(self, example: Example) -> Example:
        """A row with its database where it is now, as it is not copied yet."""
        place = example.meta.get("database")
        if place not in self.files.places:
            return example
        return replace(example, meta={**example.meta, "database": str(self.files.places[place].absolute())})
