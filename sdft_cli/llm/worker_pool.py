"""Worker pool: many exchanges at once; a run that ends early first waits for the responses under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from sdft_cli.errors import SdftError
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.retries import PromptGivenUp, PromptPutOff
from sdft_cli.llm.types import RESUME_HINT, Callback, Exchange, PromptResult, Reply, Request, advance

Answer = Callable[[Request], Awaitable[list[Reply]]]


class PoolClosing(Exception):
    """The run is ending: nothing new is sent."""


class WorkerPool:
    """At most ``size`` exchanges at once, each taken to its end by one worker."""

    def __init__(self, size: int, progress: Progress):
        self.size, self.progress = size, progress
        self.in_flight: set[asyncio.Task[object] | None] = set()
        self.closing = False

    async def run(self, exchanges: Sequence[Exchange], answer: Answer, on_finished: Callback) -> list[PromptResult]:
        """The results in the order of ``exchanges``.

        Raises the first error of any worker, and `SdftError` if some prompts were given up. Before an error or an
        interrupt ends the run, replies under way are stored.
        """
        self.closing = False
        work = _Work(exchanges, answer, on_finished)
        workers = [asyncio.create_task(self._work(work)) for _ in range(min(self.size, len(exchanges)))]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            if work.put_off and all(worker.done() and not worker.exception() for worker in workers):
                workers.append(asyncio.create_task(self._work_off(work)))
                await asyncio.wait(workers)
        finally:
            await self._drain(workers)
        _raise_first(workers)
        if work.given_up:
            message = f"{len(work.given_up)} of {len(exchanges)} prompts got no reply; the last: {work.given_up[-1]}"
            raise SdftError(message, RESUME_HINT)
        return [result for result in work.results if result is not None]

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Put this around the sending of a request, so that `_drain` waits for it. May raise `PoolClosing`."""
        self.check_open()
        task = asyncio.current_task()
        self.in_flight.add(task)
        try:
            yield
        finally:
            self.in_flight.discard(task)

    def check_open(self) -> None:
        """Raise `PoolClosing` if the run is ending."""
        if self.closing:
            raise PoolClosing

    async def _work(self, work: _Work) -> None:
        """Take one exchange after another to its end."""
        for i, exchange in work.todo:
            await self._take(work, i, exchange, advance(exchange, None))

    async def _work_off(self, work: _Work) -> None:
        """Take the exchanges to their end that were put off, now that the others have ended."""
        while work.put_off:
            await self._take(work, *work.put_off.pop(0))

    async def _take(self, work: _Work, i: int, exchange: Exchange, state: Request | PromptResult) -> None:
        """Take one exchange to its end from ``state`` on, unless it gets no reply or is put off."""
        try:
            while isinstance(state, Request):
                state = advance(exchange, await work.answer(state))
        except PromptGivenUp as given_up:
            work.given_up.append(str(given_up))
        except PromptPutOff:
            assert isinstance(state, Request)
            work.put_off.append((i, exchange, state))
        except BaseException:
            self.closing = True  # now, before another worker has its turn
            raise
        else:
            work.results[i] = state
            work.on_finished(state)

    async def _drain(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """End the workers: idle ones at once, others when the response to their request is stored."""
        self.closing = True
        for worker in workers:
            if worker not in self.in_flight:
                worker.cancel()
        if self.in_flight:
            self.progress.note(f"waiting for {len(self.in_flight)} responses under way; {RESUME_HINT}")
        await asyncio.wait(workers)
        for worker in workers:
            if not worker.cancelled():
                worker.exception()  # retrieved, so that asyncio does not complain


class _Work:
    """The exchanges that are left, the results so far, and why prompts were given up."""

    def __init__(self, exchanges: Sequence[Exchange], answer: Answer, on_finished: Callback):
        self.todo = iter(enumerate(exchanges))
        self.answer, self.on_finished = answer, on_finished
        self.results: list[PromptResult | None] = [None] * len(exchanges)
        self.given_up: list[str] = []
        self.put_off: list[tuple[int, Exchange, Request]] = []


def _raise_first(workers: Sequence[asyncio.Task[None]]) -> None:
    """Raise the error that ended the run, if one did."""
    errors = [worker.exception() for worker in workers if not worker.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, PoolClosing):
            raise error
