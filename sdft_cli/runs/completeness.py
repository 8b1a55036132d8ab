"""Whether completions came to their end, and whether they are exact, beside the accuracies of a run's tasks.

An accuracy alone hides both: a rule may find the answer in a text that was cut at the limit, or that goes on about
something else. One rule holds wherever accuracies are shown: ``cut`` is silent where no completion was cut, ``exact``
where it is the accuracy itself, and what an evaluation of an earlier version did not record is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdft_cli.console import number
from sdft_cli.runs.records import Completeness, Scores, Summary

#: By stage; None where the task was not evaluated.
CompletenessColumn = list[Completeness | None]


def completeness_columns(scores: Mapping[int, Scores], tasks: Sequence[str]) -> dict[str | None, CompletenessColumn]:
    """What was recorded of the completions of every task, and of the suite (None), after every stage."""
    return {task: [_of(scores.get(k), task) for k in range(max(scores) + 1)] for task in (*tasks, None)}


def words(recorded: Completeness, accuracy: float | None) -> list[str]:
    """``cut 0.844`` and ``exact 0.109``, as far as they tell more than the ``accuracy``."""
    told = [f"cut {number(cut)}"] if (cut := recorded.get("cut")) else []
    exact = recorded.get("exact")
    return [*told, f"exact {number(exact)}"] if differs(exact, accuracy) else told


def differs(exact: float | None, accuracy: float | None) -> bool:
    """Whether a share of exact completions, where there is one, is not the accuracy itself."""
    return exact is not None and (accuracy is None or abs(exact - accuracy) > 1e-9)


def _of(scores: Scores | None, task: str | None) -> Completeness | None:
    summary: Summary | None = (scores["tasks"].get(task) if task else scores["suite"]) if scores else None
    return {"cut": summary.get("cut"), "exact": summary.get("exact")} if summary else None
