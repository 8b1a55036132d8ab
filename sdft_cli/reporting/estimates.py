"""A value with its 95 % interval: of one run, or over the seeds of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from sdft_cli.stats import across_seeds
from sdft_cli.stats.intervals import Interval


class Estimate(TypedDict):
    """``value`` is None where it is not defined, ``interval`` where it is not known."""

    value: float | None
    interval: Interval | None


class SeedDifference(Estimate):
    """A mean difference over paired seeds, with the p-values of the paired t-test and of the exact sign-flip test."""

    t_p: float | None
    flip_p: float | None


def estimate(value: float | None, interval: Interval | None = None) -> Estimate:
    return {"value": value, "interval": interval}


def seed_mean(values: Sequence[float | None]) -> Estimate:
    """The mean of one value per seed with its t-interval; None where some seed has no value."""
    present = [value for value in values if value is not None]
    return estimate(*across_seeds.seed_mean(present)) if present and len(present) == len(values) else estimate(None)


def seed_accuracy(values: Sequence[float | None]) -> Estimate:
    """`seed_mean` of accuracies; the interval is cut off at 0 and 1, which Student's t does not know about."""
    mean = seed_mean(values)
    if mean["interval"] is None:
        return mean
    low, high = mean["interval"]
    return estimate(mean["value"], (max(0.0, low), min(1.0, high)))


def seed_difference(a: Sequence[float | None], b: Sequence[float | None]) -> SeedDifference:
    """``a`` minus ``b``, one value per seed in each, with the paired tests; None where some seed has no value."""
    differences = [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if len(differences) < len(a):
        return {**estimate(None), "t_p": None, "flip_p": None}
    test = across_seeds.seed_test(differences)
    return {**estimate(test.mean, test.interval), "t_p": test.t_p, "flip_p": test.flip_p}
