"""What changed between two checkpoints, two runs, or two groups of seeds.

Each claim has its own test. *This checkpoint changed*: exact McNemar or sign-flip test on its items. *These two runs
differ*: paired bootstrap on the same items. *This method is better*: paired t-test and exact sign-flip test over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from sdft_cli.reporting.estimates import Estimate, SeedDifference, estimate, seed_difference
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.matrix_columns import Column
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import across_seeds, bootstrap, continual, paired
from sdft_cli.stats.continual import Metric


class Moved(TypedDict):
    """How many items were gained and lost between two stages, and the p-value of `paired.p_value`."""

    gained: int
    lost: int
    p: float


class UnitChanges(TypedDict):
    """Items of a task or of the suite that moved: from the base model to the end (``base``), and from the last stage
    that trained the task to the end (``learned``); None where that was not evaluated."""

    name: str
    n: int
    base: Moved | None
    learned: Moved | None


def changes(run: RunResult) -> list[UnitChanges]:
    """Items gained and lost, by task and for the suite."""
    rows: list[UnitChanges] = []
    for task, column in run.columns.items():
        since = run.reference(task)
        learned = _moved([column], since, run.last) if since not in (None, run.last) else None
        rows.append({"name": task, "n": run.task_n(task), "base": _moved([column], 0, run.last), "learned": learned})
    if run.suite:
        base = _moved(list(run.counted_parts.values()), 0, run.last)
        rows.append({"name": f"suite {run.suite}", "n": run.suite_n, "base": base, "learned": None})
    return rows


def _moved(columns: Sequence[Column], before: int | None, after: int) -> Moved | None:
    differences = []
    for column in columns:
        if before is None or column.items is None or column.cells[before] is None or column.cells[after] is None:
            return None
        differences.append(column.items[after] - column.items[before])
    moved = np.concatenate(differences)
    return {"gained": int((moved > 0).sum()), "lost": int((moved < 0).sum()), "p": paired.p_value(moved)[0]}


def difference(a: RunResult, b: RunResult) -> dict[Metric, Estimate] | None:
    """The metrics of ``a`` minus those of ``b``, with paired intervals; None unless they share all test items."""
    ids = [{unit: column.ids for unit, column in {**run.columns, **run.parts}.items()} for run in (a, b)]
    if ids[0] != ids[1] or list(a.columns) != list(b.columns) or a.counted != b.counted:
        return None
    differences = {}
    for metric in continual.METRICS:
        x, y, p, q = a.metrics[metric], b.metrics[metric], a.draws[metric], b.draws[metric]
        value = None if x is None or y is None else x - y
        draws = None if p is None or q is None else p - q
        differences[metric] = estimate(value, bootstrap.interval(draws, value, a.least_widths[metric]))
    return differences


class SeedComparison(TypedDict):
    """Group ``a`` minus group ``b`` on the seeds that both have. With fewer than two such seeds there are no ``tests``,
    with none there is no ``smallest_p``."""

    a: str
    b: str
    seeds: list[str]
    smallest_p: float | None
    tests: dict[Metric, SeedDifference]


def compare_groups(a: Group, b: Group) -> SeedComparison:
    """The paired tests of every metric over seeds; for at most `across_seeds.MOST` common seeds."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    of_a, of_b = (dict(zip(group.seeds, group.runs, strict=True)) for group in (a, b))
    tests = {}
    for metric in continual.METRICS if len(common) > 1 else ():
        x, y = ([side[seed].metrics[metric] for seed in common] for side in (of_a, of_b))
        tests[metric] = seed_difference(x, y)
    smallest_p = across_seeds.smallest_p(len(common)) if common else None
    return {"a": a.name, "b": b.name, "seeds": common, "smallest_p": smallest_p, "tests": tests}
