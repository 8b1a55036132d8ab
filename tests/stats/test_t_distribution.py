"""Student's t against scipy."""

from __future__ import annotations

import pytest
from scipy import stats

from sdft_cli.stats import t_distribution


def test_student_matches_scipy():
    for df in (1, 2, 3, 4, 7, 30):
        for t in (-12.0, -1.3, 0.0, 0.4, 2.8):
            assert t_distribution.cdf(t, df) == pytest.approx(stats.t.cdf(t, df), abs=1e-12)
        assert t_distribution.quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)
