"""Rows of Excel workbooks (.xlsx), read by openpyxl row by row; the first row that is not empty names the columns.

Without a named sheet, the first visible one is read; if sheets are named after splits, those are. The others are named
as not read. A formula has the value that Excel stored with it; a row with one that has none is dropped, since openpyxl
and pandas write formulas without values.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from sdft_cli.data.raw_rows import Items, NotRead, row_of_cells
from sdft_cli.data.split_names import Ambiguous, splits_of_keys
from sdft_cli.errors import UsageError, choose
from sdft_cli.types import Dropped

#: Bytes of a workbook's sheets and texts, once unpacked.
LARGEST = 2_000_000_000
#: A sheet with nothing in so many rows is empty.
_FEW = 100
_AGAIN = "open it in Excel and save it again"


def rows(name: str, file: Path, sheet: str | None) -> Items:
    """The rows of a workbook's sheets, which reasons call ``name[sheet]:row``, or ``name:row`` if there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on styles and validations, which are not read
        yield from _rows(name, file, sheet)


def _rows(name: str, file: Path, sheet: str | None) -> Items:
    formulas = _checked(file)
    values = _opened(file, values=True)
    sheets = [s.title for s in values.worksheets if s.sheet_state == "visible"]
    chosen = _chosen(file, sheets, [s.title for s in values.worksheets], sheet)
    written = _opened(file, values=False) if formulas else None
    for title, split in chosen.items():
        place = f"{name}[{title}]" if len(values.worksheets) > 1 else name
        for item in _sheet_rows(place, values[title], written[title] if written else None):
            yield item if isinstance(item, Dropped) else row_of_cells(*item, split)
    for other in values.worksheets:
        if other.title not in chosen and _has_cells(other):
            yield NotRead(f"{name}[{other.title}]", "another sheet; name it with sheet = … in --columns")
    values.close()


def _has_cells(sheet: Any) -> bool:
    return any(cell.value is not None for row in islice(sheet.iter_rows(), _FEW) for cell in row)


def _checked(file: Path) -> bool:
    """Whether any cell of a workbook is a formula; `UsageError` for one that is too large when unpacked."""
    with zipfile.ZipFile(file) as archive:
        sheets = [info for info in archive.infolist() if info.filename.startswith("xl/")]
        if sum(info.file_size for info in sheets) > LARGEST:
            raise UsageError(f"{file} has more than {LARGEST / 1e9:.0f} GB when unpacked", "save its sheets as CSV")
        return any(_has_formula(archive, info) for info in sheets if info.filename.startswith("xl/worksheets/"))


def _has_formula(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    before = b""
    try:
        with archive.open(info) as stream:
            while piece := stream.read(1 << 20):
                if b"<f>" in before + piece or b"<f " in before + piece:
                    return True
                before = piece[-2:]
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise UsageError(f"{archive.filename} is broken: {error}", "save or download it again") from error
    return False


def _opened(file: Path, values: bool) -> Any:
    import openpyxl

    try:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=values, keep_links=False)
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()  # which some tools write wrongly, and all beyond them would be lost
        return workbook
    except Exception as error:  # a damaged part of a workbook raises whatever its reader met
        raise UsageError(
            f"{file} is not a readable Excel file: {error}", "open it in Excel and save it again"
        ) from error


def _chosen(file: Path, visible: list[str], sheets: list[str], sheet: str | None) -> dict[str, str | None]:
    """The sheets to read, with the split that each is named after."""
    if sheet:
        if sheet not in sheets:
            raise choose(f"sheet of {file.name}:", sheet, tuple(sheets))
        return {sheet: None}
    if not visible:
        raise UsageError(f"{file} has no visible sheet with rows", "name one with sheet = … in --columns")
    try:
        splits = dict(zip(visible, splits_of_keys(visible), strict=True))
    except Ambiguous as error:
        if error.name == visible[0]:
            return {visible[0]: None}
        raise UsageError(f"{file}: the sheet {error.name!r} is for {' and '.join(error.splits)}", "rename it") from None
    named: dict[str, str | None] = {title: split for title, split in splits.items() if split}
    return named if visible[0] in named else {visible[0]: None}


def _sheet_rows(place: str, values: Any, written: Any) -> Iterator[Dropped | tuple[dict[str, Any], str, int]]:
    columns: list[str] | None = None
    others = written.iter_rows() if written else repeat(None)
    try:
        for number, (cells, formulas) in enumerate(zip(values.iter_rows(), others, strict=False), start=1):
            row = [_value(cell) for cell in cells]
            lost = _without_value(cells, formulas, columns) if formulas else None
            if lost is None and all(value is None for value in row):
                continue
            where = f"{place}:{number}"
            if columns is None:
                columns = _columns(place, number, row)
            elif lost:
                yield Dropped(where, "a formula without a value", f"field {lost!r}; open the file in Excel and save it")
            elif strays := [value for value in row[len(columns) :] if value is not None]:
                yield Dropped(where, "ragged row", f"{strays[0]!r} stands beyond the header's {len(columns)} columns")
            else:
                padded = [*row, *repeat(None, len(columns) - len(row))]
                yield {c: v for c, v in zip(columns, padded, strict=False) if c}, where, number
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError) as error:
        raise UsageError(f"{place}: not readable: {error}", _AGAIN) from error


def _value(cell: Any) -> Any:
    """The value of a cell; None for an empty one, for white space and for an error such as #N/A."""
    value = cell.value
    if cell.data_type == "e" or (isinstance(value, str) and not value.strip()):
        return None
    return value


def _without_value(cells: Any, formulas: Any, columns: list[str] | None) -> str | None:
    """The column of a formula that no value is stored for; None if there is none."""
    for i, (cell, formula) in enumerate(zip(cells, formulas, strict=False)):
        if cell.value is None and formula.data_type == "f":
            return columns[i] if columns and i < len(columns) and columns[i] else f"column {i + 1}"
    return None


def _columns(place: str, number: int, row: list[Any]) -> list[str]:
    columns = ["" if value is None else str(value).strip() for value in row]
    while columns and not columns[-1]:
        columns.pop()
    if repeated := [c for c in columns if c and columns.count(c) > 1]:
        hint = "the first row must name the columns, each by its own name: add or correct it"
        raise UsageError(f"{place}:{number}: two columns are called {repeated[0]!r}", hint)
    return columns
