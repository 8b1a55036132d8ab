"""The accuracy matrix, and the losses beside it, as rows of cells: of one run, or means over the seeds of a group."""

from __future__ import annotations

from typing import TypedDict

from sdft_cli.reporting.estimates import Estimate, estimate, seed_accuracy, seed_mean
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.loss_columns import text_of
from sdft_cli.runs.results import RunResult
from sdft_cli.runs.token_records import TokenLoss


class MatrixCell(Estimate):
    """An accuracy, or a loss; ``new`` marks the task that the stage trained."""

    new: bool


class MatrixRow(TypedDict):
    """The accuracies, or the losses, after one stage."""

    name: str
    cells: list[MatrixCell]


class Matrix(TypedDict):
    """A column per task and, last, one for the prior suite; ``sizes`` are their numbers of test items."""

    heads: list[str]
    sizes: list[int]
    rows: list[MatrixRow]


class CompletenessRow(TypedDict):
    """How completions ended after one stage, in the columns of `Matrix`; None where that was not recorded."""

    name: str
    cut: list[float | None]
    exact: list[float | None]


class Losses(TypedDict):
    """A column per task whose loss was measured, in nats per token; ``texts`` tell what the loss of each is of."""

    heads: list[str]
    texts: list[str]
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
    return {
        "name": _stage_name(run, k),
        "cells": [{**estimate(*pair), "new": j == new} for j, pair in enumerate(pairs)],
    }


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


def completeness(run: RunResult) -> list[CompletenessRow]:
    """A row per stage with the shares of completions that were cut, and that are exact, in the columns of `matrix`."""
    rows: list[CompletenessRow] = []
    for k in range(run.last + 1):
        cells = [run.completeness[unit][k] or {} for unit in (*run.tasks, *([None] if run.prior else []))]
        cut, exact = ([cell.get("cut") for cell in cells], [cell.get("exact") for cell in cells])
        rows.append({"name": _stage_name(run, k), "cut": cut, "exact": exact})
    return rows


def mean_completeness(group: Group) -> list[CompletenessRow]:
    """Means over the seeds of a group; empty where `mean_matrix` is."""
    of_runs = [completeness(run) for run in group.runs] if mean_matrix(group)["rows"] else []
    rows: list[CompletenessRow] = []
    for stages in zip(*of_runs, strict=True):
        cut = [seed_mean(values)["value"] for values in zip(*(row["cut"] for row in stages), strict=True)]
        exact = [seed_mean(values)["value"] for values in zip(*(row["exact"] for row in stages), strict=True)]
        rows.append({"name": stages[0]["name"], "cut": cut, "exact": exact})
    return rows


def losses(run: RunResult) -> Losses:
    """The losses of a run; no heads where none was measured."""
    texts = ["; ".join(dict.fromkeys(text_of(loss) for loss in column if loss)) for column in run.losses.values()]
    rows: list[MatrixRow] = []
    for k in range(run.last + 1):
        new = run.stages[k - 1] if k else None
        cells: list[MatrixCell] = [{**_loss(column[k]), "new": task == new} for task, column in run.losses.items()]
        rows.append({"name": _stage_name(run, k), "cells": cells})
    return {"heads": list(run.losses), "texts": texts, "rows": rows}


def mean_losses(group: Group) -> Losses:
    """Means over the seeds of a group with t-intervals; no heads where its runs measured other losses."""
    of_runs = [losses(run) for run in group.runs]
    first = of_runs[0]
    if any((other["heads"], other["texts"]) != (first["heads"], first["texts"]) for other in of_runs):
        return {"heads": [], "texts": [], "rows": []}
    rows: list[MatrixRow] = []
    for k, row in enumerate(first["rows"]):
        cells: list[MatrixCell] = []
        for j, cell in enumerate(row["cells"]):
            mean = seed_mean([of_seed["rows"][k]["cells"][j]["value"] for of_seed in of_runs])
            cells.append({**(mean if k else estimate(mean["value"])), "new": cell["new"]})
        rows.append({"name": row["name"], "cells": cells})
    return {**first, "rows": rows}


def _stage_name(run: RunResult, k: int) -> str:
    return f"{k} {run.stages[k - 1]}" if k else "base"


def _loss(loss: TokenLoss | None) -> Estimate:
    ends = loss.get("interval") if loss else None
    return estimate(loss["value"] if loss else None, (ends[0], ends[1]) if ends else None)
