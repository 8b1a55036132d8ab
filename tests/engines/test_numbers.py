"""The uniform numbers of sampling, against Philox written out and against what their use needs."""

import numpy as np
import pytest
import torch
from scipy import stats

from sdft_cli.engines._numbers import BLOCK, RowNumbers, uniform_numbers

WORD = 2**64


def philox(key: tuple[int, int], count: int) -> list[float]:
    """Philox 4x64-10 as Salmon et al. state it (constants from their Random123), by integers of Python."""
    numbers: list[float] = []
    for counter in range(1, -(-count // 4) + 1):  # numpy counts up before it draws
        x, (k0, k1) = [counter, 0, 0, 0], key
        for _ in range(10):
            first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
            x = [second // WORD ^ x[1] ^ k0, second % WORD, first // WORD ^ x[3] ^ k1, first % WORD]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
        numbers += [(word >> 11) / 2**53 for word in x]
    return numbers[:count]


@pytest.mark.parametrize("seed", [0, 5, 2**53 + 1, 2**63 + 3, WORD - 1])
def test_numbers_are_philoxs(seed: int) -> None:
    rows = [0, 1, 7, 2**53 + 1, 2**63 - 1]
    assert uniform_numbers(seed, rows, range(10)).tolist() == [philox((seed, row), 10) for row in rows]
    assert uniform_numbers(seed - WORD, rows, range(10)).tolist() == uniform_numbers(seed, rows, range(10)).tolist()


def test_they_are_the_same_however_rows_and_positions_are_cut() -> None:
    whole = uniform_numbers(3, range(12), range(1000))
    for rows in (range(5), range(5, 12), [11, 2, 7]):
        for positions in (range(1000), range(8), range(256, 512), range(996, 1000)):
            part = uniform_numbers(3, rows, positions)
            assert np.array_equal(part, whole[np.ix_(rows, positions)])
    assert uniform_numbers(3, [], range(8)).shape == (0, 8)


@pytest.mark.parametrize("limit", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 2])
def test_a_batch_gets_them_by_row_and_position(limit: int) -> None:
    rows, cpu = [4, 9, 0, 5], torch.device("cpu")
    whole_RT, numbers = torch.from_numpy(uniform_numbers(1, rows, range(limit))), RowNumbers(1, rows, limit, cpu)
    alive_B = torch.arange(4)
    for position in range(limit):
        for at, rows in ((limit // 4, [0, 1, 3]), (limit // 2, [1, 2])):
            if position == at:  # the others have finished
                alive_B = alive_B[rows]
                numbers.keep(torch.tensor(rows))
        drawn_B = numbers.at(position)
        assert drawn_B.dtype == torch.float64 and torch.equal(drawn_B, whole_RT[alive_B, position])


def test_threads_do_not_matter() -> None:
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            numbers = RowNumbers(8, range(64), BLOCK, torch.device("cpu"))
            drawn.append(numbers.at(0))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_rows_seeds_and_positions_are_independent() -> None:
    """Neighbouring keys and counters: each number is uniform, and so is each pair of neighbours on the unit square."""
    numbers = np.stack([uniform_numbers(seed, range(64), range(64)) for seed in range(16)])
    assert len(np.unique(numbers)) == numbers.size
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    for axis in range(3):
        one, two = (np.take(numbers, range(first, numbers.shape[axis], 2), axis).ravel() for first in (0, 1))
        cells = np.histogram2d(one, two, bins=8, range=((0, 1), (0, 1)))[0]
        assert stats.chisquare(cells.ravel()).pvalue > 1e-4
