"""Shares of a divergence by position, against sums by hand. Divergences as such: tests/commands/test_probe.py."""

import pytest
import torch

from sdft_cli.evaluation.divergences import first_share


@pytest.mark.parametrize(("k", "want"), [(0, 0.0), (1, 4 / 10), (2, 6 / 10), (3, 7 / 10), (9, 1.0)])
def test_the_share_of_the_first_tokens_pools_all_rows(k: int, want: float) -> None:
    forward = [[1.0, 2.0, 1.0, 3.0], [3.0]]
    rows = [torch.tensor([row, [100.0] * len(row)]) for row in forward]  # the reverse KL has no say
    assert first_share(rows, k) == pytest.approx(want)


def test_without_any_divergence_no_share_lies_anywhere() -> None:
    assert first_share([torch.zeros(2, 5)], 3) == 0.0
    assert first_share([], 3) == 0.0
