"""What runs say beyond their own numbers: items gained and lost, differences, seeds, skills, samples. JSON rows.

Which claim gets which test: *this checkpoint changed* an exact McNemar test on its items; *these two checkpoints
differ* a paired bootstrap on the same items; *this method is better* a paired t and an exact sign-flip over seeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sdft_cli import metrics
from sdft_cli.metrics import Interval
from sdft_cli.results import Column, RunResult

Row = dict[str, Any]


def cell(value: float | None, interval: Interval | None) -> Row:
    """A value with its interval."""
    return {"value": value, "interval": interval}


def changes(run: RunResult) -> list[Row]:
    """Items gained and lost with McNemar's exact p: from base to end, and since a task was last trained."""
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
    gained = lost = 0
    for column in columns:
        if before is None or column.items is None or column.cells[before] is None or column.cells[after] is None:
            return None
        gained += int((column.items[after] > column.items[before]).sum())
        lost += int((column.items[after] < column.items[before]).sum())
    return {"gained": gained, "lost": lost, "p": metrics.mcnemar(gained, lost).p}


def difference(a: RunResult, b: RunResult) -> dict[str, Row] | None:
    """The metrics of ``a`` minus those of ``b``, with paired intervals; None unless they share all test items."""
    same = [{t: c.ids for t, c in {**run.columns, **run.parts}.items()} for run in (a, b)]
    if same[0] != same[1] or list(a.columns) != list(b.columns) or a.trained != b.trained:
        return None
    found = {}
    for metric in metrics.METRICS:
        x, y, p, q = a.metrics[metric], b.metrics[metric], a.draws[metric], b.draws[metric]
        value = None if x is None or y is None else x - y
        paired = None if p is None or q is None else p - q
        found[metric] = cell(value, metrics.interval(paired, value, a.least_widths[metric]))
    return found


def over_seeds(runs: Sequence[RunResult]) -> Row | None:
    """Means over the seeds of each method, and the paired test of two methods; None without repeated seeds."""
    groups: dict[str, dict[str, RunResult]] = {}
    for run in runs:
        groups.setdefault(run.method, {})[str(run.recipe.get("seed"))] = run
    if sum(map(len, groups.values())) != len(runs) or all(len(group) == 1 for group in groups.values()):
        return None
    methods = [{"name": method, "n": len(group)} for method, group in groups.items()]
    common = sorted(set.intersection(*(set(group) for group in groups.values()))) if len(groups) == 2 else []
    paired = len(common) > 1
    rows = []
    for metric in metrics.METRICS:
        cells = [_seed_cell([run.metrics[metric] for run in group.values()]) for group in groups.values()]
        row: Row = {"metric": metric, "cells": cells}
        if paired:
            a, b = ([group[seed].metrics[metric] for seed in common] for group in groups.values())
            row["test"] = _seed_test(a, b)
        rows.append(row)
    pair = f"{methods[0]['name']} − {methods[1]['name']}" if paired else None
    smallest = 2.0 ** (1 - len(common))
    return {"methods": methods, "rows": rows, "pair": pair, "common": len(common), "smallest_p": smallest}


def _seed_cell(values: Sequence[float | None]) -> Row:
    known = [value for value in values if value is not None]
    return cell(*metrics.seed_mean(known)) if known and len(known) == len(values) else cell(None, None)


def _seed_test(a: Sequence[float | None], b: Sequence[float | None]) -> Row:
    differences = [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if len(differences) < len(a):
        return {**cell(None, None), "t_p": None, "flip_p": None}
    test = metrics.seed_test(differences)
    return {**cell(test.mean, test.interval), "t_p": test.t_p, "flip_p": test.flip_p}


def skills(runs: Sequence[RunResult]) -> list[Row]:
    """Every skill of the suites with each run's base and end."""
    rows = []
    for name in dict.fromkeys(part for run in runs for part in run.parts):
        columns = [(run.parts.get(name), run.last) for run in runs]
        sizes = sorted({max(column.counts) for column, _ in columns if column})
        rows.append({"name": name, "n": sizes[0], "cells": [_part_cell(column, last) for column, last in columns]})
    return rows


def _part_cell(column: Column | None, last: int) -> Row | None:
    if column is None:
        return None
    base, end = (cell(column.cells[k], column.intervals[k]) for k in (0, last))
    known = base["value"] is not None and end["value"] is not None
    return {"base": base, "end": end, "change": end["value"] - base["value"] if known else None}


# --- samples -----------------------------------------------------------------------------------------------------


def samples(run: RunResult, per_kind: int = 2, longest: int = 1500) -> list[Row]:
    """A handful of items whose score changed, for every task and the suite, with their completions.

    Gained and lost are from base to end, forgotten from right after the task's stage to the end. Which items are
    shown is decided by a hash of their id, so not by their looks, and alike for all runs.
    """
    groups = []
    for task in run.tasks:
        if run.matrix[0][run.tasks.index(task)] is not None and run.matrix[-1][run.tasks.index(task)] is not None:
            groups.append(_group(task, run, task, per_kind, longest))
    if run.prior and run.prior[0] is not None and run.prior[-1] is not None:
        groups.append(_group(f"suite {run.suite}", run, None, per_kind, longest))
    return groups


def _group(name: str, run: RunResult, task: str | None, per_kind: int, longest: int) -> Row:
    since = run.reference(task) if task else None
    stages = {0: "base", **({since: f"after stage {since}"} if since else {}), run.last: f"end (stage {run.last})"}
    items = {k: {r["id"]: r for r in run.items(k, task)} for k in stages}
    values = {k: {i: row["value"] for i, row in rows.items()} for k, rows in items.items()}
    gained, lost = metrics.changes(values[0], values[run.last])
    forgotten = metrics.changes(values[since], values[run.last])[1] if since and since != run.last else None
    found: list[Row] = []
    for kind, ids in (("gained", gained), ("lost", lost), ("forgotten", forgotten or [])):
        fresh = sorted(set(ids) - {sample["id"] for sample in found}, key=_mixed)
        found += [
            _sample(kind, i, {when: items[k].get(i) for k, when in stages.items()}, longest) for i in fresh[:per_kind]
        ]
    counts = {"gained": len(gained), "lost": len(lost), "forgotten": None if forgotten is None else len(forgotten)}
    return {"name": name, **counts, "shown": len(found), "samples": found}


def _sample(kind: str, identity: str, rows: Mapping[str, Row | None], longest: int) -> Row:
    views = [
        {
            "when": when,
            "value": row["value"],
            "why": text(row.get("why"), longest),
            "extracted": None if row.get("extracted") is None else text(row["extracted"], longest),
            "completion": text(row.get("completion"), longest),
        }
        for when, row in rows.items()
        if row
    ]
    last = next(row for row in reversed(list(rows.values())) if row)
    shown = {"prompt": text(last.get("prompt"), longest), "answer": text(last.get("answer"), longest)}
    return {"kind": kind, "id": identity, **shown, "views": views}


def text(value: Any, longest: int) -> str:
    """Whatever an item line holds as readable text: a prompt's messages one a paragraph, other JSON as JSON."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(m, dict) and "content" in m for m in value):
        value = "\n\n".join(f"{m.get('role', '')}: {m['content']}" for m in value)
    value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(value) <= longest else f"{value[:longest]} … ({len(value)} characters)"


def _mixed(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()
