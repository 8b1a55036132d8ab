"""What runs say beyond their own numbers: items gained and lost, differences, curves, seeds. JSON rows.

Which claim gets which test: *this checkpoint changed* an exact McNemar or sign-flip test on its items; *these two
checkpoints differ* a paired bootstrap on the same items; *this method is better* a paired t and an exact sign-flip
over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdft_cli.errors import UsageError
from sdft_cli.runs.results import Column, RunResult
from sdft_cli.stats import continual, paired
from sdft_cli.stats.continual import Interval

Row = dict[str, Any]


def cell(value: float | None, interval: Interval | None) -> Row:
    """A value with its interval."""
    return {"value": value, "interval": interval}


def changes(run: RunResult) -> list[Row]:
    """Items gained and lost, with the p of `paired.p_value`: from base to end, and since a task was last trained."""
    rows = []
    for task, column in run.columns.items():
        since = run.reference(task)
        learned = _change([column], since, run.last) if since not in (None, run.last) else None
        rows.append({"name": task, "n": run.task_n(task), "base": _change([column], 0, run.last), "learned": learned})
    if run.suite:
        parts = list(run.parts.values())
        base = _change(parts, 0, run.last)
        rows.append({"name": f"suite {run.suite}", "n": run.suite_n, "base": base, "learned": None})
    return rows


def _change(columns: Sequence[Column], before: int | None, after: int) -> Row | None:
    moves = []
    for column in columns:
        if before is None or column.items is None or column.cells[before] is None or column.cells[after] is None:
            return None
        moves.append(column.items[after] - column.items[before])
    moved = np.concatenate(moves)
    return {"gained": int((moved > 0).sum()), "lost": int((moved < 0).sum()), "p": paired.p_value(moved)[0]}


def difference(a: RunResult, b: RunResult) -> dict[str, Row] | None:
    """The metrics of ``a`` minus those of ``b``, with paired intervals; None unless they share all test items."""
    same = [{t: c.ids for t, c in {**run.columns, **run.parts}.items()} for run in (a, b)]
    if same[0] != same[1] or list(a.columns) != list(b.columns) or a.trained != b.trained:
        return None
    found = {}
    for metric in continual.METRICS:
        x, y, p, q = a.metrics[metric], b.metrics[metric], a.draws[metric], b.draws[metric]
        value = None if x is None or y is None else x - y
        paired = None if p is None or q is None else p - q
        found[metric] = cell(value, continual.interval(paired, value, a.least_widths[metric]))
    return found


def curves(run: RunResult, single: Mapping[str, float] | None = None) -> list[Row]:
    """The metrics after every stage, the base first. ``single`` has the accuracies of models that were trained on one
    task alone, by task; intransigence is told against them, and None without."""
    references = [(single or {}).get(task) for task in run.tasks]
    missed = [None, *continual.intransigence(run.matrix, run.trained, references)]
    parts = [[column.cells[k] for column in run.parts.values()] for k in range(run.last + 1)]
    rows = []
    for k in range(run.last + 1):
        measured = continual.summary(run.matrix[: k + 1], run.trained[:k], parts[: k + 1] if run.parts else ())
        prior = run.prior[k] if run.prior else None
        task = run.stages[k - 1] if k else None
        rows.append({"stage": k, "task": task, **measured, "prior": prior, "intransigence": missed[k]})
    return rows


def single_task(runs: Sequence[RunResult]) -> dict[str, float]:
    """The accuracy that each task's own run reached, which trained it alone: what intransigence is told against."""
    found = {}
    for run in runs:
        value = run.matrix[-1][run.trained[-1]] if run.trained else None
        if len(set(run.stages)) != 1 or value is None:
            raise UsageError(
                f"{run.folder} is no single-task reference: it trained {len(set(run.stages))} tasks",
                "name a run of one task alone",
            )
        found[run.stages[0]] = value
    return found


def normalised(runs: Sequence[RunResult]) -> list[list[list[float | None]]]:
    """The accuracies as shares of the best gain over the base, as the paper's Figure 3 has them: [run][stage][task].

    The best is over all ``runs`` and stages. None where it is under two paired standard errors above the base.
    """
    return [_shares(run, [best_gain(runs, task) for task in run.tasks]) for run in runs]


def _shares(run: RunResult, best: Sequence[tuple[float, float] | None]) -> list[list[float | None]]:
    rows = []
    for row in run.matrix:
        triples = zip(row, run.matrix[0], best, strict=True)
        rows.append([share(x, base, top) for x, base, top in triples])
    return rows


def share(x: float | None, base: float | None, best: tuple[float, float] | None) -> float | None:
    """``x`` as a share of the ``best`` gain over ``base``; None where any of them is not known, or there is no gain."""
    return None if x is None or base is None or best is None else continual.normalised(x, base, *best)


def best_gain(runs: Sequence[RunResult], task: str) -> tuple[float, float] | None:
    """The best accuracy on ``task`` over runs and stages, and the standard error of its gain over that run's base."""
    found = [
        (value, run, k)
        for run in runs
        if task in run.tasks
        for k, row in enumerate(run.matrix)
        if (value := row[run.tasks.index(task)]) is not None
    ]
    if not found:
        return None
    value, run, k = max(found, key=lambda entry: entry[0])
    items = run.columns[task].items
    if items is None or np.isnan(items[[0, k]]).any():
        return None
    return value, paired.clustered_error(items[k] - items[0], range(items.shape[1])) or 0.0


def seed_cell(values: Sequence[float | None]) -> Row:
    """The mean of one value a seed with its t-interval; None where a seed has none."""
    known = [value for value in values if value is not None]
    return cell(*continual.seed_mean(known)) if known and len(known) == len(values) else cell(None, None)


def seed_accuracy(values: Sequence[float | None]) -> Row:
    """`seed_cell` of accuracies: Student's t knows no bounds, an accuracy does."""
    found = seed_cell(values)
    low, high = found["interval"] or (0.0, 1.0)
    return {**found, "interval": found["interval"] and (max(0.0, low), min(1.0, high))}


def seed_test(a: Sequence[float | None], b: Sequence[float | None]) -> Row:
    """The paired tests of ``a`` minus ``b``, one value a seed in each; None where a seed has none."""
    differences = [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if len(differences) < len(a):
        return {**cell(None, None), "t_p": None, "flip_p": None}
    test = continual.seed_test(differences)
    return {**cell(test.mean, test.interval), "t_p": test.t_p, "flip_p": test.flip_p}
