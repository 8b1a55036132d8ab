"""Batches written ahead: the next ones are sampled by a second thread while this one trains (``engine.prefetch``).

They are written together, in one call of the engine: a step of a larger batch costs little more. A batch is then a few
optimizer steps older than the weights it trains, at most ``engine.prefetch`` of them; its sampled log-probs are of the
weights that wrote it, and the method's importance weights correct for the difference. Nothing is written beyond a
quiet step, after which the run is measured or saved: a checkpoint has no batch in flight, so a resumed run writes what
an uninterrupted one wrote, and an engine never answers two callers. Without ``ahead`` every batch is written when it is
needed, by the weights of its step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from sdft_cli.models.engine import Engine
from sdft_cli.training.batches import Batch, Batches


class Prefetcher:
    """The batches of a phase in their order. ``quiet(steps)`` says whether the run pauses after so many of them."""

    def __init__(self, batches: Batches, engine: Engine, quiet: Callable[[int], bool]):
        self.batches, self.engine, self.quiet = batches, engine, quiet
        sampled = batches.recipe.sampler.source == "student"  # nothing else takes time to write
        self.depth, self.updates = batches.recipe.engine.prefetch if sampled else 0, batches.recipe.train.updates
        self.behind = False  # whether the engine lacks the newest weights
        self._since, self._numbers = 0, range(0)  # the batch at which these were begun
        self._written: Future[list[Batch]] | None = None
        # torch counts threads for each thread of its own: the writer has as many as the trainer
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(1, "rollout", torch.set_num_threads, (threads,)) if self.depth else None

    def take(self, number: int) -> Batch:
        """Batch ``number``; if it was the last that lay ready, the next ones begin to be written."""
        if self._written and number in self._numbers:
            rows, facts = self._written.result()[self._numbers.index(number)]
        else:
            self._since = number
            self._sync()
            rows, facts = self.batches.batch(number)
        age = (number - self._since) * self.updates
        if self._pool and (self._written is None or number == self._numbers[-1]):
            self._begin(number)
        return Batch(rows, {**facts, "staleness": age} if self._pool else facts)

    def _begin(self, number: int) -> None:
        """Have the batches after ``number`` written, as many as may be."""
        self._sync()
        self._since, self._numbers = number, range(number + 1, self._end(number))
        found = self._pool.submit(self.batches.several, self._numbers) if self._pool and self._numbers else None
        self._written = found

    def _end(self, number: int) -> int:
        """The first batch after ``number`` that may not be written now."""
        last = min(number + self.depth, -(-self.batches.steps // self.updates) - 1)
        for each in range(number, last):
            done = range(each * self.updates + 1, (each + 1) * self.updates + 1)
            if any(self.quiet(step) for step in done):
                return each + 1
        return last + 1

    def moved(self) -> None:
        """The weights have moved; the engine hears of it now, or once it has written what it is at."""
        self.behind = True
        if self._written is None:
            self._sync()

    def _sync(self) -> None:
        if self.behind:
            self.engine.sync()
            self.behind = False

    def settle(self) -> None:
        """Wait until what is being written is."""
        if self._written:
            self._written.result()

    def close(self) -> None:
        """Wait for what is being written, and drop it."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._written = None
