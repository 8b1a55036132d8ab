"""Prefetched batches: a second thread samples the next ones while the present one trains (``engine.prefetch``).

They are sampled together in one call of the engine, as larger batches cost little more. A batch is then up to
``engine.prefetch`` batches older than the weights it trains; its sampled log-probs are those of the weights that
sampled it, and the method's importance weights correct for the difference. Nothing is sampled beyond a quiet step,
after which the run is evaluated or saved. So a regular checkpoint has no batch in flight (one that a stop saves may
have: `in_flight`), a resumed run samples what an uninterrupted one would have, and an engine never has two callers at
once. Without prefetching every batch is sampled when it is needed, by the weights of its step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from sdft_cli.models.engine import Engine
from sdft_cli.training import in_flight
from sdft_cli.training.batches import Batch, Batches


class Prefetcher:
    """The batches of a phase, in order. ``quiet(steps)`` tells whether the run pauses after that many steps."""

    def __init__(self, batches: Batches, engine: Engine, quiet: Callable[[int], bool]):
        self.batches, self.engine, self.quiet = batches, engine, quiet
        sampled = batches.recipe.sampler.source == "student"  # nothing else takes time
        self.depth, self.updates = batches.recipe.engine.prefetch if sampled else 0, batches.recipe.train.updates
        self.stale = False  # whether the engine lacks the newest weights
        self._since, self._numbers = 0, range(0)  # the batch at which sampling of these began
        self._sampled: Future[list[Batch]] | None = None
        # torch's number of threads is per thread: the second one gets as many as the trainer
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(1, "rollout", torch.set_num_threads, (threads,)) if self.depth else None

    def take(self, number: int) -> Batch:
        """Batch ``number``; if it is the last that was prefetched, sampling of the next ones begins."""
        if self._sampled and number in self._numbers:
            rows, facts = self._sampled.result()[self._numbers.index(number)]
        else:
            self._since = number
            self._sync()
            rows, facts = self.batches.batch(number)
        age = (number - self._since) * self.updates
        if self._pool and (self._sampled is None or number == self._numbers[-1]):
            self._begin(number)
        return Batch(rows, {**facts, "staleness": age} if self._pool else facts)

    def _begin(self, number: int) -> None:
        """Begin to sample the batches after ``number``, as many as may be."""
        self._sync()
        self._since, self._numbers = number, range(number + 1, self._end(number))
        wanted = self._pool if self._numbers else None
        self._sampled = wanted.submit(self.batches.several, self._numbers) if wanted else None

    def _end(self, number: int) -> int:
        """The first batch after ``number`` that may not be sampled yet."""
        last = min(number + self.depth, -(-self.batches.steps // self.updates) - 1)
        for each in range(number, last):
            done = range(each * self.updates + 1, (each + 1) * self.updates + 1)
            if any(self.quiet(step) for step in done):
                return each + 1
        return last + 1

    def moved(self) -> None:
        """The weights have moved; the engine is synced now, or else when it has finished what it is sampling."""
        self.stale = True
        if self._sampled is None:
            self._sync()

    def _sync(self) -> None:
        if self.stale:
            self.engine.sync()
            self.stale = False

    def state_dict(self) -> dict[str, Any]:
        """What is sampled and not taken yet, as plain data; empty if nothing is. Waits until it is sampled."""
        if not self._sampled:
            return {}
        numbers, batches = [self._numbers.start, self._numbers.stop], in_flight.stored(self._sampled.result())
        return {"ahead": {"since": self._since, "numbers": numbers, "batches": batches}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what `state_dict` gave; it was sampled by older weights than those the engine has now."""
        if ahead := state.get("ahead"):
            self._since, self._numbers = ahead["since"], range(*ahead["numbers"])
            self._sampled = Future()
            self._sampled.set_result(in_flight.loaded(ahead["batches"]))

    def settle(self) -> None:
        """Wait until nothing is being sampled."""
        if self._sampled:
            self._sampled.result()

    def close(self) -> None:
        """Wait for what is being sampled, and discard it."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._sampled = None
