"""Read run folders: the accuracy matrix with its intervals, the metrics, curves, and the items behind them.

Only reads. Accuracies are recomputed from the item files, and on *shared* items: those scored at every evaluated
stage, because unscored is not wrong and two stages compare only on the same items. Where nothing is unscored (the
usual case) they equal ``scores.json``, which also stands in where item files are missing (then without intervals
for the metrics).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sdft_cli.errors import UsageError
from sdft_cli.runs.format import check_run_folder
from sdft_cli.stats import continual
from sdft_cli.stats.continual import Draws, Interval

Row = dict[str, Any]
#: The metrics that ``results.json`` holds.
RECORDED = ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change")
_HINT = "a run folder is what `sdft train --out` writes; name one, such as runs/<name>"


@dataclass(frozen=True)
class Column:
    """One task's (or suite part's) accuracy by stage, on its shared items.

    ``items`` has shape (stages + 1, items), rows that were not evaluated all NaN; None without item files.
    ``ids`` are the shared items' ids, sorted; ``dropped`` counts the items that are not shared.
    """

    cells: list[float | None]
    counts: list[int]
    intervals: list[Interval | None]
    correct: list[float]
    items: Draws | None = None
    ids: tuple[str, ...] = ()
    dropped: int = 0


@dataclass(frozen=True)
class RunResult:
    """One run as it stands on disk. Row 0 of ``matrix`` is the base, row k is after stage k; None: not evaluated.

    ``tasks`` are the columns, each once; ``stages`` the task of every planned stage, and ``trained[k - 1]`` the
    column that stage k trained, for the evaluated ones. ``prior`` is the suite's plain mean over ``parts`` (None
    without a suite). ``endings`` say of each stage with which step's model it ended and which step was the best on
    validation, ``guards`` what guards found. ``draws`` are the metrics' bootstrap draws, ``seconds`` adds up training
    steps and evaluations; ``settings`` are those of the evaluations, by stage and unit (see `alike`).
    ``notes`` tell what a reader must know before trusting the numbers, ``remarks`` how tasks are scored.
    """

    name: str
    folder: Path
    method: str
    recipe: Row
    environment: Row
    tasks: list[str]
    stages: list[str]
    trained: list[int]
    matrix: list[list[float | None]]
    counts: list[list[int]]
    intervals: list[list[Interval | None]]
    columns: dict[str, Column]
    suite: str | None
    parts: dict[str, Column]
    prior: list[float | None] | None
    prior_intervals: list[Interval | None] | None
    metrics: dict[str, float | None]
    metric_intervals: dict[str, Interval | None]
    least_widths: dict[str, float]
    draws: dict[str, Draws | None]
    steps: list[Row]
    evals: list[Row]
    endings: list[Row]
    guards: list[Row]
    seconds: float
    finished: bool
    settings: dict[int, dict[str, Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The last evaluated stage."""
        return len(self.matrix) - 1

    @property
    def suite_n(self) -> int:
        """How many of the suite's items are compared."""
        return sum(max(column.counts) for column in self.parts.values())

    def task_n(self, task: str) -> int:
        """How many of a task's items are compared."""
        return max(self.columns[task].counts)

    def reference(self, task: str) -> int | None:
        """The last evaluated stage that trained ``task``; None if none did."""
        j = self.tasks.index(task)
        return continual.reference(self.trained, j, self.last) if j in self.trained else None

    def items(self, stage: int, task: str | None) -> list[Row]:
        """The item lines (scores with completions) of a task (None: the suite) at a stage; empty if not evaluated."""
        return read_items(self.folder, stage, f"{task or f'suite-{self.suite}'}.jsonl")

    def scores(self, stage: int, task: str) -> Row:
        """All that was recorded of a task after ``stage``, as `scoring.summarize` has it; empty if nothing was."""
        where = _evaluations(self.folder).get(stage)
        found: Row = json_object(where / "scores.json")["tasks"].get(task, {}) if where else {}
        return found

    def side_scores(self, stage: int, task: str) -> dict[str, float]:
        """What is measured of a task after ``stage`` besides its accuracy: a grader's second scores by name, the
        accuracy on questions out of distribution (``ood``), and the second scores there (``ood lenient``)."""
        summary = self.scores(stage, task)
        beyond = summary.get("ood") or {}
        found = {**summary.get("extra", {}), **({"ood": beyond["accuracy"]} if beyond else {})}
        return found | {f"ood {name}": value for name, value in beyond.get("extra", {}).items()}

    def boundaries(self) -> list[int]:
        """The global step at which each stage ended (so far); one step a stage where no metrics say it."""
        found: dict[int, int] = {}
        for row in [*self.steps, *self.evals]:
            found[row["stage"]] = max(found.get(row["stage"], 0), row["global_step"])
        ends: list[int] = []
        for stage in range(1, max([self.last, *found]) + 1):
            ends.append(found.get(stage, sum(ends[-1:]) + 1))
        return ends


def load_run(folder: str | Path) -> RunResult:
    """Read a run folder; raises `UsageError` for one that is not a run or has no evaluation yet."""
    folder = Path(folder)
    check_run_folder(folder)
    recipe = json_object(folder / "recipe.json")
    scores = {stage: json_object(path / "scores.json") for stage, path in _evaluations(folder).items()}
    if not scores:
        raise UsageError(f"{folder} has no evaluation yet", "let it go on with `sdft train --resume`")
    stages = _stages(recipe, scores)
    trained_names = stages[: max(scores)]
    tasks = list(dict.fromkeys([*trained_names, *stages, *(t for s in scores.values() for t in s["tasks"])]))
    columns = {task: _task_column(folder, scores, task) for task in tasks}
    suite = _suite_name(recipe, scores)
    parts = _part_columns(folder, scores, suite) if suite else {}
    logged = _logged(folder / "metrics.jsonl")
    trained = [tasks.index(name) for name in trained_names]
    environment, method = folder / "environment.json", recipe.get("method", "unknown")
    return RunResult(
        name=folder.resolve().name,
        folder=folder,
        method=str(method.get("name", "unknown") if isinstance(method, dict) else method),
        recipe=recipe,
        environment=json_object(environment) if environment.is_file() else {},
        tasks=tasks,
        stages=stages,
        trained=trained,
        matrix=_rows([c.cells for c in columns.values()]),
        counts=_rows([c.counts for c in columns.values()]),
        intervals=_rows([c.intervals for c in columns.values()]),
        columns=columns,
        suite=suite,
        parts=parts,
        **_prior(list(parts.values())),
        **_metrics(list(columns.values()), list(parts.values()), trained),
        steps=logged["step"],
        evals=logged["eval"],
        endings=logged["ending"],
        guards=logged["guard"],
        seconds=sum(float(row.get("seconds") or 0) for row in [*logged["step"], *scores.values()]),
        finished=max(scores) >= len(stages),
        settings={stage: settings_of(s) for stage, s in scores.items()},
        notes=_notes(stages, scores, columns, parts),
        remarks=_remarks(scores),
    )


def settings_of(scores: Row) -> dict[str, Row]:
    """The settings that an evaluation recorded, by unit."""
    return {unit: found for unit, found in (scores.get("settings") or {}).items() if isinstance(found, dict)}


def json_object(path: Path) -> Row:
    """The JSON object in a file; `UsageError` where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "restore the file, or evaluate that stage again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold a JSON object", _HINT)
    return value


def _evaluations(folder: Path) -> dict[int, Path]:
    """The evaluated stages: folders ``NN-<task>`` that hold a ``scores.json``."""
    found = {}
    for path in sorted((folder / "evals").glob("*/scores.json")):
        if match := re.match(r"(\d+)-", path.parent.name):
            found[int(match[1])] = path.parent
    return found


def read_items(folder: Path, stage: int, file: str) -> list[Row]:
    """One item file of one stage; empty where there is none, `UsageError` where it is broken."""
    where = _evaluations(folder).get(stage)
    return item_rows(where / file) if where and (where / file).is_file() else []


def item_rows(path: Path) -> list[Row]:
    """The lines of an item file; `UsageError` names one that is broken."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                rows.append({**row, "id": str(row["id"]), "value": row["value"]})
            except (ValueError, TypeError, KeyError) as error:
                raise UsageError(f"{path}:{number}: not an item row", "evaluate that stage again") from error
    return rows


def _logged(path: Path) -> dict[str, list[Row]]:
    """The rows of ``metrics.jsonl`` by kind, in order. Torn lines are ignored; of rows that say the same thing of one
    step (a run that was resumed before it) the last counts."""
    found: dict[str, dict[tuple[int, int, str], Row]] = {"step": {}, "eval": {}, "ending": {}, "guard": {}}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
            key = int(row["stage"]), int(row["step"]), str(row.get("guard", ""))
            found[row["kind"]][key] = {"global_step": row["step"], **row}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return {kind: [rows[key] for key in sorted(rows)] for kind, rows in found.items()}


def _stages(recipe: Row, scores: Mapping[int, Row]) -> list[str]:
    """The task of every planned stage; what an evaluation says it trained wins over the recipe."""
    planned = [str(task) for task in recipe.get("tasks") or []]
    names = {**dict(enumerate(planned, start=1)), **{k: s["task"] for k, s in scores.items() if k and s.get("task")}}
    count = max([len(planned), *scores])
    if missing := [k for k in range(1, count + 1) if k not in names]:
        raise UsageError(f"nothing says which task stage {missing[0]} trained", "recipe.json needs all its 'tasks'")
    return [names[k] for k in range(1, count + 1)]


def _suite_name(recipe: Row, scores: Mapping[int, Row]) -> str | None:
    names = [s["suite"]["name"] for s in scores.values() if s.get("suite")]
    if not names:
        return None
    return str(recipe["suite"] if recipe.get("suite") in names else names[0])


def _task_column(folder: Path, scores: Mapping[int, Row], task: str) -> Column:
    recorded = {stage: s["tasks"][task] for stage, s in scores.items() if task in s["tasks"]}
    items = {stage: read_items(folder, stage, f"{task}.jsonl") for stage in recorded}
    return _column(max(scores) + 1, recorded, items)


def _part_columns(folder: Path, scores: Mapping[int, Row], suite: str) -> dict[str, Column]:
    found = {k: s["suite"] for k, s in scores.items() if s.get("suite") and s["suite"]["name"] == suite}
    items = {stage: read_items(folder, stage, f"suite-{suite}.jsonl") for stage in found}
    columns = {}
    for part in dict.fromkeys(name for s in found.values() for name in s["parts"]):
        recorded = {stage: s["parts"][part] for stage, s in found.items() if part in s["parts"]}
        own = {stage: [row for row in items[stage] if row.get("part") == part] for stage in recorded}
        columns[part] = _column(max(scores) + 1, recorded, own)
    return columns


def _column(rows: int, recorded: Mapping[int, Row], items: Mapping[int, Sequence[Row]]) -> Column:
    """A column from item rows, or from what ``scores.json`` recorded if a stage's item rows are missing, or if its
    metric is no mean over items (then without intervals)."""
    scored = {k: r for k, r in recorded.items() if r["accuracy"] is not None}
    values = {k: {row["id"]: row["value"] for row in items[k] if row["value"] is not None} for k in scored}
    if not all(values.values()):
        column = _filled(rows, {k: (r["correct"], r["n"]) for k, r in scored.items() if r["n"]})
        return replace(column, cells=[scored[k]["accuracy"] if k in scored else None for k in range(rows)])
    ids = sorted(set.intersection(*map(set, values.values()))) if values else []
    table = np.full((rows, len(ids)), np.nan)
    for k, score in values.items():
        table[k] = [score[i] for i in ids]
    known = {str(row["id"]) for k in scored for row in items[k]}
    column = _filled(rows, {k: (float(table[k].sum()), len(ids)) for k in values if ids})
    return replace(column, items=table, ids=tuple(ids), dropped=len(known) - len(ids))


def _filled(rows: int, cells: Mapping[int, tuple[float, int]]) -> Column:
    pairs = [cells.get(k) for k in range(rows)]
    return Column(
        cells=[pair[0] / pair[1] if pair else None for pair in pairs],
        counts=[pair[1] if pair else 0 for pair in pairs],
        intervals=[continual.wilson(*pair) if pair else None for pair in pairs],
        correct=[pair[0] if pair else 0.0 for pair in pairs],
    )


def _rows(columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _prior(parts: Sequence[Column]) -> dict[str, Any]:
    """The suite's plain mean over parts by stage, None where a part is missing."""
    if not parts:
        return {"prior": None, "prior_intervals": None}
    means: list[float | None] = []
    intervals: list[Interval | None] = []
    for k, row in enumerate(_rows([part.cells for part in parts])):
        whole = None not in row
        means.append(sum(row) / len(row) if whole else None)
        known = whole and all(part.counts[k] for part in parts)
        intervals.append(continual.stratified([(p.correct[k], p.counts[k]) for p in parts]) if known else None)
    return {"prior": means, "prior_intervals": intervals}


def _metrics(columns: Sequence[Column], parts: Sequence[Column], trained: Sequence[int]) -> dict[str, Any]:
    values = continual.summary(_rows([c.cells for c in columns]), trained, _rows([p.cells for p in parts]))
    tables = [c.items for c in columns if c.items is not None]
    part_tables = [p.items for p in parts if p.items is not None]
    draws: dict[str, Draws | None] = dict.fromkeys(values)
    if len(tables) == len(columns):
        draws = continual.bootstrap(tables, trained, part_tables if len(part_tables) == len(parts) else ())
    least = continual.least_widths(trained, [max(c.counts) for c in columns], [max(p.counts) for p in parts])
    lowest = {name: 0.0 if name.endswith("accuracy") else -1.0 for name in values}
    intervals = {name: continual.interval(draws[name], values[name], least[name], lowest[name]) for name in values}
    return {"least_widths": least, "metrics": values, "metric_intervals": intervals, "draws": draws}


def _notes(
    stages: Sequence[str], scores: Mapping[int, Row], columns: Mapping[str, Column], parts: Mapping[str, Column]
) -> list[str]:
    """What a reader must know before trusting the numbers."""
    notes = []
    if max(scores) < len(stages):
        notes.append(f"unfinished: {max(scores)} of {len(stages)} stages are evaluated; metrics are as of then")
    notes += [f"stage {k} was not evaluated" for k in range(max(scores)) if k not in scores]
    dropped = {**{t: c.dropped for t, c in columns.items()}, "the suite": sum(p.dropped for p in parts.values())}
    notes += [f"{t}: {n} items are not scored at every stage and are left out" for t, n in dropped.items() if n]
    return notes


def _remarks(scores: Mapping[int, Row]) -> list[str]:
    """What tasks and suites say of their own scoring; a remark that several make stands once."""
    said: dict[str, dict[str, None]] = {}
    suites = [s["suite"] for s in scores.values() if s.get("suite")]
    pairs = [pair for s in scores.values() for pair in s["tasks"].items()]
    pairs += [pair for suite in suites for pair in [(f"suite {suite['name']}", suite), *suite["parts"].items()]]
    for task, cell in pairs:
        if cell.get("note"):
            said.setdefault(cell["note"], {})[task] = None
    return [f"{', '.join(tasks)}: {note}" for note, tasks in said.items()]


def method_record(run: RunResult) -> Row:
    """One method's entry of ``results.json``, with its ``intervals``."""
    return {
        "tasks": run.tasks,
        "matrix": run.matrix,
        "prior": run.prior,
        "metrics": {name: run.metrics[name] for name in RECORDED},
        "intervals": {
            "matrix": run.intervals,
            "prior": run.prior_intervals,
            "metrics": {name: run.metric_intervals[name] for name in RECORDED},
        },
    }


def demo_results(runs: Sequence[RunResult], seed: int, world: int, seconds: float) -> Row:
    """The whole of ``results.json``; intervals stand beside the methods, keyed like them."""
    records = {run.method: method_record(run) for run in runs}
    intervals = {name: record.pop("intervals") for name, record in records.items()}
    n = {task: run.task_n(task) for run in runs for task in run.tasks}
    n |= {run.suite: run.suite_n for run in runs if run.suite}
    return {"methods": records, "n": n, "intervals": intervals, "seed": seed, "world": world, "seconds": seconds}
