"""Is this method better? Paired tests over training seeds. Pure.

The unit is one number per seed, such as a run's average accuracy. Left out: corrections for multiple comparisons.
Tests on the items of two checkpoints are in `paired`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sdft_cli.stats import t_distribution
from sdft_cli.stats.intervals import Interval

#: `sign_flip` enumerates all sign patterns of at most this many differences.
MOST = 24


class SeedTest(NamedTuple):
    """A paired comparison over seeds; ``smallest_p`` is the lowest p that the sign-flip test can give for that many."""

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
    half = t_distribution.quantile((1 + level) / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean, (mean - half, mean + half)


def seed_test(differences: Sequence[float]) -> SeedTest:
    """Paired t-test and exact sign-flip test of one difference per seed; t is None where all differences are equal."""
    n = len(differences)
    mean, ends = seed_mean(differences)
    spread = statistics.stdev(differences) if n > 1 else 0.0
    t = mean / (spread / math.sqrt(n)) if spread > 0 else None
    t_p = None if t is None else 2 * t_distribution.cdf(-abs(t), n - 1)
    return SeedTest(mean, ends, t, t_p, sign_flip(differences), smallest_p(n))


def smallest_p(n: int) -> float:
    """The lowest two-sided p that a sign-flip test of ``n`` differences can give."""
    return 2.0 ** (1 - n)


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p: the share of all 2^n sign patterns whose mean is at least as far from 0."""
    if not 1 <= len(differences) <= MOST:
        raise ValueError(f"an exact sign-flip test takes 1 to {MOST} differences")
    sums = np.array([float(differences[0])])  # the first sign is fixed: the other half mirrors it
    for d in differences[1:]:
        sums = np.concatenate([sums + d, sums - d])
    observed = abs(math.fsum(differences))
    return float(np.mean(np.abs(sums) >= observed - 1e-9 * max(1.0, observed)))
