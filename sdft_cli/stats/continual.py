"""Continual-learning metrics of an accuracy matrix. Pure mathematics, no IO.

``R[k][j]`` is the accuracy on task ``j`` after stage ``k``; row 0 is the base model; None where not evaluated.
``trained[k - 1]`` is the task that stage ``k`` trained, or None for one that no metric counts, because nothing scores
it. A task's *reference* is the last stage that trained it, so a task may be trained twice. A cell is a number or an
array of bootstrap draws: both go through the same functions, so each metric has one implementation. What is undefined
is None, never 0.

Sources: Lopez-Paz & Ranzato 2017 (backward and forward transfer), Chaudhry et al. 2018 (forgetting, intransigence).
Intervals for these metrics are in `bootstrap`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.float64]
Value = TypeVar("Value", float, Draws)
Matrix = Sequence[Sequence[Value | None]]
Trained = Sequence[int | None]

Metric = Literal[
    "average_accuracy", "learning_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change"
]
#: The metrics of a sequence of tasks, in the order in which tables list them.
METRICS: tuple[Metric, ...] = (
    "average_accuracy", "learning_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change",
)  # fmt: skip


def seen(trained: Trained, stage: int) -> list[int]:
    """The counted tasks trained up to ``stage``, each once, in the order in which they were first trained."""
    return [task for task in dict.fromkeys(trained[:stage]) if task is not None]


def reference(trained: Trained, task: int, stage: int) -> int:
    """The last stage up to ``stage`` that trained ``task``."""
    return max(k for k in range(1, stage + 1) if trained[k - 1] == task)


def earlier(trained: Trained, stage: int) -> list[int]:
    """The tasks trained up to ``stage`` whose reference is an earlier stage."""
    return [j for j in seen(trained, stage) if j != trained[stage - 1]]


def average_accuracy(R: Matrix[Value], trained: Trained, stage: int | None = None) -> Value | None:
    """ACC_k: the mean accuracy over the tasks trained so far."""
    k = _last(R, stage)
    return _mean([R[k][j] for j in seen(trained, k)])


def learning_accuracy(R: Matrix[Value], trained: Trained, stage: int | None = None) -> Value | None:
    """LA: the mean, over the tasks trained so far, of the accuracy right after the stage that trained each."""
    k = _last(R, stage)
    return _mean([R[reference(trained, j, k)][j] for j in seen(trained, k)])


def backward_terms(R: Matrix[Value], trained: Trained, stage: int | None = None) -> dict[int, Value | None]:
    """The change of each earlier task's accuracy since its reference stage; negative where it was forgotten."""
    k = _last(R, stage)
    return {j: _minus(R[k][j], R[reference(trained, j, k)][j]) for j in earlier(trained, k)}


def backward_transfer(R: Matrix[Value], trained: Trained, stage: int | None = None) -> Value | None:
    """BWT: the mean of `backward_terms` (Lopez-Paz & Ranzato's paper divides by T - 1, their code by T)."""
    return _mean(list(backward_terms(R, trained, stage).values()))


def forward_terms(R: Matrix[Value], trained: Trained, stage: int | None = None) -> dict[int, Value | None]:
    """The gain over the base of each task but the first, right before a stage first trained it."""
    k = _last(R, stage)
    begun = {j: list(trained).index(j) + 1 for j in seen(trained, k)}
    return {j: _minus(R[first - 1][j], R[0][j]) for j, first in begun.items() if first > 1}


def forward_transfer(R: Matrix[Value], trained: Trained, stage: int | None = None) -> Value | None:
    """FWT: the mean of `forward_terms`; the base row stands for random initialisation."""
    return _mean(list(forward_terms(R, trained, stage).values()))


def forgetting_terms(R: Matrix[Value], trained: Trained, stage: int | None = None) -> dict[int, Value | None]:
    """How far each earlier task fell from its best evaluated stage 1..k-1, signed (negative: it is better now)."""
    k = _last(R, stage)
    terms: dict[int, Value | None] = {}
    for j in earlier(trained, k):
        cells = [cell for row in R[1:k] if (cell := row[j]) is not None]
        evaluated = R[reference(trained, j, k)][j] is not None
        terms[j] = _minus(functools.reduce(_larger, cells), R[k][j]) if cells and evaluated else None
    return terms


def forgetting(R: Matrix[Value], trained: Trained, stage: int | None = None) -> Value | None:
    """F_k: the mean of `forgetting_terms`. Its maximum is biased upwards by noise: lead with backward transfer."""
    return _mean(list(forgetting_terms(R, trained, stage).values()))


def fall_terms(R: Matrix[Value], trained: Trained) -> dict[int, Value | None]:
    """How far each earlier task is below its best stage since it was learned, the last stage included: never negative.

    This is what a gate on forgetting checks. Unlike `forgetting_terms` it ignores stages before the task was learned,
    and is None where a stage since then was not evaluated, because the maximum is then unknown.
    """
    k = _last(R, None)
    terms: dict[int, Value | None] = {}
    for j in earlier(trained, k):
        since = [row[j] for row in R[reference(trained, j, k) :]]
        cells = [cell for cell in since if cell is not None]
        terms[j] = _minus(functools.reduce(_larger, cells), R[k][j]) if len(cells) == len(since) else None
    return terms


def fall(R: Matrix[Value], trained: Trained) -> Value | None:
    """The mean of `fall_terms`. At least -BWT; noise biases its maximum upwards, as in `forgetting`."""
    return _mean(list(fall_terms(R, trained).values()))


def intransigence(R: Matrix[float], trained: Trained, single: Sequence[float | None]) -> list[float | None]:
    """I_k per stage: how far its task stays below the accuracy of training on that task alone (``single[j]``)."""
    stages = enumerate(trained[: len(R) - 1], start=1)
    return [None if j is None else _minus(single[j], R[k][j]) for k, j in stages]


def prior_change(parts: Matrix[Value], stage: int | None = None) -> Value | None:
    """The accuracy at ``stage`` minus the base's, averaged over a suite's parts; ``parts[k][p]``."""
    if not parts:
        return None
    k = _last(parts, stage)
    return _mean([_minus(now, base) for now, base in zip(parts[k], parts[0], strict=True)]) if k else None


def normalised(x: float, base: float, best: float, standard_error: float = 0.0) -> float | None:
    """(x - base) / (best over methods - base), as the paper's Figure 3 scales its axes.

    None where best - base is less than two of its standard errors: then there is no gain to take a share of.
    """
    return (x - base) / (best - base) if best != base and best - base >= 2 * standard_error else None


def summary(R: Matrix[Value], trained: Trained, parts: Matrix[Value] = ()) -> dict[Metric, Value | None]:
    """All of `METRICS` after the last row of ``R``; ``parts[k][p]`` are a prior suite's accuracies by part."""
    return {
        "average_accuracy": average_accuracy(R, trained),
        "learning_accuracy": learning_accuracy(R, trained),
        "backward_transfer": backward_transfer(R, trained),
        "forward_transfer": forward_transfer(R, trained),
        "forgetting": forgetting(R, trained),
        "prior_change": prior_change(parts),
    }


def _last(R: Matrix[Value], stage: int | None) -> int:
    return len(R) - 1 if stage is None else stage


def _mean(terms: Sequence[Value | None]) -> Value | None:
    """The mean; None for no terms, and None if one is missing (a mean over the rest is another quantity)."""
    present = [term for term in terms if term is not None]
    if not present or len(present) < len(terms):
        return None
    return functools.reduce(lambda a, b: a + b, present) / len(present)


def _larger(a: Value, b: Value) -> Value:
    if isinstance(a, np.ndarray):
        return np.maximum(a, b)
    return max(a, b)


def _minus(a: Value | None, b: Value | None) -> Value | None:
    return None if a is None or b is None else a - b
