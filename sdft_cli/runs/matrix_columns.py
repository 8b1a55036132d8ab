"""One task's, or suite part's, accuracy after every stage: a column of the accuracy matrix.

Accuracies are recomputed from the item files on *shared* items: those scored at every evaluated stage, because
unscored is not wrong, and two stages compare only on the same items. If nothing is unscored (the usual case) they equal
``scores.json``, which is also the fallback where item files are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sdft_cli.runs.evaluations import read_items
from sdft_cli.runs.records import ItemRecord, Scores, Summary
from sdft_cli.stats.continual import Draws
from sdft_cli.stats.intervals import Interval, of_scores, wilson


@dataclass(frozen=True)
class Column:
    """Accuracy by stage on the shared items, with its interval (`intervals.of_scores`); None where not evaluated.

    ``items`` are scores of shape (stages + 1, items), all NaN in rows that were not evaluated; None without item files.
    ``ids`` are the shared items' ids, sorted; ``dropped`` counts the items that are not shared. ``unscored`` says by
    stage why none of its items was scored.
    """

    cells: list[float | None]
    counts: list[int]
    intervals: list[Interval | None]
    correct: list[float]
    items: Draws | None = None
    ids: tuple[str, ...] = ()
    dropped: int = 0
    unscored: Mapping[int, str] = field(default_factory=dict)

    @property
    def never_scored(self) -> str:
        """Why no item was scored at any stage; empty where one was, and where nothing was measured."""
        return "" if any(cell is not None for cell in self.cells) else next(iter(self.unscored.values()), "")


def task_column(run: Path, scores: Mapping[int, Scores], task: str) -> Column:
    """A task's column, from the scores of every evaluated stage."""
    recorded: dict[int, Summary] = {stage: s["tasks"][task] for stage, s in scores.items() if task in s["tasks"]}
    items = {stage: read_items(run, stage, task) for stage in recorded}
    return _column(max(scores) + 1, recorded, items)


def part_columns(run: Path, scores: Mapping[int, Scores], suite: str) -> dict[str, Column]:
    """The columns of a suite's parts, by name."""
    summaries = {k: s["suite"] for k, s in scores.items() if s["suite"] and s["suite"]["name"] == suite}
    items = {stage: read_items(run, stage, f"suite-{suite}") for stage in summaries}
    columns = {}
    for part in dict.fromkeys(name for s in summaries.values() for name in s["parts"]):
        recorded = {stage: s["parts"][part] for stage, s in summaries.items() if part in s["parts"]}
        of_part = {stage: [row for row in items[stage] if row.get("part") == part] for stage in recorded}
        columns[part] = _column(max(scores) + 1, recorded, of_part)
    return columns


def _column(rows: int, recorded: Mapping[int, Summary], items: Mapping[int, Sequence[ItemRecord]]) -> Column:
    """A column from item rows. From the recorded accuracies, and without intervals for metrics, if a stage's item rows
    are missing or its metric is not a mean over items."""
    scored = {k: r for k, r in recorded.items() if r["accuracy"] is not None}
    unscored = {k: _reason(items[k]) for k, r in recorded.items() if _is_unscored(r)}
    values = {k: {row["id"]: v for row in items[k] if (v := row["value"]) is not None} for k in scored}
    if not all(values.values()):
        counts = {k: (r.get("correct", (r["accuracy"] or 0) * r["n"]), r["n"]) for k, r in scored.items() if r["n"]}
        column = _filled(rows, counts)
        cells = [scored[k]["accuracy"] if k in scored else None for k in range(rows)]
        return replace(column, cells=cells, unscored=unscored)
    ids = sorted(set.intersection(*map(set, values.values()))) if values else []
    table = np.full((rows, len(ids)), np.nan)
    for k, by_id in values.items():
        table[k] = [by_id[i] for i in ids]
    every_id = {row["id"] for k in scored for row in items[k]}
    column = _filled(rows, {k: (float(table[k].sum()), len(ids)) for k in values if ids})
    ends = [of_scores(table[k].tolist()) if ids and k in values else None for k in range(rows)]
    dropped = len(every_id) - len(ids)
    return replace(column, intervals=ends, items=table, ids=tuple(ids), dropped=dropped, unscored=unscored)


def _is_unscored(summary: Summary) -> bool:
    """Whether there were items, and none was scored. A part whose metric is no accuracy is something else."""
    return summary["accuracy"] is None and summary.get("unscored", 0) > 0 and "metric" not in summary


def _reason(items: Sequence[ItemRecord]) -> str:
    """Why items are unscored: what is said of most of them."""
    reasons = Counter(why.removeprefix("unscored: ") for row in items if (why := row.get("why")))
    return reasons.most_common(1)[0][0] if reasons else "no item of it was scored"


def _filled(rows: int, cells: Mapping[int, tuple[float, int]]) -> Column:
    """A column from (correct, n) by stage, with Wilson's intervals: all that can be said without the items."""
    pairs = [cells.get(k) for k in range(rows)]
    return Column(
        cells=[pair[0] / pair[1] if pair else None for pair in pairs],
        counts=[pair[1] if pair else 0 for pair in pairs],
        intervals=[wilson(*pair) if pair else None for pair in pairs],
        correct=[pair[0] if pair else 0.0 for pair in pairs],
    )
