"""What a run, or a group of seeds, reached after every stage: accuracies with intervals, and all metrics.

Intervals are 95 %: over test items for a single run, over seeds (Student's t) for several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from sdft_cli.errors import UsageError
from sdft_cli.reporting.estimates import Estimate, estimate, seed_accuracy
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import continual


def accuracies(run: RunResult, task: str | None) -> list[Estimate]:
    """Accuracy on a task (None: on the prior suite) after every stage, the base model first."""
    if task is None and run.prior and run.prior_intervals:
        return [estimate(*pair) for pair in zip(run.prior, run.prior_intervals, strict=True)]
    column = run.columns.get(task) if task else None
    if column is None:
        return [estimate(None)] * len(run.matrix)
    return [estimate(*pair) for pair in zip(column.cells, column.intervals, strict=True)]


def mean_accuracies(group: Group, task: str | None) -> list[Estimate]:
    """`accuracies` over the seeds of a group."""
    if len(group.runs) == 1:
        return accuracies(group.runs[0], task)
    stages = zip(*(accuracies(run, task) for run in group.runs), strict=True)
    return [seed_accuracy([accuracy["value"] for accuracy in of_seeds]) for of_seeds in stages]


StageMetric = Literal[
    "average_accuracy", "learning_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change",
    "prior", "intransigence",
]  # fmt: skip


class StageMetrics(TypedDict):
    """The metrics after one stage (0: the base model, whose ``task`` is None); None where not defined.

    ``prior`` is the accuracy on the prior suite.
    """

    stage: int
    task: str | None
    average_accuracy: float | None
    learning_accuracy: float | None
    backward_transfer: float | None
    forward_transfer: float | None
    forgetting: float | None
    prior_change: float | None
    prior: float | None
    intransigence: float | None


def stage_metrics(run: RunResult, single: Mapping[str, float] | None = None) -> list[StageMetrics]:
    """The metrics after every stage, the base model first.

    ``single`` has the accuracies of models that were trained on one task alone, by task. Intransigence is measured
    against them, and is None without them.
    """
    references = [(single or {}).get(task) for task in run.tasks]
    intransigence = [None, *continual.intransigence(run.matrix, run.counted, references)]
    parts = [[column.cells[k] for column in run.counted_parts.values()] for k in range(run.last + 1)]
    rows: list[StageMetrics] = []
    for k in range(run.last + 1):
        metrics = continual.summary(run.matrix[: k + 1], run.counted[:k], parts[: k + 1] if run.counted_parts else ())
        rows.append(
            {
                "stage": k,
                "task": run.stages[k - 1] if k else None,
                "average_accuracy": metrics["average_accuracy"],
                "learning_accuracy": metrics["learning_accuracy"],
                "backward_transfer": metrics["backward_transfer"],
                "forward_transfer": metrics["forward_transfer"],
                "forgetting": metrics["forgetting"],
                "prior_change": metrics["prior_change"],
                "prior": run.prior[k] if run.prior else None,
                "intransigence": intransigence[k],
            }
        )
    return rows


def single_task(runs: Sequence[RunResult]) -> dict[str, float]:
    """The final accuracy of runs that trained one task alone, by task: the reference for intransigence.

    Raises `UsageError` for a run that trained several tasks or has not been evaluated after training.
    """
    references = {}
    for run in runs:
        if (tasks := len(set(run.stages))) != 1:
            raise UsageError(
                f"{run.folder} is not a single-task reference: it trained {tasks} tasks",
                "name a run that trained one task alone",
            )
        if reason := run.unscored.get(run.stages[0]):
            raise UsageError(
                f"{run.folder} is not a single-task reference: {run.stages[0]} is not scored: {reason}", "leave it out"
            )
        value = run.matrix[-1][run.trained[-1]] if run.trained else None
        if value is None:
            raise UsageError(
                f"{run.folder} is not a single-task reference: it has not been evaluated on {run.stages[0]} yet",
                "continue it with `sdft train --resume`",
            )
        references[run.stages[0]] = value
    return references
