"""Budget: no request goes out that might exceed a limit on requests or money.

A request reserves its worst case (all of its ``max_tokens`` written, its prompt by a high estimate) and is settled with
what the server counted. One without a readable response stays at its worst case, for the server may have billed it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sdft_cli.errors import GateError
from sdft_cli.llm.ledger import Ledger, Spent
from sdft_cli.llm.types import TeacherOptions

MILLION = 1_000_000
_HINT = "every reply is stored: run the same command again to go on, with a new budget"


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, read and written; None if not given."""

    read: float | None = None
    written: float | None = None

    @property
    def known(self) -> bool:
        return self.read is not None or self.written is not None

    def cost(self, read: int, written: int) -> float:
        return ((self.read or 0.0) * read + (self.written or 0.0) * written) / MILLION


class Budget:
    """Counts requests and money of one run, and holds back what would exceed ``max_requests`` or ``max_cost``. With a
    ledger, the counts are those of all runs that share it."""

    def __init__(self, options: TeacherOptions):
        self.prices = Prices(options.price_in, options.price_out)
        self.max_requests, self.max_cost = options.max_requests, options.max_cost
        self.ledger = Ledger(options.ledger) if options.ledger else None
        self.requests = self.open = 0
        self.cost = self.reserved = 0.0
        self.changed = asyncio.Condition()

    async def reserve(self, read: int, written: int) -> float:
        """Wait until a request of at most ``read`` and ``written`` tokens fits; returns its worst cost.

        Raises `GateError` if it cannot fit any more.
        """
        worst = self.prices.cost(read, written)
        async with self.changed:
            await self.changed.wait_for(lambda: self._fits(worst) or not self.open)
            if not self._fits(worst):
                raise self._used_up()
            self.requests, self.open, self.reserved = self.requests + 1, self.open + 1, self.reserved + worst
            if self.ledger:
                self.ledger.add(1, worst)
        return worst

    async def settle(self, worst: float, cost: float) -> None:
        """A request that had reserved ``worst`` has cost ``cost``."""
        async with self.changed:
            self.open, self.reserved, self.cost = self.open - 1, self.reserved - worst, self.cost + cost
            if self.ledger:
                self.ledger.add(0, cost - worst)
            self.changed.notify_all()

    def _spent(self) -> Spent:
        """What has been sent, and what it costs at most, requests under way included."""
        return self.ledger.spent() if self.ledger else Spent(self.requests, self.cost + self.reserved)

    def _fits(self, worst: float) -> bool:
        spent = self._spent()
        if self.max_requests is not None and spent.requests >= self.max_requests:
            return False
        return self.max_cost is None or spent.cost + worst <= self.max_cost

    def _used_up(self) -> GateError:
        total = self._spent()
        if self.max_requests is not None and total.requests >= self.max_requests:
            return GateError(f"--max-requests {self.max_requests} is used up", _HINT)
        spent = f"{total.cost:.4f} is spent, and one more request might exceed it"
        return GateError(f"--max-cost {self.max_cost:g} is used up: {spent}", _HINT)
