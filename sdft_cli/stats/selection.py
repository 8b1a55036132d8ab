"""Which point of a grid is chosen: by validation accuracy, or by validation loss where not every point has one. Pure.

The rule is the same for every method. By accuracy, points within one standard error of the best count as ties, because
validation rows are few and the best of many points is partly luck; among ties the lowest learning rate wins (the
one-standard-error rule of Breiman et al. 1984: the simplest of the points that cannot be told apart). Losses of all
points are of the same tokens, so their differences are far more certain than any of them: the lowest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

RULE = (
    "highest validation accuracy, averaged over stages (each stage's own task at the end of the stage); of the points "
    "within one binomial standard error of a method's best, the one with the lowest learning rate, then the first in "
    "grid order"
)


RULE_BY_LOSS = (
    "lowest validation loss, averaged over stages (each stage's own task at the end of the stage), because not every "
    "point has a validation accuracy; of equal ones the one with the lowest learning rate, then the first in grid order"
)


class Candidate(NamedTuple):
    """A point's mean validation accuracy, the validation items behind it (all stages together) and its rate."""

    accuracy: float
    n: int
    lr: float


def standard_error(candidate: Candidate) -> float:
    """Binomial, from the pooled items. Zero at an accuracy of 0 or 1: a perfect best ties only with other perfects."""
    return math.sqrt(candidate.accuracy * (1 - candidate.accuracy) / candidate.n)


def pick(candidates: Sequence[Candidate]) -> int:
    """Index of the chosen candidate: the lowest rate within one standard error of the best, the first of equals."""
    best = max(candidates, key=lambda c: c.accuracy)
    least = best.accuracy - standard_error(best) - 1e-12  # a mean of thirds may miss the bound by a rounding error
    return min((i for i, c in enumerate(candidates) if c.accuracy >= least), key=lambda i: candidates[i].lr)


def by_chance(higher: float, lower: float, n: int) -> bool:
    """Whether two accuracies on the same ``n`` items differ by no more than one standard error of the higher one, or by
    no more than one item (the binomial error of a perfect score is zero): the best of many checkpoints is partly luck
    too."""
    error = max(standard_error(Candidate(higher, n, 0.0)), 1 / n)
    return higher - lower <= error + 1e-12


class LossCandidate(NamedTuple):
    """A point's mean validation loss in nats per token, and its rate."""

    loss: float
    lr: float


def pick_by_loss(candidates: Sequence[LossCandidate]) -> int:
    """Index of the chosen candidate: the lowest loss, of equals the lowest rate, then the first."""
    return min(range(len(candidates)), key=lambda i: (candidates[i].loss, candidates[i].lr))
