"""Items that moved between two stages."""

from __future__ import annotations

import numpy as np

from sdft_cli.reporting import comparisons
from sdft_cli.runs.matrix_columns import Column
from sdft_cli.stats.across_seeds import sign_flip


def test_graded_changes_take_the_sign_flip():
    before, after = np.zeros(6), np.array([0.5, 0.5, 0.25, 0.0, -0.0, 0.25])
    column = Column([0.0, 0.25], [6, 6], [None, None], [0, 1.5], np.stack([before, after]), tuple("abcdef"))
    moved = comparisons._moved([column], 0, 1)
    assert moved == {"gained": 4, "lost": 0, "p": 2 / 2**4}
    assert sign_flip([0.5, 0.5, 0.25, 0.25]) == moved["p"]
