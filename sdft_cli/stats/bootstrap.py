"""Bootstrap over test items: draws of the continual-learning metrics and of ratios, and intervals from them. Pure.

Only items are resampled, not training: nothing here speaks of another training seed (see `seeds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sdft_cli.stats import continual
from sdft_cli.stats.continual import METRICS, Draws, Metric, Trained
from sdft_cli.stats.intervals import Interval

#: How often the bootstrap resamples.
DRAWS = 2000


def metrics(
    tasks: Sequence[Draws], trained: Trained, parts: Sequence[Draws] = (), draws: int = DRAWS, seed: int = 0
) -> dict[Metric, Draws | None]:
    """Paired item bootstrap: every metric of `continual.summary`, ``draws`` times, on resampled test items.

    ``tasks[j]`` and ``parts[p]`` hold item scores, shape (stages + 1, items); a row that was not evaluated is all NaN.
    An item is drawn for all stages together; suite items are drawn within their part. Two runs on the same items in
    the same order get the same draws, so the difference of their draws is paired too. Resampling noise raises the
    maximum in forgetting, so its draws are biased upwards.
    """
    R = _resample(tasks, draws, (seed, 0))
    return continual.summary(R, trained, _resample(parts, draws, (seed, 1)))


def fall(tasks: Sequence[Draws], trained: Trained, draws: int = DRAWS, seed: int = 0) -> Draws | None:
    """`continual.fall`, ``draws`` times, on the same resampled test items as `metrics`."""
    return continual.fall(_resample(tasks, draws, (seed, 0)), trained)


def ratio(values: Sequence[float], sizes: Sequence[float], draws: int = DRAWS, seed: int = 0) -> tuple[float, Draws]:
    """sum of ``values`` / sum of ``sizes`` (positive), and the same ``draws`` times on resampled items.

    With sizes of 1 it is a mean over items; with token counts, a mean over tokens that resamples whole completions.
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

    Where hardly any item changed, the draws alone would give an interval of no width; see `least_widths`.
    """
    if draws is None or value is None:
        return None
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return (max(lowest, min(float(low), value - least)), min(highest, max(float(high), value + least)))


def least_widths(trained: Trained, sizes: Sequence[int], parts: Sequence[int] = ()) -> dict[Metric, float]:
    """The smallest half-width of each metric's interval: the rule of three, 3/n per task or part, combined over them.

    (If none of n items changed, up to 3/n of them might change with 95 % confidence.)
    """
    tasks, earlier = continual.seen(trained, len(trained)), continual.earlier(trained, len(trained))
    terms = dict(zip(METRICS, (tasks, tasks, earlier, tasks[1:], earlier), strict=False))
    counts = {name: [sizes[j] for j in of] for name, of in terms.items()} | {"prior_change": list(parts)}
    return {name: math.hypot(*(3 / n for n in ns)) / len(ns) if ns and all(ns) else 0.0 for name, ns in counts.items()}


def _resample(columns: Sequence[Draws], draws: int, seed: tuple[int, int]) -> list[list[Draws | None]]:
    """A matrix whose cells are arrays of ``draws`` resampled means, one column per item table."""
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
