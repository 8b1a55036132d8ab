"""Did two checkpoints score differently on the same items? Paired, exact, and clustered by document. Pure.

The null hypothesis is that each item's difference might as well have had the other sign. Over differences of one size
its exact test is McNemar's; over graded scores it is the sign-flip test, of which McNemar's is a case. Items that share
a document are not independent: their differences are flipped, and enter the standard error, together.

Sources: McNemar 1947; Fisher 1935 (sign flips); Miller 2024, arXiv 2411.00640 (paired and clustered standard errors).
None of this speaks of a method: items of one seed say nothing about another (see `continual.seed_test`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sdft_cli.stats import continual
from sdft_cli.stats.continual import Draws, Interval

#: Differences count as fractions with a denominator up to this; else the test is a simulation.
FINEST = 1000
#: How much work the exact distribution may be (differences x sums), and how many draws replace it beyond that.
WORK, DRAWS = 500_000_000, 99_999


@dataclass(frozen=True)
class Change:
    """From ``before`` to ``after`` on ``n`` shared items in ``clusters`` documents (an item without one is its own).

    ``gained`` and ``lost`` are ids. The interval (95 %) is that of Student's t over documents, reaching at least 3/n
    (the rule of three) to both sides; it and the standard error are None of a single document. ``test`` says where
    ``p`` comes from.
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
    """What changed on the ids that are scored on both sides; None if there are none. ``documents`` by id."""
    return change_of_parts([(before, after, documents)])


def change_of_parts(parts: Sequence[tuple[Scores, Scores, Documents]]) -> Change | None:
    """What changed in the plain mean over a suite's parts, whose items are independent of each other's parts.

    The test pools the items of all parts. None where a part has no shared item.
    """
    tables = [_table(*part) for part in parts]
    if not tables or not all(len(x) for x, _, _ in tables):
        return None
    x, y = (float(np.mean([t[side].mean() for t in tables])) for side in (0, 1))
    found = [clustered_error(y - x, groups) for x, y, groups in tables]
    errors = [error for error in found if error is not None]
    error = math.hypot(*errors) / len(tables) if len(errors) == len(tables) else None
    moved, groups = np.concatenate([y - x for x, y, _ in tables]), _side_by_side([g for _, _, g in tables])
    clusters = int(groups.max()) + 1
    least = math.hypot(*(3 / len(x) for x, _, _ in tables)) / len(tables)
    ends = _interval(y - x, error, clusters - len(tables), least)
    gained, lost = ([i for p in parts for i in changes(p[0], p[1])[way]] for way in (0, 1))
    return Change(len(moved), clusters, x, y, gained, lost, error, ends, *p_value(moved, groups))


def _table(before: Scores, after: Scores, documents: Documents) -> tuple[Draws, Draws, np.ndarray]:
    """Both sides' scores of the shared ids, and the number of each one's document."""
    pairs = [(i, a, b) for i, a in before.items() if a is not None and (b := after.get(i)) is not None]
    names = [("document", d) if (d := documents.get(i)) is not None else ("item", i) for i, _, _ in pairs]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    x, y = (np.array([pair[side] for pair in pairs], float) for side in (1, 2))
    return x, y, np.array([numbers[name] for name in names], int)


def _side_by_side(groups: Sequence[np.ndarray]) -> np.ndarray:
    """The parts' document numbers, each part's after those of the parts before it."""
    starts = np.cumsum([0, *(int(g.max()) + 1 for g in groups)])
    return np.concatenate([g + start for g, start in zip(groups, starts, strict=False)])


class McNemar(NamedTuple):
    """Two-sided p-values of McNemar's test: the exact one, and mid-p (less conservative)."""

    p: float
    mid_p: float


def mcnemar(gained: int, lost: int) -> McNemar:
    """McNemar's test of ``gained`` against ``lost`` items; ties carry nothing. 1.0 when nothing changed."""
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


def clustered_error(differences: Draws, groups: Sequence[int] | np.ndarray) -> float | None:
    """The standard error of the mean of ``differences`` in ``groups`` (0, 1, …); None for one group.

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
    # beyond 2000 degrees of freedom t is as good as normal, and its quantile slow
    half = max(least, continual.student_quantile(0.975, min(df, 2000)) * error)
    return (max(-1.0, mean - half), min(1.0, mean + half))


def p_value(differences: Draws, groups: np.ndarray | None = None) -> tuple[float, str]:
    """p and the test's name: McNemar's where every document is one item and a score is right or wrong."""
    sums = differences if groups is None else np.bincount(groups, weights=differences).astype(float)
    what = "items" if len(sums) == len(differences) else "documents"
    if what == "items" and set(np.abs(differences)) <= {0.0, 1.0}:
        return mcnemar(int((differences > 0).sum()), int((differences < 0).sum())).p, "exact McNemar"
    p, exact = sign_flip(sums)
    return p, f"exact sign-flip of {what}" if exact else f"sign-flip of {what}, {DRAWS:,} draws"


def sign_flip(differences: Sequence[float] | Draws, seed: int = 0) -> tuple[float, bool]:
    """Two-sided p of the sum of ``differences`` under random signs, and whether it is exact.

    Exact for any number of differences that are fractions of one small denominator, by the distribution of the sum;
    else by enumeration up to 20 of them, and by seeded draws beyond (the observed one counts among them).
    """
    moved = np.abs(np.asarray(differences, float))
    moved, observed = moved[moved > 1e-12], abs(math.fsum(differences))
    if not len(moved):
        return 1.0, True
    unit = _denominator(moved)
    if unit and len(moved) * float(moved.sum()) * unit <= WORK:
        return _by_sums(np.rint(moved * unit).astype(int), round(observed * unit)), True
    if len(moved) <= 20:
        return continual.sign_flip([float(d) for d in differences if abs(d) > 1e-12]), True
    rng = np.random.default_rng(seed)
    sums = np.array([abs(rng.choice((-1.0, 1.0), len(moved)) @ moved) for _ in range(DRAWS)])
    return float((1 + (sums >= observed - 1e-9 * max(1.0, observed)).sum()) / (DRAWS + 1)), False


def _denominator(values: Draws) -> int | None:
    """The smallest q up to `FINEST` that makes all ``values`` whole; None if there is none."""
    for q in range(1, FINEST + 1):
        if np.abs(values * q - np.rint(values * q)).max() < 1e-9 * q:
            return q
    return None


def _by_sums(sizes: np.ndarray, observed: int) -> float:
    """P(|sum of ± sizes| >= observed). The sum is twice the part with a plus, less the whole."""
    whole = int(sizes.sum())
    chance, reached = np.zeros(whole + 1), 0
    chance[0] = 1.0
    for size in sizes.tolist():
        chance[: reached + size + 1] *= 0.5
        chance[size : reached + size + 1] += chance[: reached + 1].copy()
        reached += size
    far = np.abs(2 * np.arange(whole + 1) - whole) >= observed
    return min(1.0, float(chance[far].sum()))
