"""Intervals from counts: against scipy and published values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sdft_cli.stats.intervals import combined, of_scores, overlap, stratified, wilson

GRADED = [
    (20, lambda rng, n: rng.beta(2, 2, n), 0.5),
    (60, lambda rng, n: rng.beta(8, 2, n), 0.8),
    (60, lambda rng, n: np.where(rng.random(n) < 0.7, 1.0, rng.random(n)), 0.85),
    (200, lambda rng, n: rng.beta(0.5, 0.5, n), 0.5),
]


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


def test_right_and_wrong_scores_have_wilsons_interval():
    assert of_scores([1.0] * 7 + [0.0] * 13) == wilson(7, 20)
    assert of_scores([1.0] * 20) == wilson(20, 20) and of_scores([]) == (0.0, 1.0)
    assert of_scores([0.4]) == wilson(0.4, 1)  # one item says nothing of how much items vary


@pytest.mark.parametrize(("n", "draw", "mean"), GRADED, ids=lambda x: str(x) if isinstance(x, int) else "")
def test_intervals_of_graded_scores_cover_and_are_narrower_than_wilsons(n, draw, mean):
    rng, hits, width, conservative, repeats = np.random.default_rng(0), 0, 0.0, 0.0, 800
    for _ in range(repeats):
        scores = draw(rng, n)
        low, high = of_scores(scores.tolist())
        assert 0 <= low <= scores.mean() <= high <= 1
        hits, width = hits + (low <= mean <= high), width + high - low
        ends = wilson(float(scores.sum()), n)
        conservative += ends[1] - ends[0]
    assert hits / repeats >= 0.91 and width < 0.95 * conservative  # 0.91: four standard errors below 0.95 and a bit


def test_equal_graded_scores_have_an_interval_of_some_width():
    assert of_scores([0.5] * 30) == pytest.approx((0.45, 0.55))
    low, high = of_scores([0.9] * 30)
    assert low == pytest.approx(0.81) and high == pytest.approx(0.91)


def test_combined_takes_any_intervals():
    assert combined([(0.35, wilson(7, 20))] * 4) == pytest.approx(stratified([(7, 20)] * 4))
    assert combined([(0.5, (0.4, 0.6)), (0.7, (0.7, 0.7))]) == pytest.approx((0.55, 0.65))
    assert combined([]) == (0.0, 1.0)
