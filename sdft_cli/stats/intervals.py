"""Intervals for accuracies from counts of right answers. Pure.

Sources: Wilson 1927; Zou & Donner 2008 (combining intervals). Intervals for metrics over stages are in `bootstrap`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Interval = tuple[float, float]


def wilson(correct: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval for ``correct`` of ``n``; (0, 1) where n is 0. Conservative for graded scores in [0, 1]."""
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


def overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals share a point."""
    return a[0] <= b[1] and b[0] <= a[1]
