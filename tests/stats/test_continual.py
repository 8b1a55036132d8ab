"""The metrics against a table worked out by hand, and properties."""

from __future__ import annotations

import numpy as np
import pytest
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
    """What a gate on forgetting checks: unlike F_4 it does not count that B was better before it was learned."""
    assert continual.fall_terms(ORACLE, TRAINED) == {0: 14, 1: 6, 2: 0}
    assert continual.fall(ORACLE, TRAINED) == pytest.approx(20 / 3)


def test_fall_counts_every_stage_since_the_last_training():
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
    metrics = continual.summary(ORACLE, TRAINED, PRIOR)
    assert tuple(metrics) == continual.METRICS
    assert metrics["backward_transfer"] == continual.backward_transfer(ORACLE, TRAINED)


def test_one_task_has_no_transfer_and_no_forgetting():
    metrics = continual.summary([[40], [70]], [0])
    assert metrics["average_accuracy"] == metrics["learning_accuracy"] == 70
    for name in ("backward_transfer", "forward_transfer", "forgetting", "prior_change"):
        assert metrics[name] is None


def test_the_base_alone_has_no_metrics():
    assert set(continual.summary([[40, 50]], [], [[90]]).values()) == {None}


def test_missing_cells_are_none_and_not_zero():
    lower = [[None, None], [70, None], [60, 54]]
    assert continual.forward_transfer(lower, [0, 1]) is None
    assert continual.backward_transfer(lower, [0, 1]) == -10
    assert continual.average_accuracy([[1, 1], [1, 1], [1, None]], [0, 1]) is None
    assert continual.prior_change([[90, 60], [80, None]]) is None


def test_a_task_trained_twice_is_compared_with_its_last_training():
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
