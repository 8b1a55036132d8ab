"""One run as it stands on disk: its accuracy matrix with intervals, its metrics and what it logged. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from sdft_cli.config import json_files
from sdft_cli.errors import UsageError
from sdft_cli.runs.completeness import CompletenessColumn, completeness_columns
from sdft_cli.runs.evaluations import json_object, read_items, read_stages
from sdft_cli.runs.format_version import check_run_folder
from sdft_cli.runs.loss_columns import LossColumn, loss_columns
from sdft_cli.runs.matrix_columns import Column, part_columns, task_column
from sdft_cli.runs.metrics import Logged, MetricsLog
from sdft_cli.runs.records import (
    EndingRow,
    EvalRow,
    GuardRow,
    ItemRecord,
    Scores,
    SettingsRow,
    SkipFirstRow,
    StepRow,
    TaskSummary,
)
from sdft_cli.runs.result_notes import (
    change_note,
    coverage_notes,
    loss_notes,
    lost_item_notes,
    part_notes,
    remarks_of,
    unscored_notes,
)
from sdft_cli.runs.stage_recipes import RecipeFacts, in_words, settled
from sdft_cli.runs.stage_recipes import by_stage as stage_recipes_of
from sdft_cli.stats import bootstrap, continual
from sdft_cli.stats.continual import Draws, Metric
from sdft_cli.stats.intervals import Interval, combined
from sdft_cli.types import Json

T = TypeVar("T")


_RESTORE = "restore the file, or train again in another folder (--out)"


@dataclass(frozen=True)
class RunResult:
    """One run. Row 0 of ``matrix`` is the base model, row k is after stage k; None: not evaluated.

    ``tasks`` are the columns, each once; ``stages`` the task of every planned stage, and ``trained[k - 1]`` the
    column that stage k trained, for the evaluated ones. ``prior`` is the suite's plain mean over the ``parts`` with an
    accuracy (None without a suite). ``losses`` are by task and stage, of the tasks that have any, and so is, of all and
    of the suite (None), the ``completeness`` of what the model wrote. ``metrics`` are over
    the tasks that were scored (`counted`), ``draws`` are their bootstrap draws, ``least_widths`` the smallest
    half-widths of their intervals. ``seconds`` adds up training steps and evaluations; ``settings`` are those of the
    evaluations, by stage and unit.
    ``notes`` tell what a reader must know before trusting the numbers, ``remarks`` how tasks are scored.

    Where stages had different settings, ``method`` and each setting in ``recipe`` tell them all (``sdft, then sft``);
    ``stage_recipes`` has every stage's own, and ``changes`` tell what changed, and when. Where a setting was ``auto``,
    they have the number that it came to, and ``chosen`` tells why.
    """

    name: str
    folder: Path
    method: str
    recipe: dict[str, object]
    environment: dict[str, object]
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
    metrics: dict[Metric, float | None]
    metric_intervals: dict[Metric, Interval | None]
    least_widths: dict[Metric, float]
    draws: dict[Metric, Draws | None]
    losses: dict[str, LossColumn]
    completeness: dict[str | None, CompletenessColumn]
    steps: list[StepRow]
    evals: list[EvalRow]
    endings: list[EndingRow]
    guards: list[GuardRow]
    seconds: float
    finished: bool
    settings: dict[int, dict[str, dict[str, Json]]] = field(default_factory=dict)
    stage_recipes: list[dict[str, Json]] = field(default_factory=list)
    changes: list[SettingsRow] = field(default_factory=list)
    chosen: list[SkipFirstRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def unscored(self) -> dict[str, str]:
        """The tasks that no stage scored, which no metric counts, each with the reason."""
        return {task: reason for task, column in self.columns.items() if (reason := column.never_scored)}

    @property
    def unscored_notes(self) -> list[str]:
        """Which of ``notes`` tell that tasks were not scored, or not at every stage, so that the metrics leave them
        out."""
        return unscored_notes(self.columns, [self.tasks[j] for j in self.trained])

    @property
    def counted(self) -> list[int | None]:
        """``trained``, with None for a task that no metric counts."""
        return _counted(self.tasks, self.columns, self.trained)

    @property
    def counted_parts(self) -> dict[str, Column]:
        """The suite's parts that ``prior`` is the mean of: those that some stage scored."""
        return _scored(self.parts)

    @property
    def counted_tasks(self) -> list[str]:
        """The trained tasks that the metrics are over."""
        return [self.tasks[j] for j in continual.seen(self.counted, self.last)]

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

    def items(self, stage: int, task: str | None) -> list[ItemRecord]:
        """The graded completions of a task (None: the suite) at a stage; empty if it was not evaluated."""
        return read_items(self.folder, stage, task or f"suite-{self.suite}")

    def scores(self, stage: int, task: str) -> TaskSummary | None:
        """All that was recorded of a task after ``stage``; None if it was not evaluated."""
        recorded = read_stages(self.folder).get(stage)
        return recorded["tasks"].get(task) if recorded else None

    def side_scores(self, stage: int, task: str) -> dict[str, float | None]:
        """What is measured of a task after ``stage`` besides its accuracy: a grader's second scores by name, the
        accuracy on questions out of distribution (``ood``), and the second scores there (``ood lenient``)."""
        summary = self.scores(stage, task)
        if summary is None:
            return {}
        side: dict[str, float | None] = {**summary.get("extra", {})}
        if ood := summary.get("ood"):
            side |= {"ood": ood["accuracy"]} | {f"ood {name}": value for name, value in ood.get("extra", {}).items()}
        return side

    def boundaries(self) -> list[int]:
        """The global step at which each stage ended, so far; a stage without logged rows counts as one step."""
        last: dict[int, int] = {}
        for row in [*self.steps, *self.evals]:
            last[row["stage"]] = max(last.get(row["stage"], 0), row["global_step"])
        ends: list[int] = []
        for stage in range(1, max([self.last, *last]) + 1):
            ends.append(last.get(stage, sum(ends[-1:]) + 1))
        return ends


def load_run(folder: str | Path) -> RunResult:
    """Read a run folder; raises `UsageError` for one that is not a run or has no evaluation yet."""
    check_run_folder(folder := Path(folder))
    newest: dict[str, Json] = json_files.read(folder / "recipe.json", RecipeFacts, _RESTORE)
    by_stage = read_stages(folder)
    if not by_stage:
        raise UsageError(f"{folder} has no evaluation yet", "continue it with `sdft train --resume`")
    stages = _stages(newest, by_stage)
    rows = MetricsLog(folder / "metrics.jsonl").read()
    stage_recipes = settled(stage_recipes_of(folder, newest, stages), rows.skips)
    recipe = in_words(stage_recipes, newest)
    tasks = list(
        dict.fromkeys([*stages[: max(by_stage)], *stages, *(t for s in by_stage.values() for t in s["tasks"])])
    )
    trained = [tasks.index(name) for name in stages[: max(by_stage)]]
    columns = {task: task_column(folder, by_stage, task) for task in tasks}
    suite = _suite_name(newest, by_stage)
    parts = part_columns(folder, by_stage, suite) if suite else {}
    prior = _prior(of_mean) if (of_mean := list(_scored(parts).values())) else None
    losses = loss_columns(by_stage, tasks)
    metrics = _metrics(list(columns.values()), of_mean, _counted(tasks, columns, trained))
    of_matrix = coverage_notes(stages, by_stage, columns, parts)
    of_matrix += unscored_notes(columns, [tasks[j] for j in trained]) + part_notes(parts) + loss_notes(losses)
    environment = folder / "environment.json"
    return RunResult(
        name=folder.resolve().name,
        folder=folder,
        method=_method_name(recipe),
        recipe=recipe,
        environment=json_object(environment) if json_files.exists(environment) else {},
        tasks=tasks,
        stages=stages,
        trained=trained,
        matrix=_rows([c.cells for c in columns.values()]),
        counts=_rows([c.counts for c in columns.values()]),
        intervals=_rows([c.intervals for c in columns.values()]),
        columns=columns,
        suite=suite,
        parts=parts,
        prior=prior.means if prior else None,
        prior_intervals=prior.intervals if prior else None,
        metrics=metrics.values,
        metric_intervals=metrics.intervals,
        least_widths=metrics.least_widths,
        draws=metrics.draws,
        losses=losses,
        completeness=completeness_columns(by_stage, tasks),
        steps=rows.steps,
        evals=rows.evals,
        endings=rows.endings,
        guards=rows.guards,
        seconds=_seconds(rows, by_stage),
        finished=max(by_stage) >= len(stages),
        settings={stage: s.get("settings", {}) for stage, s in by_stage.items()},
        stage_recipes=stage_recipes,
        changes=rows.settings,
        chosen=rows.skips,
        notes=[*of_matrix, *lost_item_notes(folder, by_stage), *map(change_note, rows.settings)],
        remarks=remarks_of(by_stage),
    )


def _method_name(recipe: Mapping[str, object]) -> str:
    """The method's name; a recipe may hold a whole method instead."""
    method = recipe.get("method", "unknown")
    return str(method.get("name", "unknown") if isinstance(method, dict) else method)


def _stages(recipe: Mapping[str, object], by_stage: Mapping[int, Scores]) -> list[str]:
    """The task of every planned stage; the task that an evaluation recorded takes precedence over the recipe."""
    tasks = recipe.get("tasks")
    planned = [str(task) for task in tasks] if isinstance(tasks, list) else []
    names = dict(enumerate(planned, start=1)) | {k: task for k, s in by_stage.items() if k and (task := s["task"])}
    count = max([len(planned), *by_stage])
    missing = next((k for k in range(1, count + 1) if k not in names), None)  # a folder's name may hold any number
    if missing:
        raise UsageError(f"the task of stage {missing} is unknown", "list every task in 'tasks' in recipe.json")
    return [names[k] for k in range(1, count + 1)]


def _suite_name(recipe: Mapping[str, object], by_stage: Mapping[int, Scores]) -> str | None:
    names = [s["suite"]["name"] for s in by_stage.values() if s["suite"]]
    if not names:
        return None
    return str(recipe["suite"]) if recipe.get("suite") in names else names[0]


def _counted(tasks: Sequence[str], columns: Mapping[str, Column], trained: Sequence[int]) -> list[int | None]:
    return [None if columns[tasks[j]].never_scored else j for j in trained]


def _scored(parts: Mapping[str, Column]) -> dict[str, Column]:
    return {name: part for name, part in parts.items() if any(cell is not None for cell in part.cells)}


def _rows(columns: Sequence[Sequence[T]]) -> list[list[T]]:
    return [list(row) for row in zip(*columns, strict=True)]


class _Prior(NamedTuple):
    means: list[float | None]
    intervals: list[Interval | None]


def _prior(parts: Sequence[Column]) -> _Prior:
    """The suite's plain mean over parts by stage, None where a part is missing."""
    means: list[float | None] = []
    intervals: list[Interval | None] = []
    for k, row in enumerate(_rows([part.cells for part in parts])):
        values = [value for value in row if value is not None]
        complete = len(values) == len(row)
        means.append(sum(values) / len(row) if complete else None)
        ends = [(part.correct[k] / part.counts[k], interval) for part in parts if (interval := part.intervals[k])]
        intervals.append(combined(ends) if complete and len(ends) == len(parts) else None)
    return _Prior(means, intervals)


class _Metrics(NamedTuple):
    values: dict[Metric, float | None]
    intervals: dict[Metric, Interval | None]
    least_widths: dict[Metric, float]
    draws: dict[Metric, Draws | None]


def _metrics(columns: Sequence[Column], parts: Sequence[Column], trained: Sequence[int | None]) -> _Metrics:
    """The metrics after the last evaluated stage; without item files they have no intervals."""
    values = continual.summary(_rows([c.cells for c in columns]), trained, _rows([p.cells for p in parts]))
    tables = [c.items for c in columns if c.items is not None]
    part_tables = [p.items for p in parts if p.items is not None]
    draws: dict[Metric, Draws | None] = dict.fromkeys(values)
    if len(tables) == len(columns):
        draws = bootstrap.metrics(tables, trained, part_tables if len(part_tables) == len(parts) else ())
    least = bootstrap.least_widths(trained, [max(c.counts) for c in columns], [max(p.counts) for p in parts])
    lowest = {name: 0.0 if name.endswith("accuracy") else -1.0 for name in values}
    intervals = {name: bootstrap.interval(draws[name], values[name], least[name], lowest[name]) for name in values}
    return _Metrics(values, intervals, least, draws)


def _seconds(rows: Logged, by_stage: Mapping[int, Scores]) -> float:
    return sum(
        [*(row.get("seconds") or 0.0 for row in rows.steps), *(s.get("seconds") or 0.0 for s in by_stage.values())]
    )
