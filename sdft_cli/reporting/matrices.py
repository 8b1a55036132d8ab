"""The accuracy matrix as rows of cells: of one run, or means over the seeds of a group."""

from __future__ import annotations

from typing import TypedDict

from sdft_cli.reporting.estimates import Estimate, estimate, seed_accuracy
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult


class MatrixCell(Estimate):
    """An accuracy; ``new`` marks the task that the stage trained."""

    new: bool


class MatrixRow(TypedDict):
    """The accuracies after one stage."""

    name: str
    cells: list[MatrixCell]


class Matrix(TypedDict):
    """A column per task and, last, one for the prior suite; ``sizes`` are their numbers of test items."""

    heads: list[str]
    sizes: list[int]
    rows: list[MatrixRow]


def matrix(run: RunResult) -> Matrix:
    heads = [*run.tasks, *([f"prior: {run.suite}"] if run.prior else [])]
    sizes = [*map(run.task_n, run.tasks), *([run.suite_n] if run.prior else [])]
    return {"heads": heads, "sizes": sizes, "rows": [_row(run, k) for k in range(run.last + 1)]}


def _row(run: RunResult, k: int) -> MatrixRow:
    new = run.trained[k - 1] if k else None
    pairs = list(zip(run.matrix[k], run.intervals[k], strict=True))
    if run.prior and run.prior_intervals:
        pairs.append((run.prior[k], run.prior_intervals[k]))
    name = f"{k} {run.stages[k - 1]}" if k else "base"
    return {"name": name, "cells": [{**estimate(*pair), "new": j == new} for j, pair in enumerate(pairs)]}


def mean_matrix(group: Group) -> Matrix:
    """Means over the seeds of a group with t-intervals; empty where its runs were tested on different suites."""
    matrices = [matrix(run) for run in group.runs]
    first = matrices[0]
    if any(other["heads"] != first["heads"] for other in matrices):
        return {"heads": [], "sizes": [], "rows": []}
    rows: list[MatrixRow] = []
    for k, row in enumerate(first["rows"]):
        cells: list[MatrixCell] = []
        for j, cell in enumerate(row["cells"]):
            mean = seed_accuracy([of_seed["rows"][k]["cells"][j]["value"] for of_seed in matrices])
            if k == 0:  # all seeds share the base model, which is not trained yet
                mean = estimate(mean["value"])
            cells.append({**mean, "new": cell["new"]})
        rows.append({"name": row["name"], "cells": cells})
    return {"heads": first["heads"], "sizes": first["sizes"], "rows": rows}
