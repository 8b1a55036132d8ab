"""Accuracies as shares of the best gain over the base model, as in Figure 3 of the SDFT paper (arXiv 2601.19897).

The best is taken over all runs and stages. There is no share where the best gain is under two of its standard errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sdft_cli.runs.results import RunResult
from sdft_cli.stats import continual, paired


class Best(NamedTuple):
    """The best accuracy on a task, and the standard error of its gain over the base model of the same run."""

    accuracy: float
    standard_error: float


def shares(runs: Sequence[RunResult]) -> list[list[list[float | None]]]:
    """The share of every cell of the accuracy matrices: [run][stage][task]."""
    best = {task: best_gain(runs, task) for run in runs for task in run.tasks}
    return [
        [
            [share(x, base, best[task]) for x, base, task in zip(row, run.matrix[0], run.tasks, strict=True)]
            for row in run.matrix
        ]
        for run in runs
    ]


def share(x: float | None, base: float | None, best: Best | None) -> float | None:
    """``x`` as a share of the ``best`` gain over ``base``; None where one of them is missing, or there is no gain."""
    return None if x is None or base is None or best is None else continual.normalised(x, base, *best)


def best_gain(runs: Sequence[RunResult], task: str) -> Best | None:
    """The best accuracy on ``task`` over runs and stages; None where nothing was evaluated or its items are missing."""
    evaluated = [
        (value, run, k)
        for run in runs
        if task in run.tasks
        for k, row in enumerate(run.matrix)
        if (value := row[run.tasks.index(task)]) is not None
    ]
    if not evaluated:
        return None
    value, run, k = max(evaluated, key=lambda entry: entry[0])
    items = run.columns[task].items
    if items is None or np.isnan(items[[0, k]]).any():
        return None
    return Best(value, paired.clustered_error(items[k] - items[0], range(items.shape[1])) or 0.0)
