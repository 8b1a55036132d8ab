"""What changed between two checkpoints in one task or suite, item by item, and which items could not be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from sdft_cli.evaluation import summaries
from sdft_cli.evaluation.cache import Evaluated
from sdft_cli.evaluation.units import SUITE
from sdft_cli.runs.records import ItemRecord
from sdft_cli.stats import paired
from sdft_cli.stats.intervals import Interval
from sdft_cli.stats.paired import Change, Documents, Scores


class Ends(TypedDict):
    """The shares, in ``a`` and in ``b``, of completions that were cut at the limit of new tokens, and that are exact;
    None where no completion tells."""

    cut: tuple[float | None, float | None]
    exact: tuple[float | None, float | None]


class UnitChange(Ends):
    """How a task or suite, or one ``part`` of a suite, changed from checkpoint ``a`` to ``b``: `paired.Change`.

    Not compared are the items of one side alone (``only_a``, ``only_b``) and those that both have and one or both did
    not score (``unscored``), by their ids.
    """

    unit: str
    part: str | None
    n: int
    documents: int
    a: float
    b: float
    difference: float
    standard_error: float | None
    interval: Interval | None
    gained: list[str]
    lost: list[str]
    p: float
    test: str
    only_a: list[str]
    only_b: list[str]
    unscored: list[str]


def unit_changes(unit: str, a: Evaluated, b: Evaluated) -> tuple[list[UnitChange], list[str]]:
    """One row for the unit and, for a suite, one for each part below it; and what of it could not be compared."""
    before, after = a.parts(unit), b.parts(unit)
    lacks = on_one_side(f"{unit}: only {{}} has the part {{}}", before, after)
    both = {part: _paired(before[part], after[part]) for part in before if part in after}
    changed = {part: change for part, sides in both.items() if (change := paired.change(*sides))}
    without = [f"{unit}{f', {part}' if part else ''}" for part in both if part not in changed]
    lacks += [f"{name}: no item is scored on both sides" for name in without]
    sides = [both[part] for part in changed]
    whole = paired.change_of_parts(sides)
    if whole is None:
        return [], lacks
    below = changed.items() if len(changed) > 1 else ()
    of_parts = [
        _unit_change(unit, part, change, [both[part]], _ends(unit, before[part], after[part])) for part, change in below
    ]
    items = ([item for part in changed for item in side[part]] for side in (before, after))
    return [_unit_change(unit, None, whole, sides, _ends(unit, *items)), *of_parts], lacks


def on_one_side(text: str, a: Iterable[str], b: Iterable[str]) -> list[str]:
    """``text``, filled with the side and the names that it alone has; nothing where both have the same."""
    of_a, of_b = list(a), list(b)
    alone = {"A": [name for name in of_a if name not in of_b], "B": [name for name in of_b if name not in of_a]}
    return [text.format(side, ", ".join(names)) for side, names in alone.items() if names]


def _paired(before: Sequence[ItemRecord], after: Sequence[ItemRecord]) -> tuple[Scores, Scores, Documents]:
    documents = {item["id"]: item.get("document") for item in [*after, *before]}
    return {item["id"]: item["value"] for item in before}, {item["id"]: item["value"] for item in after}, documents


def _ends(unit: str, before: Sequence[ItemRecord], after: Sequence[ItemRecord]) -> Ends:
    """How the completions of both sides ended; exact answers are of tasks."""
    exact = (None, None) if unit.startswith(SUITE) else (summaries.exact(before), summaries.exact(after))
    return {"cut": (summaries.cut(before), summaries.cut(after)), "exact": exact}


def _unit_change(
    unit: str,
    part: str | None,
    change: Change,
    sides: Sequence[tuple[Scores, Scores, Documents]],
    ends: Ends,
) -> UnitChange:
    return {
        **ends,
        "unit": unit,
        "part": part,
        "n": change.n,
        "documents": change.clusters,
        "a": change.before,
        "b": change.after,
        "difference": change.difference,
        "standard_error": change.standard_error,
        "interval": change.interval,
        "gained": change.gained,
        "lost": change.lost,
        "p": change.p,
        "test": change.test,
        "only_a": [i for before, after, _ in sides for i in before if i not in after],
        "only_b": [i for before, after, _ in sides for i in after if i not in before],
        "unscored": [i for a, b, _ in sides for i in a if i in b and (a[i] is None or b[i] is None)],
    }
