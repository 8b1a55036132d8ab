"""Signals that end a command: Ctrl-C, a scheduler's SIGTERM or SIGUSR1, and SIGHUP from a terminal that was closed.

All of them do what Ctrl-C does: `KeyboardInterrupt` is raised where the command happens to be (`as_interrupts`).
Training holds the first one until a step is done and saved (`held`); a second one is raised at once. A signal that was
ignored when the process began stays ignored, as after ``nohup``. Only the main thread can take signals: in any other
thread nothing here has an effect.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: SIGUSR1 is what Slurm and Grid Engine send before a time limit (``sbatch --signal=USR1@120``). Windows has the first
#: two alone.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

Handler = Callable[[int, FrameType | None], object]
#: The environment variable with the process id of a command that trains several runs, for their processes.
PARENT = "SDFT_PARENT"
#: The newest signal that was taken.
_taken: list[int] = [signal.SIGINT]


def last() -> signal.Signals:
    """The signal behind the newest `KeyboardInterrupt`."""
    return signal.Signals(_taken[-1])


class Stopped(KeyboardInterrupt):
    """A command that a signal ended, with what it has kept (``message``) and how to go on (``hint``)."""

    def __init__(self, number: int, message: str, hint: str = ""):
        super().__init__(message)
        self.number, self.message, self.hint = number, message, hint

    @property
    def code(self) -> int:
        """The exit code, as shells have it."""
        return 128 + self.number


@contextmanager
def as_interrupts() -> Iterator[None]:
    """In this block every stopping signal ends as Ctrl-C does: whoever handles that one (such as asyncio, which lets
    requests under way end) handles all."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _note(number)
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    _note(signal.SIGINT)
    others = [number for number in STOPPING if number != signal.SIGINT]
    with _handled_by(interrupt, others):
        yield


def follow_parent() -> None:
    """Under a command that trains several runs: get a SIGTERM, and so save the state, when that is gone, however it
    ended. Linux alone can do this."""
    parent = os.environ.pop(PARENT, "")
    if parent and sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != int(parent):  # it has ended in the meantime
            sys.exit(128 + signal.SIGTERM)


class Held:
    """A stop that was asked for and waits: ``number`` is the signal's, None while there is none."""

    def __init__(self, tell: Callable[[signal.Signals], None]):
        self.tell = tell
        self.number: int | None = None
        self.exposed = False

    @contextmanager
    def exposing(self) -> Iterator[None]:
        """In this block a signal is not held but raised at once; so is one that has been held."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.exposed = True
        try:
            yield
        finally:
            self.exposed = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler: holds the first signal, raises the second."""
        first, self.number = self.number is None, number
        _note(number)
        if self.exposed or not first:
            self.exposed = False
            raise KeyboardInterrupt
        self.tell(signal.Signals(number))


@contextmanager
def held(tell: Callable[[signal.Signals], None] = lambda _: None) -> Iterator[Held]:
    """In this block the first stopping signal is held and passed to ``tell``; where the block ends all the same, it is
    raised then."""
    request = Held(tell)
    with _handled_by(request.handle, STOPPING):
        yield request
    if request.number is not None:
        raise KeyboardInterrupt


def _note(number: int) -> None:
    _taken[:] = [number]


@contextmanager
def _handled_by(handler: Handler, numbers: tuple[int, ...] | list[int]) -> Iterator[None]:
    before = {}
    if threading.current_thread() is threading.main_thread():
        taken = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
