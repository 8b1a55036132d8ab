"""Intervals from counts: against scipy and published values."""

from __future__ import annotations

import pytest
from scipy import stats

from sdft_cli.stats.intervals import overlap, stratified, wilson


def test_wilson():
    assert wilson(7, 20) == pytest.approx((0.181192, 0.567146), abs=1e-6)
    for correct, n in ((0, 10), (10, 10), (3, 11)):
        theirs = stats.binomtest(correct, n).proportion_ci(method="wilson")
        assert wilson(correct, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert wilson(0, 0) == (0.0, 1.0)


def test_stratified_is_wilson_for_one_part_and_narrows_with_more():
    assert stratified([(7, 20)]) == pytest.approx(wilson(7, 20))
    low, high = stratified([(7, 20)] * 4)
    assert low < 0.35 < high and high - low == pytest.approx((0.567146 - 0.181192) / 2, abs=1e-5)
    assert stratified([(20, 20), (20, 20)])[0] < 0.95  # not a point where everything is right
    assert stratified([]) == (0.0, 1.0)


def test_overlap():
    assert overlap((0.1, 0.3), (0.3, 0.5))
    assert not overlap((0.1, 0.3), (0.31, 0.5))
