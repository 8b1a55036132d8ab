"""Which point of a grid is chosen, by validation accuracy alone. Pure: probe rows in, an index out.

Rule, the same for every method: the mean over stages of the accuracy on the stage's own task at the stage's end. Points
within one standard error of the best are ties, because validation rows are few and the best of many is partly luck; of
ties the lowest learning rate is taken (the one-standard-error rule of Breiman et al. 1984: the simplest
of what cannot be told apart).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

RULE = (
    "mean over stages of the validation accuracy on the stage's own task at the stage's end; of the points within one "
    "binomial standard error of a method's best, the one with the lowest learning rate, then the first in grid order"
)


class Candidate(NamedTuple):
    """A point's mean validation accuracy, the validation items behind it (all stages together), and its rate."""

    accuracy: float
    n: int
    lr: float


def validation(
    evals: Iterable[Mapping[str, Any]], stages: int, endings: Iterable[Mapping[str, Any]] = ()
) -> tuple[float, int] | None:
    """Mean accuracy and pooled items of each stage's last probe row on the stage's own task, rows in the order logged;
    where ``endings`` say that a stage ended with an earlier step's model, of that step's row.

    None where a stage has no such row, or none of its items could be scored.
    """
    chosen = {row["stage"]: row["model_of"] for row in endings}
    counted = [row for row in evals if row["step"] == chosen.get(row["stage"], row["step"])]
    last = {row["stage"]: row["scores"].get(row["task"]) for row in counted}
    ends = [last.get(stage) for stage in range(1, stages + 1)]
    scored = [end for end in ends if end and end["accuracy"] is not None]
    if not scored or len(scored) < stages:
        return None
    return sum(end["accuracy"] for end in scored) / stages, sum(end["n"] for end in scored)


def standard_error(candidate: Candidate) -> float:
    """Binomial, from the pooled items. Zero at an accuracy of 0 or 1: a perfect best has no ties but the perfect."""
    return math.sqrt(candidate.accuracy * (1 - candidate.accuracy) / candidate.n)


def pick(candidates: Sequence[Candidate]) -> int:
    """Index of the chosen candidate: the lowest rate within one standard error of the best, the first of equals."""
    best = max(candidates, key=lambda c: c.accuracy)
    least = best.accuracy - standard_error(best) - 1e-12  # a mean of thirds may miss the border by a rounding error
    return min((i for i, c in enumerate(candidates) if c.accuracy >= least), key=lambda i: candidates[i].lr)
