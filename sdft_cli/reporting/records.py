"""Everything a report says of runs, as JSON: a record a run, one a group over seeds, and what they differ in.

Tables, sentences and files are all made from this, so a number is computed once and reads the same everywhere.
Left out: curves over steps, which plots read from the runs themselves, and excerpts of completions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import sdft_cli
from sdft_cli.console import is_change
from sdft_cli.evaluation import comparable
from sdft_cli.reporting import comparisons, groups
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import continual

Row = dict[str, Any]

MEANINGS = {
    "average_accuracy": "mean accuracy at the end over the tasks trained",
    "learning_accuracy": "mean accuracy of each task right after the stage that trained it last",
    "backward_transfer": "what earlier tasks gained since they were learned; negative is forgetting",
    "forward_transfer": "what tasks gained over the base before any stage trained them",
    "forgetting": "fall from each earlier task's best stage; its maximum reads high under noise",
    "prior_change": "change of the prior suite from base to end, mean over its skills",
}
#: `continual.sign_flip` enumerates all signs of at most so many seeds.
_MOST_SEEDS = 24


def gather(found: Sequence[Group], single: Mapping[str, float] | None = None) -> Row:
    """The facts of runs by group; ``single`` has the accuracies of models that were trained on one task alone."""
    runs, names = [run for group in found for run in group.runs], groups.labels(found)
    by_group = [group for group in found for _ in group.runs]
    return {
        "runs": [
            {
                **_run(run, name),
                "group": group.name,
                "unlike": _unlike(runs[0], run),
                "curves": comparisons.curves(run, single),
            }
            for run, name, group in zip(runs, names, by_group, strict=True)
        ],
        "groups": [_group(group) for group in found],
        "pair": _pair(*found) if len(found) == 2 else None,
        "difference": comparisons.difference(*runs) if len(runs) == 2 else None,
        "normalised": dict(zip(names, comparisons.normalised(runs), strict=True)),
        "meanings": MEANINGS,
        "draws": continual.DRAWS,
        "version": sdft_cli.__version__,
    }


# --- one run -----------------------------------------------------------------------------------------------------


def _run(run: RunResult, name: str) -> Row:
    return {
        "label": name,
        "name": run.name,
        "method": run.method,
        "seed": groups.seed_of(run),
        "finished": run.finished,
        "seconds": run.seconds,
        "stages": run.stages,
        **matrix(run),
        "metrics": {m: comparisons.cell(run.metrics[m], run.metric_intervals[m]) for m in continual.METRICS},
        "changes": comparisons.changes(run),
        "skills": [_skill(run, part) for part in run.parts],
        "measures": [row for task in run.tasks for row in _measures(run, task)],
        "pass_at": {task: found for task in run.tasks if (found := pass_at(run, task))},
        "endings": run.endings,
        "guards": run.guards,
        "notes": run.notes,
        "remarks": run.remarks,
        "settings": {str(stage): of for stage, of in run.settings.items()},
        "recipe": portable(run.recipe),
        "environment": portable(run.environment),
    }


def matrix(run: RunResult) -> Row:
    """The accuracy matrix as rows of cells, the suite's last; ``new``: the task that the stage trained."""
    heads = [*run.tasks, *([f"prior: {run.suite}"] if run.prior else [])]
    sizes = [*map(run.task_n, run.tasks), *([run.suite_n] if run.prior else [])]
    return {"heads": heads, "sizes": sizes, "rows": [_stage(run, k) for k in range(run.last + 1)]}


def _stage(run: RunResult, k: int) -> Row:
    new = run.trained[k - 1] if k else None
    pairs = list(zip(run.matrix[k], run.intervals[k], strict=True))
    if run.prior and run.prior_intervals:
        pairs.append((run.prior[k], run.prior_intervals[k]))
    return {
        "name": stage_name(run, k),
        "cells": [comparisons.cell(*pair) | {"new": j == new} for j, pair in enumerate(pairs)],
    }


def stage_name(run: RunResult, k: int) -> str:
    return f"{k} {run.stages[k - 1]}" if k else "base"


def _skill(run: RunResult, part: str) -> Row:
    """A skill of the suite: base, end and the change between them."""
    column = run.parts[part]
    base, end = (comparisons.cell(column.cells[k], column.intervals[k]) for k in (0, run.last))
    known = base["value"] is not None and end["value"] is not None
    change = end["value"] - base["value"] if known else None
    return {"name": part, "n": max(column.counts), "base": base, "end": end, "change": change}


def _measures(run: RunResult, task: str) -> list[Row]:
    """What was measured of a task besides its accuracy, before training and at the end."""
    base, end = (_beside(run.scores(k, task)) for k in (0, run.last))
    names = dict.fromkeys([*end, *base])
    return [{"task": task, "name": n, "base": base.get(n), "end": end.get(n)} for n in names]


def _beside(summary: Row) -> dict[str, Row]:
    """Second scores, further splits with theirs, and the mean length of completions."""
    found = {name: comparisons.cell(value, None) for name, value in summary.get("extra", {}).items()}
    for split, of in summary.items():
        if isinstance(of, dict) and "accuracy" in of:
            found[split] = comparisons.cell(of["accuracy"], of.get("interval"))
            found |= {f"{split} {name}": comparisons.cell(value, None) for name, value in of.get("extra", {}).items()}
    if summary.get("mean_tokens"):
        found["completion tokens"] = comparisons.cell(summary["mean_tokens"], None)
    return found


def pass_at(run: RunResult, task: str) -> dict[str, Row]:
    """pass@k of a task at the end, by k."""
    found = run.scores(run.last, task).get("pass_at") or {}
    return {k: comparisons.cell(value, found["intervals"][k]) for k, value in found.get("values", {}).items()}


def _unlike(first: RunResult, run: RunResult) -> bool:
    """Whether a run's end was measured under other settings than the first run's."""
    sides = [(found.name, found.settings.get(found.last, {})) for found in (first, run)]
    return bool(comparable.differences(sides))


def portable(value: Any) -> Any:
    """A copy in which an absolute path keeps its last part only: a report is made to be passed on."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    return f"…/{PurePath(value).name}" if isinstance(value, str) and os.path.isabs(value) else value


# --- over seeds ----------------------------------------------------------------------------------------------------


def _group(group: Group) -> Row:
    """Means over the seeds of a group with t-intervals; of one seed its values alone."""
    values = {m: [run.metrics[m] for run in group.runs] for m in continual.METRICS}
    means = {m: (comparisons.seed_cell if is_change(m) else comparisons.seed_accuracy)(of) for m, of in values.items()}
    return {"name": group.name, "seeds": group.seeds, "metrics": means, **mean_matrix(group)}


def mean_matrix(group: Group) -> Row:
    """The accuracy matrix over the seeds of a group; empty where its runs were tested on different things."""
    tables = [matrix(run) for run in group.runs]
    first = tables[0]
    if any(table["heads"] != first["heads"] for table in tables):  # another suite, or none
        return {"heads": [], "sizes": [], "rows": []}
    rows = []
    for k, row in enumerate(first["rows"]):
        cells = [[table["rows"][k]["cells"][j]["value"] for table in tables] for j in range(len(first["heads"]))]
        means = [comparisons.seed_accuracy(of) | {"new": row["cells"][j]["new"]} for j, of in enumerate(cells)]
        if k == 0:  # one model for all seeds, and no training yet
            means = [mean | {"interval": None} for mean in means]
        rows.append({"name": row["name"], "cells": means})
    return {"heads": first["heads"], "sizes": first["sizes"], "rows": rows}


def _pair(a: Group, b: Group) -> Row | None:
    """The paired tests of ``a`` minus ``b`` on the seeds that both have; None of fewer than two."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    if not 2 <= len(common) <= _MOST_SEEDS:
        return None
    sides = [{groups.seed_of(run): run.metrics for run in group.runs} for group in (a, b)]
    tests = {
        m: comparisons.seed_test(*([side[seed][m] for seed in common] for side in sides)) for m in continual.METRICS
    }
    return {"a": a.name, "b": b.name, "seeds": common, "smallest_p": 2.0 ** (1 - len(common)), "tests": tests}
