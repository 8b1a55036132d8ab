"""The metrics against the oracle table of the project's statistics notes, scipy, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from support.oracle import ORACLE, PRIOR

from sdft_cli.stats import continual

# Percent, n = 100 each; stages train A, B, C, D in order; P and Q are prior benchmarks.
TRAINED = [0, 1, 2, 3]


def test_oracle_average_and_learning_accuracy():
    assert [continual.average_accuracy(ORACLE, TRAINED, k) for k in (1, 2, 3, 4)] == pytest.approx(
        [70, 67, 57 + 1 / 3, 64.5]
    )
    assert continual.learning_accuracy(ORACLE, TRAINED) == pytest.approx(67)


def test_oracle_transfer():
    assert continual.backward_terms(ORACLE, TRAINED) == {0: -10, 1: -6, 2: 6}
    assert continual.backward_transfer(ORACLE, TRAINED) == pytest.approx(-10 / 3)
    assert continual.forward_terms(ORACLE, TRAINED) == {1: -2, 2: 6, 3: 12}
    assert continual.forward_transfer(ORACLE, TRAINED) == pytest.approx(16 / 3)


def test_oracle_forgetting_and_intransigence():
    assert continual.forgetting_terms(ORACLE, TRAINED) == {0: 14, 1: 12, 2: -6}
    assert [continual.forgetting(ORACLE, TRAINED, k) for k in (2, 3, 4)] == pytest.approx([-4, 13, 20 / 3])
    assert continual.intransigence(ORACLE, TRAINED, [72, 63, 66, 79]) == [2, 3, 8, -1]


def test_oracle_fall():
    """What a gate on forgetting asks: unlike F_4 it does not count that B was better before it was learned."""
    assert continual.fall_terms(ORACLE, TRAINED) == {0: 14, 1: 6, 2: 0}
    assert continual.fall(ORACLE, TRAINED) == pytest.approx(20 / 3)


def test_fall_looks_from_the_last_training_on_and_at_every_stage():
    matrix, trained = [[10, 10], [80, 10], [50, 90], [85, 60], [70, 55]], [0, 1, 0, 1]
    assert continual.fall_terms(matrix, trained) == {0: 85 - 70}
    holes = [[10, 10, 10], [80, 10, 10], [None, 90, 10], [70, 85, 90]]
    assert continual.fall_terms(holes, [0, 1, 2]) == {0: None, 1: 5} and continual.fall(holes, [0, 1, 2]) is None
    assert continual.fall([[40], [70]], [0]) is None and continual.fall([[40]], []) is None


def test_oracle_prior_change():
    assert continual.prior_change(PRIOR) == pytest.approx(-6.5)
    assert continual.prior_change([[row[0]] for row in PRIOR]) == -8
    assert continual.prior_change([[row[1]] for row in PRIOR]) == -5


def test_oracle_normalisation():
    base, last, best = ORACLE[0], ORACLE[-1], [75, 81, 64, 84]
    scaled = [continual.normalised(x, b, top) for x, b, top in zip(last, base, best, strict=True)]
    assert scaled == pytest.approx([4 / 7, -14 / 13, 1, 25 / 27])
    assert continual.normalised(54, 68, 81, standard_error=6.4) is not None
    assert continual.normalised(54, 68, 81, standard_error=6.6) is None
    assert continual.normalised(54, 68, 68) is None
    assert continual.normalised(54, 68, 60) is None


def test_summary_holds_every_metric_by_the_same_functions():
    found = continual.summary(ORACLE, TRAINED, PRIOR)
    assert tuple(found) == continual.METRICS
    assert found["backward_transfer"] == continual.backward_transfer(ORACLE, TRAINED)


def test_one_task_has_no_transfer_and_no_forgetting():
    found = continual.summary([[40], [70]], [0])
    assert found["average_accuracy"] == found["learning_accuracy"] == 70
    for name in ("backward_transfer", "forward_transfer", "forgetting", "prior_change"):
        assert found[name] is None


def test_the_base_alone_has_no_metrics():
    assert set(continual.summary([[40, 50]], [], [[90]]).values()) == {None}


def test_missing_cells_are_none_and_not_zero():
    lower = [[None, None], [70, None], [60, 54]]
    assert continual.forward_transfer(lower, [0, 1]) is None
    assert continual.backward_transfer(lower, [0, 1]) == -10
    assert continual.average_accuracy([[1, 1], [1, 1], [1, None]], [0, 1]) is None
    assert continual.prior_change([[90, 60], [80, None]]) is None


def test_a_task_trained_twice_is_referred_to_its_last_training():
    matrix, trained = [[10, 10], [80, 10], [50, 90], [85, 60], [70, 55]], [0, 1, 0, 1]
    assert continual.backward_terms(matrix, trained, 3) == {1: -30}
    assert continual.backward_terms(matrix, trained) == {0: 70 - 85}
    assert continual.average_accuracy(matrix, trained) == 62.5
    assert continual.forward_terms(matrix, trained) == {1: 0}
    assert continual.forgetting_terms(matrix, trained) == {0: 15}


@pytest.mark.parametrize("seed", range(20))
def test_accuracy_minus_learning_accuracy_is_backward_transfer(seed):
    rng = np.random.default_rng(seed)
    tasks = int(rng.integers(2, 7))
    trained = [*rng.permutation(tasks).tolist(), *rng.integers(0, tasks, size=seed % 4).tolist()]
    matrix = rng.random((len(trained) + 1, tasks)).tolist()
    gap = continual.average_accuracy(matrix, trained) - continual.learning_accuracy(matrix, trained)
    assert gap == pytest.approx((tasks - 1) / tasks * continual.backward_transfer(matrix, trained))
    assert continual.forgetting(matrix, trained) >= -continual.backward_transfer(matrix, trained) - 1e-12
    assert continual.fall(matrix, trained) >= max(0.0, -continual.backward_transfer(matrix, trained)) - 1e-12


# --- intervals -------------------------------------------------------------------------------------------------


def test_wilson():
    assert continual.wilson(7, 20) == pytest.approx((0.181192, 0.567146), abs=1e-6)
    for correct, n in ((0, 10), (10, 10), (3, 11)):
        theirs = stats.binomtest(correct, n).proportion_ci(method="wilson")
        assert continual.wilson(correct, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert continual.wilson(0, 0) == (0.0, 1.0)


def test_stratified_is_wilson_for_one_part_and_narrows_with_more():
    assert continual.stratified([(7, 20)]) == pytest.approx(continual.wilson(7, 20))
    low, high = continual.stratified([(7, 20)] * 4)
    assert low < 0.35 < high and high - low == pytest.approx((0.567146 - 0.181192) / 2, abs=1e-5)
    assert continual.stratified([(20, 20), (20, 20)])[0] < 0.95  # not a point where everything is right
    assert continual.stratified([]) == (0.0, 1.0)


def items(rates, n, seed=0):
    """Item scores by stage; one number an item decides all stages, so stages correlate as real ones do."""
    luck = np.random.default_rng(seed).random(n)
    return np.array([luck < rate for rate in rates], dtype=float)


def test_bootstrap_is_seeded_and_centred_on_the_metrics():
    tables = [items([0.1, 0.9, 0.7], 300, 1), items([0.2, 0.2, 0.9], 200, 2)]
    parts = [items([0.9, 0.8, 0.8], 50, 3), items([0.8, 0.8, 0.5], 400, 4)]
    draws = continual.bootstrap(tables, [0, 1], parts)
    again = continual.bootstrap(tables, [0, 1], parts)
    exact = continual.summary(
        np.stack([t.mean(axis=1) for t in tables], 1).tolist(), [0, 1], np.stack([p.mean(1) for p in parts], 1).tolist()
    )
    for name, values in draws.items():
        assert np.array_equal(values, again[name]), name
        assert values.mean() == pytest.approx(exact[name], abs=0.01), name
        low, high = continual.interval(values, exact[name])
        assert low <= exact[name] <= high, name
    assert not np.array_equal(
        continual.bootstrap(tables, [0, 1], parts, seed=1)["backward_transfer"], draws["backward_transfer"]
    )


def test_bootstrap_fall_resamples_the_items_that_bootstrap_does():
    tables = [items([0.1, 0.9, 0.7], 300, 1), items([0.2, 0.2, 0.9], 200, 2)]
    falls, terms = continual.bootstrap_fall(tables, [0, 1]), continual.bootstrap(tables, [0, 1])["backward_transfer"]
    assert np.allclose(falls, np.maximum(-terms, 0))  # one earlier task, two stages: best or last


def test_bootstrap_pairs_items_over_stages():
    """With the same items right at both stages nothing changed, however few there are."""
    same = items([0.5, 0.5, 0.5], 40)
    draws = continual.bootstrap([same, same], [0, 1])
    assert np.ptp(draws["backward_transfer"]) == 0.0
    low, high = continual.interval(draws["average_accuracy"], 0.5)
    assert high - low > 0.1


def test_no_interval_is_narrower_than_the_rule_of_three():
    """All right at every stage: the draws know no doubt, the interval does."""
    draws = continual.bootstrap([np.ones((3, 40))] * 2, [0, 1], [np.ones((3, 30))] * 9)
    least = continual.least_widths([0, 1], [40, 40], [30] * 9)
    assert continual.interval(draws["backward_transfer"], 0.0, least["backward_transfer"]) == (-3 / 40, 3 / 40)
    low, high = continual.interval(draws["average_accuracy"], 1.0, least["average_accuracy"], 0.0)
    assert (low, high) == (pytest.approx(1 - 3 / 40 / math.sqrt(2)), 1.0)
    assert least["prior_change"] == pytest.approx(0.1 / 3) and least["forward_transfer"] == 3 / 40
    assert continual.least_widths([0], [40]) == pytest.approx(
        dict(zip(continual.METRICS, (3 / 40, 3 / 40, 0, 0, 0, 0), strict=True))
    )


def test_bootstrap_agrees_with_the_paired_standard_error():
    before, after = items([0.8], 400, 5)[0], items([0.6], 400, 6)[0]
    table = np.stack([np.zeros(400), before, after])
    draws = continual.bootstrap([table, np.stack([before] * 3)], [0, 1], draws=4000)["backward_transfer"]
    assert draws.std() == pytest.approx((after - before).std(ddof=1) / math.sqrt(400), rel=0.08)


def test_suite_parts_weigh_the_same_whatever_their_size():
    parts = [np.array([[1.0] * 4, [0.0] * 4]), np.ones((2, 4000))]
    assert continual.bootstrap([items([0.1, 0.9], 20)], [0], parts)["prior_change"] == pytest.approx(-0.5)


def test_bootstrap_of_unevaluated_rows_is_none():
    table = items([0.1, 0.9, 0.9], 30)
    table[2] = np.nan
    draws = continual.bootstrap([table, items([0.1, 0.1, 0.9], 30)], [0, 1])
    assert draws["average_accuracy"] is None and draws["learning_accuracy"] is not None
    assert continual.interval(None, None) is None


def test_two_runs_on_the_same_items_get_the_same_draws():
    a, b = items([0.1, 0.9], 60, 1), items([0.1, 0.9], 60, 1)
    b[1, :6] = 1 - b[1, :6]
    x, y = (continual.bootstrap([table], [0])["average_accuracy"] for table in (a, b))
    assert (x - y).std() < 0.85 * math.hypot(x.std(), y.std())  # independent draws would give 1.0


def test_overlap():
    assert continual.overlap((0.1, 0.3), (0.3, 0.5))
    assert not continual.overlap((0.1, 0.3), (0.31, 0.5))


# --- tests -------------------------------------------------------------------------------------------------------


def test_three_seeds():
    found = continual.seed_test([4, 6, 5])
    assert found.t == pytest.approx(8.6603, abs=1e-4)
    assert found.t_p == pytest.approx(stats.ttest_1samp([4, 6, 5], 0).pvalue)
    assert found.flip_p == found.smallest_p == 0.25
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, loc=5, scale=1 / math.sqrt(3)))
    assert continual.seed_test([1, 2, 3, 4, 5, 6]).smallest_p == pytest.approx(0.031, abs=1e-3)


def test_sign_flip_matches_scipy_and_counts_ties():
    values = [0.3, -0.1, 0.25, 0.4, 0.05]
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert continual.sign_flip(values) == pytest.approx(theirs.pvalue)
    assert continual.sign_flip([0.1, 0.1, 0.1]) == 0.25
    assert continual.sign_flip([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="1 to 24"):
        continual.sign_flip([])


def test_one_seed_has_a_mean_and_nothing_else():
    assert continual.seed_mean([0.7]) == (0.7, None)
    found = continual.seed_test([0.7])
    assert (found.interval, found.t, found.t_p, found.flip_p, found.smallest_p) == (None, None, None, 1.0, 1.0)
    assert continual.seed_test([0.2, 0.2]).t is None


def test_student_matches_scipy():
    for df in (1, 2, 3, 4, 7, 30):
        for t in (-12.0, -1.3, 0.0, 0.4, 2.8):
            assert continual.student_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), abs=1e-12)
        assert continual.student_quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)
