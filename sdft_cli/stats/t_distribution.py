"""Student's t distribution without scipy. Pure.

Source: Abramowitz & Stegun 26.7.3 and 26.7.4, for a whole number of degrees of freedom.
"""

from __future__ import annotations

import math


def cdf(t: float, df: int) -> float:
    """P(T <= t) with ``df`` degrees of freedom."""
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


def quantile(p: float, df: int) -> float:
    """The t with P(T <= t) = ``p``, by bisection."""
    low, high = -1.0, 1.0
    while cdf(high, df) < p:
        high *= 2
    while cdf(low, df) > p:
        low *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, df) < p else (low, middle)
    return (low + high) / 2
