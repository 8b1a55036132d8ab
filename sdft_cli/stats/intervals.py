"""Intervals for accuracies: of counts of right answers, and of scores between 0 and 1. Pure.

Sources: Wilson 1927; Korn & Graubard 1998 (an effective sample size); Zou & Donner 2008 (combining intervals).
Intervals for metrics over stages are in `bootstrap`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Interval = tuple[float, float]


def wilson(correct: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's interval for ``correct`` of ``n``; (0, 1) where n is 0. Conservative for graded scores (`of_scores`)."""
    if n == 0:
        return (0.0, 1.0)
    z2 = statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2
    p = correct / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return (max(0.0, middle - half) if p > 0 else 0.0, min(1.0, middle + half) if p < 1 else 1.0)


def of_scores(scores: Sequence[float], level: float = 0.95) -> Interval:
    """An interval for the mean of ``scores`` between 0 and 1: Wilson's where each is right or wrong.

    Graded scores vary less than right and wrong ones of the same mean. Their interval is Wilson's for as many items of
    0 or 1 as would vary as much (the effective sample size). It reaches as far as the rule of three: up to 3/n of all
    items may score 0, or 1, without any such item among n, so equal scores do not make an interval of no width.
    """
    n = len(scores)
    if n < 2 or all(score in (0, 1) for score in scores):
        return wilson(sum(scores), n, level)
    mean = sum(scores) / n
    variance = sum((score - mean) ** 2 for score in scores) / n
    unseen = min(1.0, 3 / n)
    low, high = mean * (1 - unseen), mean + (1 - mean) * unseen
    if variance > 0:
        effective = n * mean * (1 - mean) / variance
        ends = wilson(mean * effective, effective, level)
        low, high = min(low, ends[0]), max(high, ends[1])
    return (low, high)


def stratified(parts: Sequence[tuple[float, int]], level: float = 0.95) -> Interval:
    """An interval for the plain mean over parts, each ``(correct, n)``, from the parts' Wilson intervals."""
    return combined([(correct / n, wilson(correct, n, level)) for correct, n in parts if n])


def combined(parts: Sequence[tuple[float, Interval]]) -> Interval:
    """An interval for the plain mean over parts, each with its own mean and interval; (0, 1) without any.

    Zou & Donner's combination: unlike a bootstrap it does not shrink to a point where every item is right.
    """
    if not parts:
        return (0.0, 1.0)
    mean = sum(of_part for of_part, _ in parts) / len(parts)
    below = math.hypot(*(of_part - low for of_part, (low, _) in parts)) / len(parts)
    above = math.hypot(*(high - of_part for of_part, (_, high) in parts)) / len(parts)
    return (max(0.0, mean - below), min(1.0, mean + above))


def overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals share a point."""
    return a[0] <= b[1] and b[0] <= a[1]
