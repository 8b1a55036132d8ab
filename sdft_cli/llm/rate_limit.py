"""Rate limiter: requests per minute, tokens per minute, and how many requests may be open at once.

Limits per minute are kept by spacing, not by bursts: at R requests per minute, two start at least 60/R seconds apart.
How many are open at once adapts to the server: the number doubles every round trip until the first "too many requests",
then halves at each further one and grows by one per round trip (additive increase, multiplicative decrease). Nothing
starts before a pause that the server asked for is over. Tests replace the clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from sdft_cli.llm.types import TeacherOptions

INITIAL_CONCURRENCY = 8


class Clock(Protocol):
    """Seconds since some moment, and an asynchronous sleep."""

    def now(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class WallClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RateLimiter:
    """All limits of one endpoint. A request takes a `place` for as long as it is open, and waits for its `turn`."""

    def __init__(self, options: TeacherOptions, clock: Clock):
        self.concurrency = ConcurrencyLimit(options.concurrency, clock)
        self.requests, self.tokens = MinuteLimit(options.rpm, clock), MinuteLimit(options.tpm, clock)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Wait until one more request may be open; gives the moment of entry."""
        entered = await self.concurrency.enter()
        try:
            yield entered
        finally:
            await self.concurrency.leave()

    async def turn(self, tokens: int) -> None:
        """Wait until a request of at most ``tokens`` keeps the limits per minute."""
        await self.requests.take()
        await self.tokens.take(tokens)

    def succeeded(self, entered: float, unused_tokens: int) -> None:
        """A request that entered at that moment was answered, with fewer tokens than it had taken."""
        self.tokens.give_back(unused_tokens)
        self.concurrency.increase(entered)

    def overloaded(self, entered: float, pause: float) -> None:
        """The server has refused a request that entered at that moment, and wants a pause of ``pause`` seconds."""
        self.concurrency.decrease(entered, pause)


class MinuteLimit:
    """At most ``per_minute`` units per minute, evenly spaced; None for no limit."""

    def __init__(self, per_minute: float | None, clock: Clock):
        self.seconds_each = 60 / per_minute if per_minute else 0.0
        self.clock, self.free_at = clock, float("-inf")

    async def take(self, amount: float = 1.0) -> None:
        """Wait until ``amount`` units may be used; first come, first served."""
        if not self.seconds_each:
            return
        now = self.clock.now()
        turn = max(now, self.free_at)
        self.free_at = turn + amount * self.seconds_each
        if turn > now:
            await self.clock.sleep(turn - now)

    def give_back(self, amount: float) -> None:
        """``amount`` of the units taken were not used (or, if negative, more were)."""
        self.free_at -= amount * self.seconds_each


class ConcurrencyLimit:
    """How many requests may be open at once: from `INITIAL_CONCURRENCY` up to ``maximum``, as the server allows."""

    def __init__(self, maximum: int, clock: Clock):
        self.maximum, self.clock = maximum, clock
        self.size = float(min(maximum, INITIAL_CONCURRENCY))
        self.open = 0
        self.cut_at = self.paused_until = float("-inf")
        self.changed = asyncio.Condition()

    async def enter(self) -> float:
        """Wait for a free place and for the end of a pause; returns the moment of entry."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.open < int(self.size))
            self.open += 1
        try:
            while (left := self.paused_until - self.clock.now()) > 0:
                await self.clock.sleep(left)
        except BaseException:
            await self.leave()
            raise
        return self.clock.now()

    async def leave(self) -> None:
        async with self.changed:
            self.open -= 1
            self.changed.notify_all()

    def increase(self, entered: float) -> None:
        """A request that entered at that moment was answered: allow more, twice as many before the first decrease."""
        if entered >= self.cut_at:
            step = 1.0 if self.cut_at == float("-inf") else 1.0 / self.size
            self.size = min(float(self.maximum), self.size + step)

    def decrease(self, entered: float, pause: float) -> None:
        """The server is overloaded: allow half as many, and start none for ``pause`` seconds.

        A request that entered before the last decrease says nothing about the limit since, so it does not cut again.
        """
        now = self.clock.now()
        self.paused_until = max(self.paused_until, now + pause)
        if entered >= self.cut_at:
            self.size, self.cut_at = max(1.0, self.size / 2), now
