"""Processes that take turns: each side of a benchmark lives in one, and works only while the others wait.

Memory is then each side's own, and whatever else disturbs the machine falls on all sides alike. Linux only (/proc).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

WAIT = 600.0  # seconds after which a turn counts as hung


def resident(what: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS is now, VmHWM the highest yet."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def forget_peak() -> None:
    """Let VmHWM start from what is resident now; where the kernel does not allow it the peak stays, which is safe."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Parts:
    """Seconds by part. Functions are wrapped from outside; a wrapped one inside another counts to the outer, and each
    thread by its own clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.clock: Callable[[], float] = time.thread_time
        self._in = threading.local()

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Count what happens inside to ``part``."""
        if getattr(self._in, "part", None):
            yield
            return
        self._in.part, start = part, self.clock()
        try:
            yield
        finally:
            self._in.part = None
            self.seconds[part] += self.clock() - start

    def wrap(self, owner: Any, name: str, part: str | Callable[[], str]) -> None:
        """Replace ``owner.name`` by itself with a clock; ``part`` may be decided at every call."""
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(part if isinstance(part, str) else part()):
                return inner(*args, **kwargs)

        setattr(owner, name, timed)

    def take(self) -> dict[str, float]:
        """What was counted since the last call."""
        found, self.seconds = dict(self.seconds), defaultdict(float)
        return found


class Turn:
    """A side's end of its pipe: wait for an order, do it under the clocks, report.

    ``seconds`` are CPU seconds of this process, and on a GPU the time until the device is done. ``wall``: time passed.
    Both are told for one step, where a turn is several. Memory is the resident set, and on a GPU what torch's allocator
    has handed out.
    """

    def __init__(self, pipe: Any):
        self.pipe, self.parts, self.cuda = pipe, Parts(), False
        self.clock: Callable[[], float] = time.process_time
        self.loaded = self.peak = 0
        self.start, self.taken = (0.0, 0.0), (0.0, 0.0, 1)

    def on(self, device: str) -> None:
        """Say where the work is done."""
        self.cuda = device.startswith("cuda")
        if self.cuda:
            self.clock = self.parts.clock = self._device_clock

    def has_loaded(self, model: Any) -> None:
        """The weights lie in memory, and nothing else of this side does."""
        for param in model.parameters():
            param.detach().sum()  # pages of a mapped file come in only when they are read
        self.loaded = self._memory("now")

    def is_ready(self, **facts: Any) -> None:
        """Everything is built; the first order may come."""
        self._forget()
        self.pipe.send({"loaded": self.loaded, "ready": self._memory("now"), **facts})

    def wait(self) -> Any:
        """The next order; None ends the side."""
        order = self.pipe.recv()
        self._forget()
        self.parts.take()
        self.start = time.perf_counter(), self.clock()
        return order

    def stop(self, steps: int = 1) -> None:
        """The order, that many optimizer steps, is done: what follows is not measured."""
        seconds = self.clock() - self.start[1]
        self.taken = (time.perf_counter() - self.start[0]) / steps, seconds / steps, steps
        self.peak = self._memory("highest")

    def report(self, **facts: Any) -> None:
        """Tell what was measured, and ``facts``."""
        wall, seconds, steps = self.taken
        parts = {part: found / steps for part, found in self.parts.take().items()}
        self.pipe.send({"wall": wall, "seconds": seconds, "steps": steps, "parts": parts, "peak": self.peak, **facts})

    def _forget(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def _device_clock(self) -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def _memory(self, what: str) -> int:
        if not self.cuda:
            return resident({"now": "VmRSS", "highest": "VmHWM"}[what])
        import torch

        return torch.cuda.memory_allocated() if what == "now" else torch.cuda.max_memory_allocated()


class Side:
    """The parent's end: a side by name, in a process of its own, made by ``function(turn, *arguments)``."""

    def __init__(self, name: str, function: Callable[..., None], *arguments: Any):
        self.name = name
        self.facts: dict[str, Any] = {}
        self.patience = WAIT
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_live, args=(other, function, arguments), daemon=True)
        self.process.start()
        other.close()

    def begin(self) -> None:
        """Wait until the side is built: several may be building at once, before anything is measured."""
        self.facts = self._receive()

    def turn(self, order: Any) -> dict[str, Any]:
        """Give the side its turn."""
        self.pipe.send(order)
        return self._receive()

    def close(self, patience: float = 20.0) -> None:
        """End the side's process, by force where it does not end by itself."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(30)  # or its memory is not free yet for the next

    def _receive(self) -> dict[str, Any]:
        if not self.pipe.poll(self.patience):
            raise TimeoutError(f"{self.name} took more than {self.patience:.0f} s")
        try:
            got = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.name} has ended, as if killed for memory") from None
        if "error" in got:
            raise RuntimeError(f"{self.name}: {got['error']}")
        return got


def _live(pipe: Any, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        function(Turn(pipe), *arguments)
    except Exception:
        pipe.send({"error": traceback.format_exc()})
