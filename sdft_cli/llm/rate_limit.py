"""How fast a server may be asked: requests and tokens a minute, how many at once, and how long to wait after a fault.

Pure but for the clock, which tests replace. Limits a minute are kept by spacing, not by bursts: at R requests a minute
two begin at least 60/R seconds apart. How many are open at once follows the server: it doubles a round trip until the
first "too many requests", then halves at each and grows by one a round trip (additive increase, multiplicative
decrease); nothing begins before the time that the server asked for has passed.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0
FIRST_WINDOW = 8


class Clock(Protocol):
    """Seconds since some moment, and a sleep that other work goes on beside."""

    def now(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class WallClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Pace:
    """At most ``per_minute`` units a minute, evenly spaced; no limit for None."""

    def __init__(self, per_minute: float | None, clock: Clock):
        self.seconds_each = 60 / per_minute if per_minute else 0.0
        self.clock, self.free_at = clock, float("-inf")

    async def take(self, amount: float = 1.0) -> None:
        """Wait for one's turn and use ``amount`` units; who comes first goes first."""
        if not self.seconds_each:
            return
        now = self.clock.now()
        turn = max(now, self.free_at)
        self.free_at = turn + amount * self.seconds_each
        if turn > now:
            await self.clock.sleep(turn - now)

    def give_back(self, amount: float) -> None:
        """``amount`` units of what was taken were not used (or, if negative, more were)."""
        self.free_at -= amount * self.seconds_each


class Window:
    """How many requests may be open at once: from `FIRST_WINDOW` up to ``most``, as the server bears it."""

    def __init__(self, most: int, clock: Clock):
        self.most, self.clock = most, clock
        self.size = float(min(most, FIRST_WINDOW))
        self.open = 0
        self.cut_at = self.closed_until = float("-inf")
        self.changed = asyncio.Condition()

    async def enter(self) -> float:
        """Wait for a place and for the end of a pause; returns the moment of entry."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.open < int(self.size))
            self.open += 1
        try:
            while (left := self.closed_until - self.clock.now()) > 0:
                await self.clock.sleep(left)
        except BaseException:
            await self.leave()
            raise
        return self.clock.now()

    async def leave(self) -> None:
        async with self.changed:
            self.open -= 1
            self.changed.notify_all()

    def bore(self, entered: float) -> None:
        """A request that entered at that moment was answered: more may be open, twice as many before the first cut."""
        if entered >= self.cut_at:
            faster = 1.0 if self.cut_at == float("-inf") else 1.0 / self.size
            self.size = min(float(self.most), self.size + faster)

    def overloaded(self, entered: float, pause: float) -> None:
        """The server has too much: half as many, and none begins for ``pause`` seconds.

        A request that entered before the last cut says nothing about the window since, so it does not cut again.
        """
        now = self.clock.now()
        self.closed_until = max(self.closed_until, now + pause)
        if entered >= self.cut_at:
            self.size, self.cut_at = max(1.0, self.size / 2), now


def backoff(attempt: int, draw: random.Random) -> float:
    """Seconds after attempt number ``attempt`` (from 1): doubling, at most a minute; half to all of it by chance."""
    whole = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** (attempt - 1))
    return whole * (0.5 + draw.random() / 2)
