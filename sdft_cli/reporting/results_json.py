"""What a run came to in numbers, as other programs read it: `sdft train --json`, and the demo's ``results.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

from sdft_cli.config.recipe import Recipe
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.continual import Metric
from sdft_cli.stats.intervals import Interval

#: The metrics that are recorded.
RECORDED: tuple[Metric, ...] = (
    "average_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change",
)  # fmt: skip


class Results(TypedDict):
    """One run. Row k of ``matrix`` holds the accuracies on ``tasks`` after stage k (0: the base model); None where
    nothing was evaluated; ``cut`` and ``exact`` have the shares of completions that were cut and that are exact, in the
    same places. ``prior`` is the prior suite's accuracy by stage, None without a suite. ``losses`` has the
    losses of a task by stage, in nats per token, where they were measured. ``metrics_over`` has the tasks that the
    metrics are over, where others were trained that nothing scored."""

    tasks: list[str]
    matrix: list[list[float | None]]
    cut: list[list[float | None]]
    exact: list[list[float | None]]
    prior: list[float | None] | None
    metrics: dict[Metric, float | None]
    losses: NotRequired[dict[str, list[float | None]]]
    metrics_over: NotRequired[list[str]]


class Intervals(TypedDict):
    """95 % intervals over test items of what `Results` holds under the same names."""

    matrix: list[list[Interval | None]]
    prior: list[Interval | None] | None
    metrics: dict[Metric, Interval | None]


class RunResults(Results):
    """One run with its intervals."""

    intervals: Intervals


class DemoResults(TypedDict):
    """``results.json``: results and intervals by method, and ``n``, the number of test items per task and suite.
    ``world`` is that of the embedded model, ``model`` any other."""

    methods: dict[str, Results]
    n: dict[str, int]
    intervals: dict[str, Intervals]
    seed: int
    world: NotRequired[int]
    model: NotRequired[str]
    seconds: float


def run_results(run: RunResult) -> RunResults:
    """One run's results with their intervals."""
    return {**_results(run), "intervals": _intervals(run)}


def demo_results(runs: Sequence[RunResult], recipe: Recipe, seconds: float) -> DemoResults:
    """All of ``results.json``, from one run per method; ``recipe`` is one of theirs."""
    n = {task: run.task_n(task) for run in runs for task in run.tasks}
    n |= {run.suite: run.suite_n for run in runs if run.suite}
    record: DemoResults = {
        "methods": {run.method: _results(run) for run in runs},
        "n": n,
        "intervals": {run.method: _intervals(run) for run in runs},
        "seed": recipe.seed,
        "seconds": seconds,
    }
    return {**record, "world": recipe.world} if recipe.model == "micro" else {**record, "model": recipe.model}


def _results(run: RunResult) -> Results:
    metrics = {name: run.metrics[name] for name in RECORDED}
    ended = [[run.completeness[task][k] or {} for task in run.tasks] for k in range(run.last + 1)]
    results: Results = {
        "tasks": run.tasks,
        "matrix": run.matrix,
        "cut": [[cell.get("cut") for cell in row] for row in ended],
        "exact": [[cell.get("exact") for cell in row] for row in ended],
        "prior": run.prior,
        "metrics": metrics,
    }
    if run.losses:
        results["losses"] = {task: [c["value"] if c else None for c in column] for task, column in run.losses.items()}
    if None in run.counted:
        results["metrics_over"] = run.counted_tasks
    return results


def _intervals(run: RunResult) -> Intervals:
    metrics = {name: run.metric_intervals[name] for name in RECORDED}
    return {"matrix": run.intervals, "prior": run.prior_intervals, "metrics": metrics}
