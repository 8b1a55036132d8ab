"""How runs went through a stage: accuracy on the new task and on the prior suite at every evaluation during training.

All points of a path are of the same validation rows and the same items of the suite, which are few; evaluations after
stages, on all test rows, are of other items and are not mixed in. A path begins with the stage's start: in the first
stage the base model, later the model that the stage before ended with. It ends with the step whose model the stage
ended with, even if that was not the last one. The path of the whole sequence joins those of its stages, and its
accuracy is the mean over all trained tasks that are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from sdft_cli.runs.records import EvalRow
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.crossings import Crossing, crossing, monotone


class PathPoint(NamedTuple):
    """One evaluation: ``step`` since the path's start, accuracy on the ``new`` task (on ``n`` validation rows) and on
    the ``prior`` suite."""

    step: int
    new: float
    prior: float
    n: int


@dataclass(frozen=True)
class Path:
    """One run in one stage, or in all of them. ``base`` is the base model's accuracy on the same items of the suite,
    of which there are ``suite_n``; None where it was not evaluated.

    ``at_end``: the path is read at its end alone, because a later phase of the stage brings back prior skills: what the
    first phase lost at some accuracy is not what the method costs.
    """

    points: tuple[PathPoint, ...]
    base: float | None
    suite_n: int
    at_end: bool = False

    @cached_property
    def curve(self) -> list[float]:
        """The accuracies on the new task as a monotone curve."""
        return monotone([p.new for p in self.points], [p.n for p in self.points])

    def reaches(self, level: float) -> Crossing | None:
        """Where the monotone curve reaches ``level``; None if it stays below."""
        at = crossing(self.curve, level)
        return Crossing(len(self.points) - 1, 0.0) if at and self.at_end else at

    def step(self, at: Crossing) -> float:
        return at.read([float(p.step) for p in self.points])

    def since_start(self, at: Crossing) -> float:
        """The change of the accuracy on the prior suite since the path's start."""
        return at.read([p.prior for p in self.points]) - self.points[0].prior

    def since_base(self, at: Crossing) -> float | None:
        """The prior change; None where the base model was not evaluated."""
        return None if self.base is None else at.read([p.prior for p in self.points]) - self.base


def stage_path(run: RunResult, stage: int) -> Path | str:
    """The path of a run through ``stage``, or why there is none."""
    task, rows = run.stages[stage - 1], _rows(run, stage)
    start = _start(run, stage)
    joined = [*([start] if start else []), *rows]
    return _path(run, joined, start, [task], [0, *(row["step"] for row in rows)])


def whole_path(run: RunResult) -> Path | str:
    """The path of a run through all its stages, or why there is none."""
    start = _start(run, 1)
    rows = [row for stage in range(1, run.last + 1) for row in _rows(run, stage)]
    joined = [*([start] if start else []), *rows]
    return _path(run, joined, start, run.counted_tasks, [0, *(row["global_step"] for row in rows)])


def _path(
    run: RunResult, rows: Sequence[EvalRow], start: EvalRow | None, tasks: Sequence[str], steps: Sequence[int]
) -> Path | str:
    """The path over ``rows``, the ``start`` first; its accuracy is the mean over ``tasks``."""
    if run.suite is None:
        return "no prior suite was evaluated, which takes --suite when training"
    if not any(row["step"] for row in run.evals):
        return "nothing was evaluated during training, which takes train.eval_every above 0"
    if not tasks or any(task in run.unscored for task in tasks):
        return "the task is not scored" if len(tasks) == 1 else "no task is scored"
    if start is None:
        return "the start was not evaluated during training"
    if len(rows) < 2:
        return "the stage ended with the model that it began with"
    points = [_point(step, row, tasks) for step, row in zip(steps, rows, strict=True)]
    size = _suite_n(rows[-1])
    same = [point for point, row in zip(points, rows, strict=True) if point and _suite_n(row) == size]
    if points[0] is None or same[:1] != points[:1] or len(same) < 2:
        return "the start and the later steps were not evaluated on the same items"
    base = _start(run, 1)
    of_base = base["suite"]["accuracy"] if base and base["suite"] and _suite_n(base) == size else None
    return Path(tuple(same), of_base, size, at_end=any(row.get("phase", 0) for row in rows[1:]))


def _point(step: int, row: EvalRow, tasks: Sequence[str]) -> PathPoint | None:
    """One evaluation; None where an accuracy is missing."""
    scores = [score for task in tasks if (score := row["scores"].get(task)) and score["n"]]
    values = [score["accuracy"] for score in scores if score["accuracy"] is not None]
    prior = row["suite"]["accuracy"] if row["suite"] else None
    if prior is None or len(values) < len(tasks):
        return None
    return PathPoint(step, fmean(values), prior, sum(score["n"] for score in scores))


def _suite_n(row: EvalRow) -> int:
    return row["suite"]["n"] if row["suite"] else 0


def _rows(run: RunResult, stage: int) -> list[EvalRow]:
    """The evaluations of a stage, without its start, up to the step whose model it ended with."""
    chosen = {row["stage"]: row["model_of"] for row in run.endings}
    of_stage = [row for row in run.evals if row["stage"] == stage and row["step"]]
    return [row for row in of_stage if row["step"] <= chosen.get(stage, row["step"])]


def _start(run: RunResult, stage: int) -> EvalRow | None:
    """The evaluation of the model that a stage began with: the base model's, or the last one of the stage before."""
    for earlier in range(stage - 1, 0, -1):
        if rows := _rows(run, earlier):
            return rows[-1]
        if (earlier, 0) not in {(row["stage"], row["model_of"]) for row in run.endings}:
            return None
    return next((row for row in run.evals if row["stage"] == 1 and row["step"] == 0), None)
