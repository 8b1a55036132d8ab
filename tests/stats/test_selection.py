"""When the best of several checkpoints is best by chance."""

import math

import pytest

from sdft_cli.stats.selection import by_chance


@pytest.mark.parametrize(
    ("higher", "lower", "n", "expected"),
    [
        (7 / 11, 6 / 11, 11, True),  # one row
        (1.0, 10 / 11, 11, True),  # the binomial error of a perfect score is 0, and yet it is one row
        (1.0, 9 / 11, 11, False),
        (0.64, 0.55, 400, False),
        (0.5, 0.5, 64, True),
        (32 / 64, 28 / 64, 64, True),  # four rows, the error of a half: sqrt(0.25 / 64) * 64 = 4
        (32 / 64, 27 / 64, 64, False),
    ],
)
def test_within_one_standard_error_or_one_row(higher: float, lower: float, n: int, expected: bool) -> None:
    assert by_chance(higher, lower, n) is expected
    error = math.sqrt(higher * (1 - higher) / n)
    assert expected == (round((higher - lower) * n, 9) <= round(max(1.0, error * n), 9))
