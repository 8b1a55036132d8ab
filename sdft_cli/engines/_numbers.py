"""Uniform random numbers for sampling, each a function of (seed, row, position) and of nothing else.

They come from numpy's Philox, a counter-based generator: the key is the seed and the row's number in the whole draw,
the counter is the position. So a row gets the same numbers whichever rows are sampled beside it, on every device and
with any number of threads, and nothing has to be remembered to draw them again. Source: Salmon et al., Parallel random
numbers: as easy as 1, 2, 3 (SC 2011).
Shapes: R rows, B rows of a batch that are still being decoded, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

#: Positions drawn at once, as few completions come near the limit. A multiple of four, the numbers of one counter.
BLOCK = 256


def uniform_numbers(seed: int, rows: Sequence[int], positions: range) -> np.ndarray:
    """Numbers in [0, 1), [R, T] fp64, with 53 random bits each.

    ``rows`` are from 0 to 2^64 - 1, and seeds count modulo 2^64. ``positions`` begin at a multiple of four.
    """
    numbers_RT = np.empty((len(rows), len(positions)))
    for row, numbers_T in zip(rows, numbers_RT, strict=True):
        # an array, since a list of large integers passes through floating point
        key = np.array((seed % 2**64, row), dtype=np.uint64)
        np.random.Generator(np.random.Philox(key=key, counter=positions.start // 4)).random(out=numbers_T)
    return numbers_RT


class RowNumbers:
    """The numbers of a batch of at most ``limit`` positions, made on the CPU and moved to ``device`` block by block."""

    def __init__(self, seed: int, rows: Sequence[int], limit: int, device: torch.device):
        self.seed, self.rows, self.limit, self.device = seed, rows, limit, device
        self.positions, self.numbers_TB = range(0), torch.empty(0, len(rows), dtype=torch.float64, device=device)

    def at(self, position: int) -> Tensor:
        """The numbers [B] at a position."""
        if position not in self.positions:
            first = position - position % BLOCK
            self.positions = range(first, min(first + BLOCK, self.limit))
            numbers_BT = uniform_numbers(self.seed, self.rows, self.positions)
            self.numbers_TB = torch.from_numpy(numbers_BT.T.copy()).to(self.device)
        return self.numbers_TB[position - self.positions.start]

    def keep(self, rows_B: Tensor) -> None:
        """Continue with these rows of the batch alone."""
        self.rows = [self.rows[i] for i in rows_B.tolist()]
        self.numbers_TB = self.numbers_TB[:, rows_B]
