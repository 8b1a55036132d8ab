"""Tests on the items of two checkpoints: against scipy, enumeration, closed forms, and nulls that are simulated."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sdft_cli.stats import paired


def test_mcnemar():
    assert paired.mcnemar(1, 7) == (Fraction(9, 128), Fraction(5, 128))
    assert paired.mcnemar(7, 1) == paired.mcnemar(1, 7)
    assert paired.mcnemar(0, 0) == (1.0, 1.0)
    assert paired.mcnemar(5, 5) == (1.0, 1.0)
    for gained, lost in ((0, 3), (12, 30), (400, 900), (3000, 2800)):
        assert paired.mcnemar(gained, lost).p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_changes_compare_only_items_scored_on_both_sides():
    before = {"a": 1.0, "b": 0.0, "c": None, "d": 1.0, "e": 0.5, "f": 0.0}
    after = {"a": 0.0, "b": 1.0, "c": 1.0, "d": None, "e": 0.75, "g": 1.0}
    assert paired.changes(before, after) == (["b", "e"], ["a"])


# --- sign flips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 7), (5, 5), (30, 12), (0, 40)])
def test_the_sign_flip_of_right_and_wrong_is_mcnemar(gained, lost):
    differences = [1.0] * gained + [-1.0] * lost + [0.0] * 5
    assert paired.sign_flip(differences) == (pytest.approx(paired.mcnemar(gained, lost).p), True)


def enumerated(differences) -> float:
    observed = abs(sum(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in _signs(len(differences))]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


def _signs(n):
    return itertools.product((-1, 1), repeat=n)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([-1, -0.75, -0.5, -1 / 3, 0.0, 0.2, 0.25, 1 / 3, 0.9, 1]), min_size=1, max_size=11))
def test_graded_scores_are_exact(differences):
    p, exact = paired.sign_flip(differences)
    assert exact and p == pytest.approx(enumerated(differences))


def test_irregular_scores_are_enumerated_and_beyond_that_drawn():
    rng = np.random.default_rng(1)
    few, many = rng.normal(0.1, 0.3, 10), rng.normal(0.05, 0.3, 60)
    p, exact = paired.sign_flip(few)
    theirs = stats.permutation_test((few,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert exact and p == pytest.approx(theirs.pvalue)
    p, exact = paired.sign_flip(many)
    assert not exact and p == paired.sign_flip(many)[0]  # seeded
    assert p == pytest.approx(2 * stats.norm.sf(abs(many.sum()) / math.sqrt((many**2).sum())), abs=0.02)


def test_thousands_of_graded_items_are_still_exact():
    rng = np.random.default_rng(2)
    differences = rng.integers(-4, 5, 3000) / 4
    p, exact = paired.sign_flip(differences)
    z = abs(differences.sum()) / math.sqrt((differences**2).sum())
    assert exact and p == pytest.approx(2 * stats.norm.sf(z), abs=0.01)


def test_p_value_names_its_test():
    assert paired.p_value(np.array([1.0, 0, -1, 1]))[1] == "exact McNemar"
    assert paired.p_value(np.array([0.5, 0, -1]))[1] == "exact sign-flip of items"
    assert paired.p_value(np.array([1.0, 0, -1, 1]), np.array([0, 0, 1, 1]))[1] == "exact sign-flip of documents"
    assert paired.p_value(np.random.default_rng(0).normal(size=40))[1] == "sign-flip of items, 99,999 draws"


# --- clustered standard errors -------------------------------------------------------------------------------------


def test_without_shared_documents_the_error_is_the_usual_paired_one():
    d = np.random.default_rng(3).integers(-1, 2, 50).astype(float)
    assert paired.clustered_error(d, range(50)) == pytest.approx(stats.sem(d))


def test_the_clustered_error_is_the_sum_over_pairs_within_documents():
    """Miller's formula, pair by pair, times C / (C - 1)."""
    rng = np.random.default_rng(4)
    d, groups = rng.integers(-1, 2, 30).astype(float), rng.integers(0, 7, 30)
    e, n, c = d - d.mean(), 30, len(set(groups))
    total = sum(e[i] * e[j] for i in range(n) for j in range(n) if groups[i] == groups[j])
    numbers = np.unique(groups, return_inverse=True)[1]
    assert paired.clustered_error(d, numbers) == pytest.approx(math.sqrt(c / (c - 1) * total) / n)
    assert paired.clustered_error(d, [0] * 30) is None


def pairs(differences, documents=None):
    ids = [f"i{k}" for k in range(len(differences))]
    before = dict.fromkeys(ids, 0.0)
    named = dict(zip(ids, documents or [None] * len(ids), strict=True))
    return before, dict(zip(ids, differences, strict=True)), named


def test_a_change_reports_everything():
    change = paired.change(*pairs([1.0, 1.0, 0.0, -1.0, 1.0]))
    assert (change.n, change.clusters, change.difference) == (5, 5, pytest.approx(0.4))
    assert change.gained == ["i0", "i1", "i4"] and change.lost == ["i3"]
    assert change.p == paired.mcnemar(3, 1).p and change.test == "exact McNemar"
    assert change.standard_error == pytest.approx(stats.sem([1, 1, 0, -1, 1]))
    assert paired.change({"a": None}, {"a": 1.0}, {}) is None


def test_the_interval_is_students_t_within_bounds_and_not_below_the_rule_of_three():
    d = [1.0, -1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0] * 10
    change = paired.change(*pairs(d))
    half = stats.t.ppf(0.975, 79) * stats.sem(d)
    assert change.interval == pytest.approx((change.difference - half, change.difference + half))
    still = paired.change(*pairs([0.0] * 30))
    assert still.interval == (-0.1, 0.1) and still.p == 1.0
    assert paired.change(*pairs([1.0, 1.0])).interval[1] == 1.0


def test_items_that_share_a_document_count_as_one():
    """Twenty questions on two articles: all moved together, so there are two observations and not twenty."""
    d = [1.0] * 10 + [1.0] * 10
    alone = paired.change(*pairs(d))
    shared = paired.change(*pairs(d, ["a"] * 10 + ["b"] * 10))
    assert alone.p < 1e-5 and shared.p == 0.5 and shared.clusters == 2
    one = paired.change(*pairs(d, ["a"] * 20))
    assert one.interval is None and one.standard_error is None and one.p == 1.0


def test_a_document_with_the_name_of_an_item_is_not_that_item():
    assert paired.change(*pairs([1.0, -1.0], ["i1", None])).clusters == 2


def test_a_suite_is_the_plain_mean_over_its_parts():
    big, small = pairs([0.0] * 90 + [1.0] * 10), pairs([-1.0] * 5 + [0.0] * 5)
    change = paired.change_of_parts([big, small])
    assert change.difference == pytest.approx((0.1 - 0.5) / 2)
    errors = [stats.sem(list(side[1].values())) for side in (big, small)]
    assert change.standard_error == pytest.approx(math.hypot(*errors) / 2)
    assert change.p == paired.mcnemar(10, 5).p and change.n == 110
    assert paired.change_of_parts([big, ({}, {}, {})]) is None and paired.change_of_parts([]) is None


def test_equal_ids_in_two_parts_are_two_items():
    change = paired.change_of_parts([pairs([1.0, 0.0], ["d", "d"]), pairs([0.0, -1.0], ["d", "d"])])
    assert change.clusters == 2


@pytest.mark.parametrize(("share", "limits"), [(0.0, (0.02, 0.07)), (0.9, (0.0, 0.07))])
def test_under_the_null_one_in_twenty_is_below_five_percent(share, limits):
    """Nothing changed, and the items of a document move together with chance ``share``: clustering holds its level."""
    rng, rejected, naive = np.random.default_rng(5), 0, 0
    documents, each, repeats = 20, 5, 300
    groups = np.repeat(np.arange(documents), each)
    for _ in range(repeats):
        own = rng.choice((-1.0, 0.0, 1.0), documents * each, p=(0.2, 0.6, 0.2))
        common = np.repeat(rng.choice((-1.0, 0.0, 1.0), documents, p=(0.2, 0.6, 0.2)), each)
        d = np.where(rng.random(documents * each) < share, common, own)
        rejected += paired.p_value(d, groups)[0] < 0.05
        naive += paired.p_value(d)[0] < 0.05
    assert limits[0] <= rejected / repeats <= limits[1]
    if share:
        assert naive / repeats > 0.2  # what pretending that items are independent would do
