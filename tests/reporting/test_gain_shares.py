"""Figure 3's shares of the best gain, against the oracle table."""

from __future__ import annotations

import pytest
from scipy import stats
from support.oracle import ORACLE, PRIOR, oracle_run

from sdft_cli.reporting.gain_shares import shares


def test_shares_are_of_the_best_run(tmp_path):
    """Another run reached 75, 81, 64 and 84: the oracle's last row is 4/7, -14/13, 1 and 25/27 of its gains."""
    run = oracle_run(tmp_path / "run")
    better = [ORACLE[0], [75, 68, 20, 30], [74, 81, 26, 30], [64, 50, 64, 42], [60, 54, 64, 84]]
    other = oracle_run(tmp_path / "other", matrix=better)
    mine, theirs = shares([run, other])
    assert mine[-1] == pytest.approx([4 / 7, -14 / 13, 1, 25 / 27])
    assert mine[0] == [0, 0, 0, 0] and theirs[1][0] == 1.0
    alone = shares([run])[0]
    assert [row[1] for row in alone] == [None] * 5  # B never rose above its base: no gain to take a share of


@pytest.mark.parametrize(("best", "significant"), [(43, False), (44, True)])
def test_a_gain_within_two_standard_errors_is_none(tmp_path, best, significant):
    """Of 100 paired items three more are right: 3.0 points with an error of 1.71; four: 4.0 with one of 1.97."""
    run = oracle_run(tmp_path / "run", ("a",), [[40], [best]], PRIOR[:2])
    error = stats.sem([1.0] * (best - 40) + [0.0] * (140 - best))
    assert bool(best - 40 >= 200 * error) is significant
    assert (shares([run])[0][1][0] is not None) is significant
