"""Where a learning curve reaches a level, although each of its points is noisy. Pure.

A curve of accuracies on few items rises and falls by luck, so its first point above a level comes too early, and the
last of its points below it too late. The curve is therefore replaced by the monotone one that is closest to it in least
squares (isotonic regression), which reaches a level once and keeps it. Where accuracy really falls again, the monotone
curve stays below the peak: a level counts as reached only where it holds, on average, to the curve's end.

Source: Barlow, Bartholomew, Bremner and Brunk 1972 (pooling adjacent violators). Near a curve's highest value a
crossing is uncertain however it is read: the curve is flat there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Rounding errors that a level is reached in spite of.
_ROUNDING = 1e-9


class Crossing(NamedTuple):
    """A place on a curve: point ``after``, and from there the share ``beyond`` of the way to the next point."""

    after: int
    beyond: float

    def read(self, values: Sequence[float]) -> float:
        """``values``, one per point of the curve, at this place: interpolated between its two neighbours."""
        here = values[self.after]
        return here + self.beyond * (values[self.after + 1] - here) if self.beyond else here


def monotone(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The nondecreasing sequence with the least weighted sum of squared differences from ``values``.

    ``weights`` are positive, such as the number of items behind each value; by default all are equal.
    """
    pooled: list[tuple[float, float, int]] = []  # mean, weight and number of values of a block
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        mean, total, count = value, float(weight), 1
        while pooled and pooled[-1][0] > mean:
            before, of_before, number = pooled.pop()
            mean = (before * of_before + mean * total) / (of_before + total)
            total, count = of_before + total, number + count
        pooled.append((mean, total, count))
    return [mean for mean, _, count in pooled for _ in range(count)]


def crossing(curve: Sequence[float], level: float) -> Crossing | None:
    """Where ``curve``, which never falls (`monotone`), reaches ``level``; None if it stays below.

    The first point where it is reached from the start, else linearly between the last point below the level and the
    next one.
    """
    first = next((i for i, value in enumerate(curve) if value >= level - _ROUNDING), None)
    if not first:
        return None if first is None else Crossing(0, 0.0)
    low, high = curve[first - 1], curve[first]
    return Crossing(first - 1, min(1.0, (level - low) / (high - low)))
