"""The item bootstrap: seeded, paired over stages and runs, and its intervals never too narrow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdft_cli.stats import bootstrap, continual


def items(rates, n, seed=0):
    """Item scores by stage; one number an item decides all stages, so stages correlate as real ones do."""
    luck = np.random.default_rng(seed).random(n)
    return np.array([luck < rate for rate in rates], dtype=float)


def test_bootstrap_is_seeded_and_centred_on_the_metrics():
    tables = [items([0.1, 0.9, 0.7], 300, 1), items([0.2, 0.2, 0.9], 200, 2)]
    parts = [items([0.9, 0.8, 0.8], 50, 3), items([0.8, 0.8, 0.5], 400, 4)]
    draws = bootstrap.metrics(tables, [0, 1], parts)
    again = bootstrap.metrics(tables, [0, 1], parts)
    exact = continual.summary(
        np.stack([t.mean(axis=1) for t in tables], 1).tolist(), [0, 1], np.stack([p.mean(1) for p in parts], 1).tolist()
    )
    for name, values in draws.items():
        assert np.array_equal(values, again[name]), name
        assert values.mean() == pytest.approx(exact[name], abs=0.01), name
        low, high = bootstrap.interval(values, exact[name])
        assert low <= exact[name] <= high, name
    assert not np.array_equal(
        bootstrap.metrics(tables, [0, 1], parts, seed=1)["backward_transfer"], draws["backward_transfer"]
    )


def test_bootstrap_fall_resamples_the_items_that_bootstrap_does():
    tables = [items([0.1, 0.9, 0.7], 300, 1), items([0.2, 0.2, 0.9], 200, 2)]
    falls, terms = bootstrap.fall(tables, [0, 1]), bootstrap.metrics(tables, [0, 1])["backward_transfer"]
    assert np.allclose(falls, np.maximum(-terms, 0))  # one earlier task, two stages: best or last


def test_bootstrap_pairs_items_over_stages():
    """With the same items right at both stages nothing changed, however few there are."""
    same = items([0.5, 0.5, 0.5], 40)
    draws = bootstrap.metrics([same, same], [0, 1])
    assert np.ptp(draws["backward_transfer"]) == 0.0
    low, high = bootstrap.interval(draws["average_accuracy"], 0.5)
    assert high - low > 0.1


def test_no_interval_is_narrower_than_the_rule_of_three():
    """All right at every stage: the draws know no doubt, the interval does."""
    draws = bootstrap.metrics([np.ones((3, 40))] * 2, [0, 1], [np.ones((3, 30))] * 9)
    least = bootstrap.least_widths([0, 1], [40, 40], [30] * 9)
    assert bootstrap.interval(draws["backward_transfer"], 0.0, least["backward_transfer"]) == (-3 / 40, 3 / 40)
    low, high = bootstrap.interval(draws["average_accuracy"], 1.0, least["average_accuracy"], 0.0)
    assert (low, high) == (pytest.approx(1 - 3 / 40 / math.sqrt(2)), 1.0)
    assert least["prior_change"] == pytest.approx(0.1 / 3) and least["forward_transfer"] == 3 / 40
    assert bootstrap.least_widths([0], [40]) == pytest.approx(
        dict(zip(continual.METRICS, (3 / 40, 3 / 40, 0, 0, 0, 0), strict=True))
    )


def test_bootstrap_agrees_with_the_paired_standard_error():
    before, after = items([0.8], 400, 5)[0], items([0.6], 400, 6)[0]
    table = np.stack([np.zeros(400), before, after])
    draws = bootstrap.metrics([table, np.stack([before] * 3)], [0, 1], draws=4000)["backward_transfer"]
    assert draws.std() == pytest.approx((after - before).std(ddof=1) / math.sqrt(400), rel=0.08)


def test_suite_parts_weigh_the_same_whatever_their_size():
    parts = [np.array([[1.0] * 4, [0.0] * 4]), np.ones((2, 4000))]
    assert bootstrap.metrics([items([0.1, 0.9], 20)], [0], parts)["prior_change"] == pytest.approx(-0.5)


def test_bootstrap_of_unevaluated_rows_is_none():
    table = items([0.1, 0.9, 0.9], 30)
    table[2] = np.nan
    draws = bootstrap.metrics([table, items([0.1, 0.1, 0.9], 30)], [0, 1])
    assert draws["average_accuracy"] is None and draws["learning_accuracy"] is not None
    assert bootstrap.interval(None, None) is None


def test_two_runs_on_the_same_items_get_the_same_draws():
    a, b = items([0.1, 0.9], 60, 1), items([0.1, 0.9], 60, 1)
    b[1, :6] = 1 - b[1, :6]
    x, y = (bootstrap.metrics([table], [0])["average_accuracy"] for table in (a, b))
    assert (x - y).std() < 0.85 * math.hypot(x.std(), y.std())  # independent draws would give 1.0
