"""Whether two queries returned the same rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sdft_cli.grading.sqlite_runs import Cell, Rows

#: Numbers are equal within this share: the order of a sum changes the last digits, nothing else is let pass.
TOLERANCE = 1e-9
#: Up to this many rows are matched one by one where sorting cannot tell which belongs to which.
_MATCHED = 300
Row = Sequence[Cell]


def same_rows(given: Rows, gold: Rows, groups: Sequence[int] | None) -> str:
    """How the rows differ; "" if they are the same.

    Columns are compared in order, and their names are ignored. ``groups`` are the sizes of runs of gold rows, of which
    only the runs are ordered: [n] for rows in any order, ones where each row has its place, larger ones for ties. None:
    as [n]. NULL equals NULL; a number equals one of another type, but never a text.
    """
    if given.columns != gold.columns:
        return f"{given.columns} columns, expected {gold.columns}"
    if len(given.rows) != len(gold.rows):
        return f"{len(given.rows)} rows, expected {len(gold.rows)}"
    start = 0
    for size in groups or [len(gold.rows)]:
        if not same_multiset(given.rows[start : start + size], gold.rows[start : start + size]):
            anywhere = groups and len(groups) > 1 and same_multiset(given.rows, gold.rows)
            return "the right rows in another order" if anywhere else "other rows than expected"
        start += size
    return ""


def same_multiset(given: Sequence[Row], gold: Sequence[Row]) -> bool:
    """Whether the rows are the same, each as often, in any order."""
    if len(given) != len(gold):
        return False
    left, right = Counter(map(tuple, given)), Counter(map(tuple, gold))
    ours, theirs = list((left - right).elements()), list((right - left).elements())
    if not ours:  # Python's numbers are equal and hash alike whatever their type
        return True
    if sorted(map(_shape, ours)) != sorted(map(_shape, theirs)):
        return False
    ours.sort(key=_order), theirs.sort(key=_order)
    if all(map(same_row, ours, theirs)):
        return True
    return len(ours) <= _MATCHED and _matched(ours, theirs)


def same_row(given: Row, gold: Row) -> bool:
    return len(given) == len(gold) and all(map(_same_cell, given, gold))


def _same_cell(given: Cell, gold: Cell) -> bool:
    if isinstance(given, int | float) and isinstance(gold, int | float):
        return given == gold or math.isclose(given, gold, rel_tol=TOLERANCE, abs_tol=TOLERANCE * 1e-3)
    return type(given) is type(gold) and given == gold


def _shape(row: Row) -> str:
    """Everything but the numbers."""
    return repr(["#" if isinstance(cell, int | float) else cell for cell in row])


def _order(row: Row) -> tuple[str, list[float]]:
    """Equal rows come next to each other whatever their last digits are."""
    return _shape(row), [float(f"{float(cell):.6g}") for cell in row if isinstance(cell, int | float)]


def _matched(ours: Sequence[Row], theirs: Sequence[Row]) -> bool:
    """Each row finds one of its own: greedy, as being within so small a tolerance is as good as being equal."""
    left = list(theirs)
    for row in ours:
        found = next((i for i, other in enumerate(left) if same_row(row, other)), None)
        if found is None:
            return False
        del left[found]
    return True
