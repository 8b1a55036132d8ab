"""Did two checkpoints score differently on the same items? Paired, exact, and clustered by document. Pure.

The null hypothesis is that the sign of each item's difference is a coin flip. Where all differences have one size, the
exact test is McNemar's; for graded scores it is the sign-flip test, of which McNemar's is a special case. Items that
share a document are not independent: their differences are flipped together, and summed for the standard error.

Sources: McNemar 1947; Fisher 1935 (sign flips); Miller 2024, arXiv 2411.00640 (paired and clustered standard errors).
None of this compares methods: the items of one training seed say nothing about another (see `seeds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdft_cli.stats import across_seeds, t_distribution
from sdft_cli.stats.intervals import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int_]

#: Differences that are fractions with a denominator up to this get the exact test.
FINEST = 1000
#: The most work the exact distribution may take (differences x sums), and how many random draws replace it beyond that.
WORK, DRAWS = 500_000_000, 99_999
#: This many differences without a common denominator are still enumerated.
ENUMERATED = 20


@dataclass(frozen=True)
class Change:
    """From ``before`` to ``after`` on ``n`` shared items in ``clusters`` documents (an item without a document is one).

    ``gained`` and ``lost`` are ids. The 95 % interval is Student's t over documents, and reaches at least 3/n (the rule
    of three) to both sides; it and the standard error are None where there is a single document. ``test`` names the
    test that gave ``p``.
    """

    n: int
    clusters: int
    before: float
    after: float
    gained: list[str]
    lost: list[str]
    standard_error: float | None
    interval: Interval | None
    p: float
    test: str

    @property
    def difference(self) -> float:
        return self.after - self.before


Scores = Mapping[str, float | None]
Documents = Mapping[str, str | None]


def change(before: Scores, after: Scores, documents: Documents) -> Change | None:
    """The change on the ids that are scored on both sides; None if there are none. ``documents`` by id."""
    return change_of_parts([(before, after, documents)])


def change_of_parts(parts: Sequence[tuple[Scores, Scores, Documents]]) -> Change | None:
    """The change in the plain mean over a suite's parts; items of different parts are taken as independent.

    The test pools the items of all parts. None where a part has no shared item.
    """
    tables = [_table(*part) for part in parts]
    if not tables or not all(len(x) for x, _, _ in tables):
        return None
    x, y = (float(np.mean([t[side].mean() for t in tables])) for side in (0, 1))
    errors = [e for x, y, groups in tables if (e := clustered_error(y - x, groups)) is not None]
    error = math.hypot(*errors) / len(tables) if len(errors) == len(tables) else None
    moved, groups = np.concatenate([y - x for x, y, _ in tables]), _side_by_side([g for _, _, g in tables])
    clusters = int(groups.max()) + 1
    least = math.hypot(*(3 / len(x) for x, _, _ in tables)) / len(tables)
    ends = _interval(y - x, error, clusters - len(tables), least)
    gained, lost = ([i for p in parts for i in changes(p[0], p[1])[kind]] for kind in (0, 1))
    return Change(len(moved), clusters, x, y, gained, lost, error, ends, *p_value(moved, groups))


def _table(before: Scores, after: Scores, documents: Documents) -> tuple[Floats, Floats, Ints]:
    """Both sides' scores on the shared ids, and the number of each item's document."""
    pairs = [(i, a, b) for i, a in before.items() if a is not None and (b := after.get(i)) is not None]
    names = [("document", d) if (d := documents.get(i)) is not None else ("item", i) for i, _, _ in pairs]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    x, y = (np.array([pair[side] for pair in pairs], float) for side in (1, 2))
    return x, y, np.array([numbers[name] for name in names], int)


def _side_by_side(groups: Sequence[Ints]) -> Ints:
    """The document numbers of all parts, each part's numbers following on from those of the parts before it."""
    starts = np.cumsum([0, *(int(g.max()) + 1 for g in groups)])
    return np.concatenate([g + start for g, start in zip(groups, starts, strict=False)])


class McNemar(NamedTuple):
    """Two-sided p-values of McNemar's test: the exact one, and mid-p (less conservative)."""

    p: float
    mid_p: float


def mcnemar(gained: int, lost: int) -> McNemar:
    """McNemar's test of ``gained`` against ``lost`` items; unchanged items do not count. 1.0 when nothing changed."""
    n, few = gained + lost, min(gained, lost)
    tail = term = 1  # C(n, 0), then C(n, k) from C(n, k - 1): whole numbers, of any size
    for k in range(1, few + 1):
        term = term * (n - k + 1) // k
        tail += term
    return McNemar(min(1.0, 2 * tail / 2**n), min(1.0, (2 * tail - term) / 2**n))


def changes(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> tuple[list[str], list[str]]:
    """The ids whose score rose and those whose score fell, among ids scored on both sides."""
    pairs = [(i, a, b) for i, a in before.items() if a is not None and (b := after.get(i)) is not None]
    return [i for i, a, b in pairs if b > a], [i for i, a, b in pairs if b < a]


def clustered_error(differences: Floats, groups: Sequence[int] | Ints) -> float | None:
    """The standard error of the mean of ``differences`` in ``groups`` (0, 1, …); None for a single group.

    Sums of residuals by group, with C / (C - 1) for C groups: groups of one give the usual s / sqrt(n).
    """
    n, count = len(differences), int(np.max(groups)) + 1
    if count < 2:
        return None
    sums = np.bincount(groups, weights=differences - differences.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * float((sums**2).sum())) / n)


def _interval(mean: float, error: float | None, df: int, least: float) -> Interval | None:
    if error is None:
        return None
    # beyond 2000 degrees of freedom t is practically normal, and its quantile slow to compute
    half = max(least, t_distribution.quantile(0.975, min(df, 2000)) * error)
    return (max(-1.0, mean - half), min(1.0, mean + half))


def p_value(differences: Floats, groups: Ints | None = None) -> tuple[float, str]:
    """p and the test's name: McNemar's where every document is a single item and every score is right or wrong."""
    sums = differences if groups is None else np.bincount(groups, weights=differences).astype(float)
    what = "items" if len(sums) == len(differences) else "documents"
    if what == "items" and set(np.abs(differences)) <= {0.0, 1.0}:
        return mcnemar(int((differences > 0).sum()), int((differences < 0).sum())).p, "exact McNemar"
    p, exact = sign_flip(sums)
    return p, f"exact sign-flip of {what}" if exact else f"sign-flip of {what}, {DRAWS:,} draws"


def sign_flip(differences: Sequence[float] | Floats, seed: int = 0) -> tuple[float, bool]:
    """Two-sided p of the sum of ``differences`` under random signs, and whether it is exact.

    Differences that are fractions with one small denominator get the exact distribution of the sum, however many there
    are. Others are enumerated up to `ENUMERATED`, and beyond that drawn with ``seed`` (the observed one counts as one).
    """
    moved = np.abs(np.asarray(differences, float))
    moved, observed = moved[moved > 1e-12], abs(math.fsum(differences))
    if not len(moved):
        return 1.0, True
    unit = _denominator(moved)
    if unit and len(moved) * float(moved.sum()) * unit <= WORK:
        return _by_sums(np.rint(moved * unit).astype(int), round(observed * unit)), True
    if len(moved) <= ENUMERATED:
        return across_seeds.sign_flip([float(d) for d in differences if abs(d) > 1e-12]), True
    rng = np.random.default_rng(seed)
    sums = np.array([abs(rng.choice((-1.0, 1.0), len(moved)) @ moved) for _ in range(DRAWS)])
    return float((1 + (sums >= observed - 1e-9 * max(1.0, observed)).sum()) / (DRAWS + 1)), False


def _denominator(values: Floats) -> int | None:
    """The smallest q up to `FINEST` that makes all ``values`` whole; None if there is none."""
    for q in range(1, FINEST + 1):
        if np.abs(values * q - np.rint(values * q)).max() < 1e-9 * q:
            return q
    return None


def _by_sums(sizes: Ints, observed: int) -> float:
    """P(|sum of ± sizes| >= observed). The sum is twice the positive part, minus the total."""
    whole = int(sizes.sum())
    chance, reached = np.zeros(whole + 1), 0
    chance[0] = 1.0
    for size in sizes.tolist():
        chance[: reached + size + 1] *= 0.5
        chance[size : reached + size + 1] += chance[: reached + 1].copy()
        reached += size
    far = np.abs(2 * np.arange(whole + 1) - whole) >= observed
    return min(1.0, float(chance[far].sum()))
