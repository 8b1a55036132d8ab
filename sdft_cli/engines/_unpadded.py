"""Decoding without padding: rows of equal length go through the model's own forward pass together.

For models whose results padding changes: recurrent layers, convolutions, positions that a model counts for itself,
frequencies that depend on the longest row. Either with the cache that the model itself makes, or without any: the whole
row is then read again for every token, which is slow, and right wherever a plain forward pass is.
Shapes: B rows of a batch, R rows of a group, L tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sdft_cli.engines._decoding import Forward
from sdft_cli.models.policy import Policy

#: What models call the cache that they return, and take back.
CACHE_NAMES = ("past_key_values", "cache_params", "state")


class Reading(NamedTuple):
    """How rows are read: with a cache, or else whole for every token. ``drops``: rows are dropped from the cache.

    ``restart``: a row is read anew when it has more tokens than that, as keys of a shorter one have other frequencies.
    """

    cached: bool = True
    drops: bool = True
    restart: int | None = None


class UnpaddedDecoder:
    """Rows in groups of equal length; ``alone``: each row by itself."""

    def __init__(self, policy: Policy, reading: Reading, alone: bool = False):
        self.policy, self.reading, self.alone = policy, reading, alone
        self.groups: list[_Group] = []

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        together: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            together.setdefault(row if self.alone else len(prompt), []).append(row)
        forward, device = Forward(self.policy.core), self.policy.device
        self.groups = [
            _Group(forward, self.reading, torch.tensor(rows, device=device), [prompts[row] for row in rows])
            for rows in together.values()
        ]
        self._set_order()
        return torch.cat([group.read() for group in self.groups])[self.order_B]

    def step(self, next_B: Tensor) -> Tensor:
        return torch.cat([group.step(next_B[group.rows_R]) for group in self.groups])[self.order_B]

    def keep(self, rows_B: Tensor) -> None:
        for group in self.groups:
            group.keep(rows_B)
        self.groups = [group for group in self.groups if len(group.rows_R)]
        self._set_order()

    def _set_order(self) -> None:
        """Where each row of the batch stands in the groups laid end to end."""
        self.order_B = torch.cat([group.rows_R for group in self.groups]).argsort()


class _Cache(Protocol):
    def reorder_cache(self, rows_B: Tensor) -> None: ...


class _Group:
    """Rows of equal length: ``rows_R`` are their places in the batch.

    A cache that cannot drop rows is kept whole: ``places_R`` says which of its ``size`` rows are still wanted, and the
    others are fed on with a token whose logits nobody reads.
    """

    def __init__(self, forward: Forward, reading: Reading, rows_R: Tensor, prompts: list[list[int]]):
        self.forward, self.reading, self.rows_R = forward, reading, rows_R
        self.ids_RL = torch.tensor(prompts, device=rows_R.device)
        self.size, self.places_R = len(rows_R), torch.arange(len(rows_R), device=rows_R.device)
        self.caches: dict[str, _Cache] = {}

    def read(self) -> Tensor:
        """Logits [R, V] after the rows, which are read from their start."""
        self.caches = {}
        self._all_wanted()
        return self._run(self.ids_RL)

    def step(self, next_R: Tensor) -> Tensor:
        self.ids_RL = torch.cat((self.ids_RL, next_R[:, None]), 1)
        if not self.reading.cached or self.ids_RL.shape[1] - 1 == self.reading.restart:
            return self.read()
        fed_R1 = next_R.new_zeros(self.size, 1)
        fed_R1[self.places_R, 0] = next_R
        return self._run(fed_R1)[self.places_R]

    def keep(self, rows_B: Tensor) -> None:
        """Continue with those rows that are among ``rows_B``, the batch's rows in their new order."""
        same_RB = self.rows_R[:, None] == rows_B
        kept_R = same_RB.any(1).nonzero()[:, 0]
        left = len(self.rows_R) - len(kept_R)
        self.rows_R = same_RB[kept_R].long().argmax(1)
        self.ids_RL, self.places_R = self.ids_RL[kept_R], self.places_R[kept_R]
        if left and self.reading.drops and len(kept_R):
            for cache in self.caches.values():
                cache.reorder_cache(self.places_R)
            self._all_wanted()

    def _all_wanted(self) -> None:
        self.size = len(self.rows_R)
        self.places_R = torch.arange(self.size, device=self.rows_R.device)

    def _run(self, ids_RL: Tensor) -> Tensor:
        output = self.forward(input_ids=ids_RL, use_cache=self.reading.cached, **self.caches)
        if self.reading.cached:
            found = {name: getattr(output, name, None) for name in CACHE_NAMES}
            self.caches = {name: cache for name, cache in found.items() if cache is not None}
            if not self.caches:
                raise ValueError("the model returns no cache")
        return output.logits[:, -1].float()
