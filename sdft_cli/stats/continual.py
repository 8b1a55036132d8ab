"""Continual-learning metrics, their intervals, and the tests for claims about them. Pure mathematics, no IO.

``R[k][j]`` is the accuracy on task ``j`` after stage ``k``; row 0 is the base model; None where not evaluated.
``trained[k - 1]`` is the task that stage ``k`` trained. A task's *reference* is the last stage that trained it,
so a task may be trained twice. A cell is a number, or an array of bootstrap draws: both go through the same
functions, so there is one way of computing each thing. What is undefined is None, never 0.

Sources: Lopez-Paz & Ranzato 2017 (backward and forward transfer), Chaudhry et al. 2018 (forgetting,
intransigence), Wilson 1927, Zou & Donner 2008 (combining intervals), Abramowitz & Stegun 26.7 (Student's t).
Left out: multiple-comparison corrections; tests on the items of two checkpoints are in `paired`.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.float64]
Value = TypeVar("Value", float, Draws)
Matrix = Sequence[Sequence[Value | None]]
Interval = tuple[float, float]

#: How often the bootstrap resamples.
DRAWS = 2000
#: The metrics of a finished sequence, in the order in which tables show them.
METRICS = (
    "average_accuracy", "learning_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change",
)  # fmt: skip


# --- metrics of the accuracy matrix --------------------------------------------------------------------------


def seen(trained: Sequence[int], stage: int) -> list[int]:
    """The tasks trained up to ``stage``, each once, in the order in which they were first trained."""
    return list(dict.fromkeys(trained[:stage]))


def reference(trained: Sequence[int], task: int, stage: int) -> int:
    """The last stage up to ``stage`` that trained ``task``."""
    return max(k for k in range(1, stage + 1) if trained[k - 1] == task)


def average_accuracy(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> Value | None:
    """ACC_k: the mean accuracy over the tasks trained so far."""
    k = _last(R, stage)
    return _mean([R[k][j] for j in seen(trained, k)])


def learning_accuracy(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> Value | None:
    """LA: the mean, over the tasks trained so far, of the accuracy right after the stage that trained each."""
    k = _last(R, stage)
    return _mean([R[reference(trained, j, k)][j] for j in seen(trained, k)])


def backward_terms(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> dict[int, Value | None]:
    """What each earlier task gained (or lost, negative) since its reference stage."""
    k = _last(R, stage)
    return {j: _minus(R[k][j], R[reference(trained, j, k)][j]) for j in _earlier(trained, k)}


def backward_transfer(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> Value | None:
    """BWT: the mean of `backward_terms` (Lopez-Paz & Ranzato's paper divides by T - 1, their code by T)."""
    return _mean(list(backward_terms(R, trained, stage).values()))


def forward_terms(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> dict[int, Value | None]:
    """What each task but the first had gained over the base right before a stage first trained it."""
    k = _last(R, stage)
    begun = {j: list(trained).index(j) + 1 for j in seen(trained, k)}
    return {j: _minus(R[first - 1][j], R[0][j]) for j, first in begun.items() if first > 1}


def forward_transfer(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> Value | None:
    """FWT: the mean of `forward_terms`; the base row stands for random initialisation."""
    return _mean(list(forward_terms(R, trained, stage).values()))


def forgetting_terms(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> dict[int, Value | None]:
    """How far each earlier task fell from its best evaluated stage 1..k-1, signed (negative: it is better now)."""
    k = _last(R, stage)
    terms: dict[int, Value | None] = {}
    for j in _earlier(trained, k):
        cells = [cell for row in R[1:k] if (cell := row[j]) is not None]
        learned = R[reference(trained, j, k)][j] is not None
        terms[j] = _minus(functools.reduce(_larger, cells), R[k][j]) if cells and learned else None
    return terms


def forgetting(R: Matrix[Value], trained: Sequence[int], stage: int | None = None) -> Value | None:
    """F_k: the mean of `forgetting_terms`. Its max invents forgetting under noise: lead with backward transfer."""
    return _mean(list(forgetting_terms(R, trained, stage).values()))


def fall_terms(R: Matrix[Value], trained: Sequence[int]) -> dict[int, Value | None]:
    """How far each earlier task lies below its best stage since it was learned, the last one included: never negative.

    What a gate on forgetting asks. Unlike `forgetting_terms` it leaves out stages before the task was learned, and is
    None where a stage since then was not evaluated: nobody knows what the maximum would be.
    """
    k = _last(R, None)
    terms: dict[int, Value | None] = {}
    for j in _earlier(trained, k):
        since = [row[j] for row in R[reference(trained, j, k) :]]
        cells = [cell for cell in since if cell is not None]
        terms[j] = _minus(functools.reduce(_larger, cells), R[k][j]) if len(cells) == len(since) else None
    return terms


def fall(R: Matrix[Value], trained: Sequence[int]) -> Value | None:
    """The mean of `fall_terms`. At least -BWT; under noise its maximum reads high, as in `forgetting`."""
    return _mean(list(fall_terms(R, trained).values()))


def intransigence(R: Matrix[float], trained: Sequence[int], single: Sequence[float | None]) -> list[float | None]:
    """I_k a stage: how much less its task was learned than by training on that task alone (``single[j]``)."""
    return [_minus(single[j], R[k][j]) for k, j in enumerate(trained[: len(R) - 1], start=1)]


def prior_change(parts: Matrix[Value], stage: int | None = None) -> Value | None:
    """The mean over a suite's parts of the accuracy at ``stage`` minus the base's; ``parts[k][p]``."""
    if not parts:
        return None
    k = _last(parts, stage)
    return _mean([_minus(now, base) for now, base in zip(parts[k], parts[0], strict=True)]) if k else None


def normalised(x: float, base: float, best: float, standard_error: float = 0.0) -> float | None:
    """(x - base) / (best over methods - base), as the paper's Figure 3 scales its axes.

    None where best - base is under two of its standard errors: there is no gain to be a share of.
    """
    return (x - base) / (best - base) if best != base and best - base >= 2 * standard_error else None


def summary(R: Matrix[Value], trained: Sequence[int], parts: Matrix[Value] = ()) -> dict[str, Value | None]:
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


def _earlier(trained: Sequence[int], stage: int) -> list[int]:
    """The tasks trained so far whose reference is not ``stage`` itself."""
    return [j for j in seen(trained, stage) if j != trained[stage - 1]]


def _mean(terms: Sequence[Value | None]) -> Value | None:
    """The mean; None of no terms, and None if one is missing (a mean over the rest is another quantity)."""
    known = [term for term in terms if term is not None]
    if not known or len(known) < len(terms):
        return None
    return functools.reduce(lambda a, b: a + b, known) / len(known)


def _larger(a: Value, b: Value) -> Value:
    if isinstance(a, np.ndarray):
        return np.maximum(a, b)
    return max(a, b)


def _minus(a: Value | None, b: Value | None) -> Value | None:
    return None if a is None or b is None else a - b


# --- intervals -----------------------------------------------------------------------------------------------


def wilson(correct: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval for ``correct`` of ``n``; (0, 1) of nothing. Graded scores in [0, 1]: conservative."""
    if n == 0:
        return (0.0, 1.0)
    z2 = statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2
    p = correct / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return (max(0.0, middle - half) if p > 0 else 0.0, min(1.0, middle + half) if p < 1 else 1.0)


def stratified(parts: Sequence[tuple[float, int]], level: float = 0.95) -> Interval:
    """An interval for the plain mean over parts, each ``(correct, n)``, from the parts' Wilson intervals.

    Zou & Donner's combination: unlike a bootstrap it does not shrink to a point where every item is right.
    """
    parts = [(correct, n) for correct, n in parts if n]
    if not parts:
        return (0.0, 1.0)
    rates = [correct / n for correct, n in parts]
    ends = [wilson(correct, n, level) for correct, n in parts]
    mean = sum(rates) / len(rates)
    below = math.hypot(*(p - lo for p, (lo, _) in zip(rates, ends, strict=True))) / len(parts)
    above = math.hypot(*(hi - p for p, (_, hi) in zip(rates, ends, strict=True))) / len(parts)
    return (max(0.0, mean - below), min(1.0, mean + above))


def bootstrap_fall(tasks: Sequence[Draws], trained: Sequence[int], draws: int = DRAWS, seed: int = 0) -> Draws | None:
    """`fall`, ``draws`` times, on the test items that `bootstrap` draws."""
    return fall(_resample(tasks, draws, (seed, 0)), trained)


def bootstrap(
    tasks: Sequence[Draws], trained: Sequence[int], parts: Sequence[Draws] = (), draws: int = DRAWS, seed: int = 0
) -> dict[str, Draws | None]:
    """Paired item bootstrap: every metric of `summary`, ``draws`` times, on resampled test items.

    ``tasks[j]`` and ``parts[p]`` hold item scores, shape (stages + 1, items); a row that was not evaluated is NaN
    throughout. An item is drawn at all stages together; suite items are drawn within their part. Two runs on the
    same items in the same order get the same draws, so the difference of their draws is paired too. What is
    resampled is items, not training: nothing here speaks of another seed. The max in forgetting grows with
    resampling noise, so its draws lie high.
    """
    R = _resample(tasks, draws, (seed, 0))
    return summary(R, trained, _resample(parts, draws, (seed, 1)))


def ratio(values: Sequence[float], sizes: Sequence[float], draws: int = DRAWS, seed: int = 0) -> tuple[float, Draws]:
    """sum of ``values`` / sum of ``sizes`` (positive), and that ``draws`` times on resampled items.

    With sizes of 1 it is a mean over items; with token counts a mean over tokens whose completions are resampled whole.
    """
    v, s = np.asarray(values, float), np.asarray(sizes, float)
    counts = np.random.default_rng(seed).multinomial(len(v), np.full(len(v), 1 / len(v)), size=draws)
    return float(v.sum() / s.sum()), (counts @ v) / (counts @ s)


def interval(
    draws: Draws | None,
    value: float | None,
    least: float = 0.0,
    lowest: float = -1.0,
    highest: float = 1.0,
    level: float = 0.95,
) -> Interval | None:
    """The percentile interval of bootstrap draws, at least ``least`` to both sides of ``value``, within its bounds.

    Where (hardly) any item changed the draws alone would claim to know everything; see `least_widths`.
    """
    if draws is None or value is None:
        return None
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return (max(lowest, min(float(low), value - least)), min(highest, max(float(high), value + least)))


def least_widths(trained: Sequence[int], sizes: Sequence[int], parts: Sequence[int] = ()) -> dict[str, float]:
    """The least half-width of each metric's interval: the rule of three, 3/n a task or part, combined over them.

    (Of n items without a single change, up to 3/n might change with 95 % confidence.)
    """
    begun, earlier = seen(trained, len(trained)), _earlier(trained, len(trained))
    terms = dict(zip(METRICS, (begun, begun, earlier, begun[1:], earlier), strict=False))
    counts = {name: [sizes[j] for j in tasks] for name, tasks in terms.items()} | {"prior_change": list(parts)}
    return {name: math.hypot(*(3 / n for n in ns)) / len(ns) if ns and all(ns) else 0.0 for name, ns in counts.items()}


def overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals share a point."""
    return a[0] <= b[1] and b[0] <= a[1]


def _resample(columns: Sequence[Draws], draws: int, seed: tuple[int, int]) -> list[list[Draws | None]]:
    """A matrix whose cells are arrays of ``draws`` resampled means, one column an item table."""
    matrix: list[list[Draws | None]] = [[] for _ in range(len(columns[0]) if columns else 0)]
    for index, values in enumerate(columns):
        n = values.shape[1]
        if n == 0:
            means = np.full((draws, len(values)), np.nan)
        else:
            counts = np.random.default_rng((*seed, index)).multinomial(n, np.full(n, 1 / n), size=draws)
            means = counts @ values.T / n
        for row, cell in zip(matrix, means.T, strict=True):
            row.append(None if np.isnan(cell).any() else cell)
    return matrix


# --- is this method better? Over seeds. -------------------------------------------------------------------------


class SeedTest(NamedTuple):
    """A paired comparison over seeds; ``smallest_p`` is what the sign-flip test can reach with so many seeds."""

    mean: float
    interval: Interval | None
    t: float | None
    t_p: float | None
    flip_p: float
    smallest_p: float


def seed_mean(values: Sequence[float], level: float = 0.95) -> tuple[float, Interval | None]:
    """The mean over seeds and its t-interval (None for one seed)."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return mean, None
    half = student_quantile((1 + level) / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean, (mean - half, mean + half)


def seed_test(differences: Sequence[float]) -> SeedTest:
    """Paired t-test and exact sign-flip test of one difference a seed (None where all differences are equal)."""
    n = len(differences)
    mean, ends = seed_mean(differences)
    spread = statistics.stdev(differences) if n > 1 else 0.0
    t = mean / (spread / math.sqrt(n)) if spread > 0 else None
    t_p = None if t is None else 2 * student_cdf(-abs(t), n - 1)
    return SeedTest(mean, ends, t, t_p, sign_flip(differences), 2.0 ** (1 - n))


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p: the share of all 2^n sign patterns whose mean is at least as far from 0."""
    if not 1 <= len(differences) <= 24:
        raise ValueError("an exact sign-flip test takes 1 to 24 differences")
    sums = np.array([float(differences[0])])  # the first sign is fixed: the other half mirrors it
    for d in differences[1:]:
        sums = np.concatenate([sums + d, sums - d])
    observed = abs(math.fsum(differences))
    return float(np.mean(np.abs(sums) >= observed - 1e-9 * max(1.0, observed)))


def student_cdf(t: float, df: int) -> float:
    """P(T <= t) of Student's t with a whole number of degrees of freedom (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(df))
    cos = math.cos(angle)
    odd = df % 2
    term, total = (cos, 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, df + 1, 2):
        total += term
        term *= cos * cos * (k - 1) / k
    inside = math.sin(angle) * total
    if odd:
        inside = 2 / math.pi * (angle + inside)
    return 0.5 + math.copysign(inside / 2, t)


def student_quantile(p: float, df: int) -> float:
    """The t below which a share ``p`` lies, by bisection."""
    low, high = -1.0, 1.0
    while student_cdf(high, df) < p:
        high *= 2
    while student_cdf(low, df) > p:
        low *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2
