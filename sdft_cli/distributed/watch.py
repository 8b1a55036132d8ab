"""Whether the other ranks are alive, and what to do when one is not: end, everywhere, with one reason.

A rank that waits in a collective for one that has failed would wait for hours. So each rank tells a store, second by
second, that it is alive, and looks at what the others tell. A thread of its own does so: it ends the process where the
main thread cannot be reached.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed import Store

#: Seconds without a sign of life after which a rank counts as stopped; a variable of the environment may say another.
SILENT, VARIABLE = 120.0, "SDFT_RANK_TIMEOUT"
#: Seconds that a rank has to end what it does, once another has failed in the same call.
GRACE = 10.0
EVERY = 1.0

FAILED = "failed"


class Watch:
    """The watch of rank ``rank`` of ``size`` over the others, by ``store``.

    ``busy`` is the number of the call that this rank is in, 0 between two.
    """

    def __init__(self, store: Store, rank: int, size: int):
        self.store, self.rank, self.size, self.busy = store, rank, size, 0
        self.limit = float(os.environ.get(VARIABLE, SILENT))
        self._ended, self._seen = threading.Event(), (0, 0.0)
        self._signs: dict[int, tuple[bytes, float]] = {}
        threading.Thread(target=self._look, args=(_second(store),), name="watch", daemon=True).start()

    # what a call came to ------------------------------------------------------------------------------------

    def report(self, call: int, problem: str) -> None:
        """What this rank's part in ``call`` came to; an empty ``problem`` is success."""
        if problem:
            self.store.set("trouble", f"{call}\n{self.rank}\n{problem}")
        self.store.set(f"done/{call}/{self.rank}", problem or "-")

    def outcomes(self, call: int, patience: float | None) -> dict[int, str | None]:
        """By rank, what its part in ``call`` came to: empty for success, None where it says nothing for ``patience``
        seconds (None: as long as it is alive)."""
        found: dict[int, str | None] = {}
        end = time.monotonic() + (patience if patience is not None else 1e9)
        for rank in range(1, self.size):
            key, pause = f"done/{call}/{rank}", 2e-4
            found[rank] = None
            while not (there := self.store.check([key])) and time.monotonic() < end:
                time.sleep(pause)
                pause = min(2 * pause, 0.02)
            if there:
                text = self.store.get(key).decode()
                found[rank] = "" if text == "-" else text
                self.store.delete_key(key)
        return found

    def give_up(self, reason: str) -> None:
        """Let all other ranks end."""
        self.store.set(FAILED, reason)

    def end(self) -> None:
        """No longer watch."""
        self._ended.set()

    # the thread ---------------------------------------------------------------------------------------------

    def _look(self, store: Store) -> None:
        beat = 0
        while not self._ended.wait(EVERY):
            beat += 1
            try:
                store.set(f"alive/{self.rank}", str(beat))
                reason = self._reason(store)
            except RuntimeError:
                reason = "the launcher's store has gone"
            if reason and not self._ended.is_set():
                if self.rank == 0:
                    _tell(store, reason)
                    print(f"error: {reason}", file=sys.stderr, flush=True)
                os._exit(1)

    def _reason(self, store: Store) -> str:
        """Why this process has to end; empty where there is no reason."""
        now = time.monotonic()
        if store.check([FAILED]):
            # the leader knows more than its thread does, and says it
            return store.get(FAILED).decode() if self.rank else ""
        for rank in range(self.size):
            if rank == self.rank:
                continue
            sign = store.get(f"alive/{rank}") if store.check([f"alive/{rank}"]) else b""
            if rank not in self._signs or self._signs[rank][0] != sign:
                self._signs[rank] = sign, now
            elif now - self._signs[rank][1] > self.limit:
                return f"rank {rank} has given no sign of life for {self.limit:.0f} seconds: it was stopped or killed"
        if self.rank == 0 and self.busy and store.check(["trouble"]):
            call, failed, problem = store.get("trouble").decode().split("\n", 2)
            if int(call) == self.busy:
                if self._seen[0] != int(call):
                    self._seen = int(call), now
                if now - self._seen[1] > GRACE:
                    return f"rank {failed}: {problem}"
        return ""


def _second(store: Any) -> Store:
    """Another connection to the same store: one is not for two threads."""
    second: Store = store.clone()
    return second


def _tell(store: Store, reason: str) -> None:
    """Let all other ranks end; by the thread's own connection."""
    with suppress(RuntimeError):
        store.set(FAILED, reason)
