"""Processes that take turns: each side of a benchmark runs in one, and works only while the others wait.

So each side has its own memory, and whatever else disturbs the machine affects all sides equally. Linux only (/proc).
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

WAIT = 600.0  # seconds after which a turn is taken to hang


def resident(what: str) -> int:
    """Bytes from a line of /proc/self/status: VmRSS is the present value, VmHWM the highest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def forget_peak() -> None:
    """Reset VmHWM to what is resident now; where the kernel does not allow that, the old peak stays, which is safe."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Parts:
    """Seconds by part, from functions that are wrapped from outside.

    A wrapped function inside another one counts towards the outer; each thread has its own clock.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.clock: Callable[[], float] = time.thread_time
        self._in = threading.local()

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Count the time inside towards ``part``."""
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
        """Time ``owner.name``; ``part`` may be a function that is asked at every call."""
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(part if isinstance(part, str) else part()):
                return inner(*args, **kwargs)

        setattr(owner, name, timed)

    def take(self) -> dict[str, float]:
        """The seconds counted since the last call."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds


class Turn:
    """A side's end of the pipe: wait for an order, carry it out, report.

    ``seconds`` are CPU seconds of this process, or on a GPU the time until the device is done; ``wall`` is wall time.
    Both are per step, if a turn has several. Memory is the resident set, or on a GPU what torch has allocated.
    """

    def __init__(self, pipe: Any):
        self.pipe, self.parts, self.cuda = pipe, Parts(), False
        self.clock: Callable[[], float] = time.process_time
        self.loaded = self.peak = 0
        self.start, self.taken = (0.0, 0.0), (0.0, 0.0, 1)

    def on(self, device: str) -> None:
        """Set the device that does the work."""
        self.cuda = device.startswith("cuda")
        if self.cuda:
            self.clock = self.parts.clock = self._device_clock

    def has_loaded(self, model: Any) -> None:
        """Call it when the weights are in memory, and nothing else of this side is."""
        for param in model.parameters():
            param.detach().sum()  # pages of a mapped file are loaded when they are read
        self.loaded = self._memory("now")

    def is_ready(self, **facts: Any) -> None:
        """Call it when everything is built and the first order may come."""
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
        """Call it when the order, ``steps`` optimizer steps, is done: what follows is not measured."""
        seconds = self.clock() - self.start[1]
        self.taken = (time.perf_counter() - self.start[0]) / steps, seconds / steps, steps
        self.peak = self._memory("highest")

    def report(self, **facts: Any) -> None:
        """Send what was measured, and ``facts``."""
        wall, seconds, steps = self.taken
        parts = {part: total / steps for part, total in self.parts.take().items()}
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
    """The parent's end of the pipe: a side, ``function(turn, *arguments)`` in its own process."""

    def __init__(self, name: str, function: Callable[..., None], *arguments: Any):
        self.name = name
        self.facts: dict[str, Any] = {}
        self.patience = WAIT
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_run, args=(other, function, arguments), daemon=True)
        self.process.start()
        other.close()

    def begin(self) -> None:
        """Wait until the side is built; several may be building at once, as nothing is measured yet."""
        self.facts = self._receive()

    def turn(self, order: Any) -> dict[str, Any]:
        """Give the side its turn; returns its report."""
        self.pipe.send(order)
        return self._receive()

    def close(self, patience: float = 20.0) -> None:
        """End the side's process, by force if it does not end within ``patience`` seconds."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(30)  # its memory must be free for the next

    def _receive(self) -> dict[str, Any]:
        if not self.pipe.poll(self.patience):
            raise TimeoutError(f"{self.name} took more than {self.patience:.0f} s")
        try:
            message = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.name} ended without a report, perhaps out of memory") from None
        if "error" in message:
            raise RuntimeError(f"{self.name}: {message['error']}")
        return message


def _run(pipe: Any, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        function(Turn(pipe), *arguments)
    except Exception:
        pipe.send({"error": traceback.format_exc()})
