"""How long work takes on a machine that does nothing else, also when it does.

On a GPU, or where another process works, that is the time by the clock. On a CPU it is processor time: that of the main
thread, which takes part in all that its threads compute and waits for the others only at their ends, and at least what
all threads used, shared among the cores there are. It is 15 s where the clock says 35 s because another program had its
share.
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import NamedTuple

import torch

from sdft_cli.models.engine import Engine
from sdft_cli.runs import cores


class Elapsed(NamedTuple):
    """Seconds by the ``clock``, and ``alone``, on an otherwise idle machine."""

    clock: float = 0.0
    alone: float = 0.0

    def __add__(self, other: Elapsed) -> Elapsed:  # type: ignore[override]  # not a longer tuple
        return Elapsed(self.clock + other.clock, self.alone + other.alone)

    @property
    def share(self) -> float:
        """The share of the processor time it could use that this process was given, at most 1."""
        return min(1.0, self.alone / self.clock) if self.clock else 1.0


class Stopwatch:
    """Times what runs inside ``with Stopwatch(engine) as watch``; then ``watch.elapsed`` has it. Call it in the thread
    that does the work."""

    def __init__(self, engine: Engine):
        self.device = engine.policy.device
        self.by_processor = self.device.type == "cpu" and engine.name == "transformers"
        self.elapsed = Elapsed()

    def __enter__(self) -> Stopwatch:
        self._settle()
        self._began = _Clocks.read()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:  # after one, a device may not answer
            self._settle()
        now = _Clocks.read()
        clock, thread, process, children = (b - a for a, b in zip(self._began, now, strict=True))
        used = max(thread, process / min(torch.get_num_threads(), _cores())) + children
        self.elapsed = Elapsed(clock, min(clock, used) if self.by_processor else clock)

    def _settle(self) -> None:
        """Wait for what a GPU was given to do: its work outlasts the call that asks for it."""
        if self.device.type == "cuda" and torch.cuda.is_initialized():
            torch.cuda.synchronize(self.device)


class _Clocks(NamedTuple):
    """Seconds by the clock, and of processor time: of this thread, of all threads, and of processes that have ended."""

    clock: float
    thread: float
    process: float
    children: float

    @classmethod
    def read(cls) -> _Clocks:
        times = os.times()
        children = times.children_user + times.children_system
        return cls(time.perf_counter(), time.thread_time(), time.process_time(), children)


def _cores() -> float:
    quota = cores.quota()
    return cores.cores() if quota is None else min(quota, cores.cores())
