"""What figures show of a group: accuracies by stage with their intervals, and what to call it.

Intervals are 95 %: over test items of a group's one run, over seeds (Student's t) of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdft_cli.reporting import comparisons
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.continual import Interval

Cell = tuple[float | None, Interval | None]


def title_of(group: Group) -> str:
    """The group's name, and how many seeds it has."""
    return group.name if len(group.runs) == 1 else f"{group.name} ({len(group.runs)} seeds)"


def suite_of(runs: Sequence[RunResult]) -> str:
    """The names of the prior suites."""
    return ", ".join(dict.fromkeys(run.suite for run in runs if run.suite))


def cells(run: RunResult, task: str | None) -> list[Cell]:
    """Accuracy and interval by stage of a task (None: the prior suite)."""
    nothing: list[Any] = [None] * len(run.matrix)
    if task is None:
        return list(zip(run.prior or nothing, run.prior_intervals or nothing, strict=True))
    column = run.columns.get(task)
    return list(zip(column.cells, column.intervals, strict=True)) if column else [(None, None)] * len(run.matrix)


def mean_cells(group: Group, task: str | None) -> list[Cell]:
    """The same over the seeds of a group."""
    if len(group.runs) == 1:
        return cells(group.runs[0], task)
    rows = zip(*(cells(run, task) for run in group.runs), strict=True)
    return [mean_of([value for value, _ in row]) for row in rows]


def mean_of(values: Sequence[float | None]) -> Cell:
    """A mean over seeds and its t-interval."""
    mean = comparisons.seed_accuracy(values)
    return mean["value"], mean["interval"]
