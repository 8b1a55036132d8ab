"""pass@k against the binomials, against every way of choosing k of n, and by simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from sdft_cli.stats.pass_at_k import MOST, mean_pass_at, pass_at


def naive(k: int, n: int, correct: int) -> Fraction:
    return 1 - Fraction(math.comb(n - correct, k), math.comb(n, k))


@pytest.mark.parametrize("n", [1, 2, 7, 20, 200])
def test_it_is_the_combinatorial_formula(n):
    for correct in range(n + 1):
        for k in {1, 2, n // 2 or 1, n}:
            if k <= n:
                assert pass_at(k, n, correct) == pytest.approx(float(naive(k, n, correct)), rel=1e-12, abs=1e-15)


def test_it_is_the_share_of_choices_that_hold_a_right_one():
    for n, correct, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if correct <= n and k <= n:
            choices = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
            assert pass_at(k, n, correct) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_it_stays_exact_where_the_binomials_are_beyond_any_float():
    n, correct = 5000, 3
    assert math.comb(n, MOST) > 1e200
    assert pass_at(MOST, n, correct) == pytest.approx(float(naive(MOST, n, correct)), rel=1e-12)


def test_extreme_cases():
    assert pass_at(1, 5, 2) == pytest.approx(2 / 5)
    assert pass_at(5, 5, 1) == 1.0 and pass_at(3, 5, 3) == 1.0
    assert pass_at(4, 5, 0) == 0.0
    for bad in ((0, 5, 1), (6, 5, 1), (1, 5, 6), (1, 5, -1)):
        with pytest.raises(ValueError, match="cannot be estimated"):
            pass_at(*bad)


def test_it_is_unbiased_where_the_plug_in_is_not():
    """A question that is answered right with chance 0.1: pass@8 is 1 - 0.9^8."""
    rng = np.random.default_rng(0)
    n, k, rate = 16, 8, 0.1
    counts = rng.binomial(n, rate, size=20_000)
    truth = 1 - (1 - rate) ** k
    estimates = np.array([pass_at(k, n, int(c)) for c in counts])
    error = estimates.std() / math.sqrt(len(counts))
    assert abs(estimates.mean() - truth) < 4 * error
    plug_in = 1 - (1 - counts / n) ** k
    assert abs(plug_in.mean() - truth) > 8 * error


def test_the_mean_is_over_questions_that_have_k_completions():
    counts = [(8, 4), (8, 0), (4, 4), (0, 0)]
    value, (low, high) = mean_pass_at(8, counts)
    assert value == pytest.approx((1.0 + 0.0) / 2) and 0 <= low <= value <= high <= 1
    assert mean_pass_at(1, counts)[0] == pytest.approx((0.5 + 0 + 1) / 3)
    assert mean_pass_at(16, counts) is None and mean_pass_at(1, []) is None


def test_where_every_question_is_solved_the_interval_still_has_width():
    assert mean_pass_at(2, [(4, 4)] * 30) == (1.0, (pytest.approx(0.9), 1.0))
    assert mean_pass_at(2, [(4, 0)] * 30) == (0.0, (0.0, pytest.approx(0.1)))


def test_more_completions_never_lower_it():
    for correct in range(17):
        values = [pass_at(k, 16, correct) for k in range(1, 17)]
        assert values == sorted(values)
