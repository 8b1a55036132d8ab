"""Everything that a report shows, as JSON: one record per run, one per group of seeds, and how they differ.

Tables, sentences and files are all made from this, so that each number is computed once and reads the same everywhere.
Left out: curves over training steps, which figures read from the runs themselves, and excerpts of completions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TypedDict

import sdft_cli
from sdft_cli.console import is_change
from sdft_cli.evaluation import comparable
from sdft_cli.reporting import comparisons, gain_shares, groups
from sdft_cli.reporting.by_stage import StageMetrics, stage_metrics
from sdft_cli.reporting.comparisons import SeedComparison, UnitChanges
from sdft_cli.reporting.equal_accuracy import EqualAccuracy, at_equal_accuracy
from sdft_cli.reporting.estimates import Estimate, estimate, seed_accuracy, seed_mean
from sdft_cli.reporting.groups import Group
from sdft_cli.reporting.matrices import (
    CompletenessRow,
    Losses,
    Matrix,
    completeness,
    losses,
    matrix,
    mean_completeness,
    mean_losses,
    mean_matrix,
)
from sdft_cli.reporting.measures import Measure, Skill, measures, pass_at, skills
from sdft_cli.runs.records import EndingRow, GuardRow, SkipFirstRow
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import across_seeds, bootstrap, continual
from sdft_cli.stats.continual import Metric
from sdft_cli.types import Json

_IN_HUB_CACHE = re.compile(r"models--(.+?)--(.+)[/\\]snapshots[/\\][0-9a-f]+$")
MEANINGS: dict[Metric, str] = {
    "average_accuracy": "Mean accuracy on the trained tasks after the last stage.",
    "learning_accuracy": "Mean accuracy on each task right after the last stage that trained it.",
    "backward_transfer": "Mean change on earlier tasks since they were learned; negative means forgetting.",
    "forward_transfer": "Mean gain over the base model on each task before any stage trained it.",
    "forgetting": "Mean drop on earlier tasks from their best stage to the last one; noise biases it upwards.",
    "prior_change": "Change on the prior suite from the base model to the last stage, averaged over its skills.",
}


class RunReport(Matrix):
    """One run, under the ``label`` that tells it from the others.

    ``comparable``: its end was measured under the same settings as the first run's. ``metrics_over``: the trained tasks
    that its metrics are over. ``unscored``: the tasks that nothing scored, with the reasons. ``curves``: its metrics
    after every stage. ``settings``: those of its evaluations, by stage and unit.
    """

    label: str
    name: str
    method: str
    seed: str
    group: str
    finished: bool
    comparable: bool
    seconds: float
    stages: list[str]
    metrics: dict[Metric, Estimate]
    metrics_over: list[str]
    unscored: dict[str, str]
    completeness: list[CompletenessRow]
    losses: Losses
    changes: list[UnitChanges]
    skills: list[Skill]
    measures: list[Measure]
    pass_at: dict[str, dict[str, Estimate]]
    endings: list[EndingRow]
    guards: list[GuardRow]
    chosen: list[SkipFirstRow]
    curves: list[StageMetrics]
    notes: list[str]
    remarks: list[str]
    settings: dict[str, dict[str, dict[str, Json]]]
    recipe: dict[str, object]
    environment: dict[str, object]


class GroupReport(Matrix):
    """The runs of one recipe: means over their seeds with t-intervals; for a single seed, its values alone."""

    name: str
    seeds: list[str]
    metrics: dict[Metric, Estimate]
    completeness: list[CompletenessRow]
    losses: Losses


class ReportData(TypedDict):
    """All numbers of a report. ``pair`` compares two groups over their common seeds, ``difference`` two runs on the
    same items; ``normalised`` are `gain_shares.shares` by run; ``draws`` is the number of bootstrap draws."""

    runs: list[RunReport]
    groups: list[GroupReport]
    pair: SeedComparison | None
    difference: dict[Metric, Estimate] | None
    equal_accuracy: EqualAccuracy
    normalised: dict[str, list[list[float | None]]]
    meanings: dict[Metric, str]
    draws: int
    version: str


class Report(ReportData):
    """``report.json``: the numbers and the words of the page; ``files`` are the others that were written with it."""

    title: str
    summary: list[str]
    warnings: list[str]
    files: list[str]


def gather(
    run_groups: Sequence[Group], single: Mapping[str, float] | None = None, levels: Sequence[float] = ()
) -> ReportData:
    """The numbers of runs by group; ``single`` has the accuracies of models that were trained on one task alone.
    ``levels`` are those of `at_equal_accuracy`."""
    labels = groups.labels(run_groups)
    pairs = [(group, run) for group in run_groups for run in group.runs]
    runs = [run for _, run in pairs]
    return {
        "runs": [_run(label, *pair, runs[0], single) for label, pair in zip(labels, pairs, strict=True)],
        "groups": [_group(group) for group in run_groups],
        "pair": _pair(*run_groups) if len(run_groups) == 2 else None,
        "difference": comparisons.difference(*runs) if len(runs) == 2 else None,
        "equal_accuracy": at_equal_accuracy(run_groups, levels),
        "normalised": dict(zip(labels, gain_shares.shares(runs), strict=True)),
        "meanings": MEANINGS,
        "draws": bootstrap.DRAWS,
        "version": sdft_cli.__version__,
    }


def _run(label: str, group: Group, run: RunResult, first: RunResult, single: Mapping[str, float] | None) -> RunReport:
    sides = [(side.name, side.settings.get(side.last, {})) for side in (first, run)]
    return {
        **matrix(run),
        "label": label,
        "name": run.name,
        "method": run.method,
        "seed": groups.seed_of(run),
        "group": group.name,
        "finished": run.finished,
        "comparable": not comparable.differences(sides),
        "seconds": run.seconds,
        "stages": run.stages,
        "metrics": {m: estimate(run.metrics[m], run.metric_intervals[m]) for m in continual.METRICS},
        "metrics_over": run.counted_tasks,
        "unscored": run.unscored,
        "completeness": completeness(run),
        "losses": losses(run),
        "changes": comparisons.changes(run),
        "skills": skills(run),
        "measures": [measure for task in run.tasks for measure in measures(run, task)],
        "pass_at": {task: estimates for task in run.tasks if (estimates := pass_at(run, task))},
        "endings": run.endings,
        "guards": run.guards,
        "chosen": run.chosen,
        "curves": stage_metrics(run, single),
        "notes": run.notes,
        "remarks": run.remarks,
        "settings": {str(stage): by_unit for stage, by_unit in run.settings.items()},
        "recipe": {key: portable(value) for key, value in run.recipe.items()},
        "environment": {key: portable(value) for key, value in run.environment.items()},
    }


def _group(group: Group) -> GroupReport:
    values = {m: [run.metrics[m] for run in group.runs] for m in continual.METRICS}
    means = {m: (seed_mean if is_change(m) else seed_accuracy)(of_seeds) for m, of_seeds in values.items()}
    return {
        **mean_matrix(group),
        "name": group.name,
        "seeds": group.seeds,
        "metrics": means,
        "completeness": mean_completeness(group),
        "losses": mean_losses(group),
    }


def _pair(a: Group, b: Group) -> SeedComparison | None:
    """The comparison of two groups over seeds; None unless they have enough seeds in common, and not too many, and
    their metrics are over the same tasks."""
    if a.runs[0].counted_tasks != b.runs[0].counted_tasks:
        return None
    common = [seed for seed in a.seeds if seed in b.seeds]
    return comparisons.compare_groups(a, b) if 2 <= len(common) <= across_seeds.MOST else None


def portable(value: object) -> object:
    """A copy in which absolute paths keep only their last part, because a report is made to be passed on; a model in
    the hub's cache is its hub id."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if not isinstance(value, str) or not os.path.isabs(value):
        return value
    cached = _IN_HUB_CACHE.search(value)
    return f"{cached[1]}/{cached[2]}" if cached else f"…/{PurePath(value).name}"
