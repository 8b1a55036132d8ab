"""Tests over training seeds: against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sdft_cli.stats.across_seeds import seed_mean, seed_test, sign_flip


def test_three_seeds():
    test = seed_test([4, 6, 5])
    assert test.t == pytest.approx(8.6603, abs=1e-4)
    assert test.t_p == pytest.approx(stats.ttest_1samp([4, 6, 5], 0).pvalue)
    assert test.flip_p == test.smallest_p == 0.25
    assert test.interval == pytest.approx(stats.t.interval(0.95, 2, loc=5, scale=1 / math.sqrt(3)))
    assert seed_test([1, 2, 3, 4, 5, 6]).smallest_p == pytest.approx(0.031, abs=1e-3)


def test_sign_flip_matches_scipy_and_counts_ties():
    values = [0.3, -0.1, 0.25, 0.4, 0.05]
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(values) == pytest.approx(theirs.pvalue)
    assert sign_flip([0.1, 0.1, 0.1]) == 0.25
    assert sign_flip([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="1 to 24"):
        sign_flip([])


def test_one_seed_has_a_mean_and_nothing_else():
    assert seed_mean([0.7]) == (0.7, None)
    test = seed_test([0.7])
    assert (test.interval, test.t, test.t_p, test.flip_p, test.smallest_p) == (None, None, None, 1.0, 1.0)
    assert seed_test([0.2, 0.2]).t is None
