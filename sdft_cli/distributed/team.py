"""One leader, many workers: rank 0 runs the program, and asks every rank to do with it what is heavy.

    team().run(function, *arguments)     every rank calls it at the same time; the leader gets its own result

All decisions are the leader's: which step comes next, what is saved, when a guard or a signal stops the run. The other
ranks wait for what is asked of them (`Team.serve`), so ranks cannot come to different decisions, one process writes the
run folder, and a judge or a sandbox is asked once. An object that every rank has made for itself, such as a model, is
sent as its number (`Team.make`); everything else is pickled.

A process alone is a team of one, for which `run` is a plain call.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sdft_cli.distributed.watch import GRACE, Watch
from sdft_cli.errors import SdftError

T = TypeVar("T")

#: How long the other ranks wait for the leader, which may be busy with a judge for hours: its end is noticed by
#: `distributed.watch`, not by this.
PATIENCE = timedelta(days=30)


class Team:
    """``size`` processes; this one is number ``rank``. `team` has the one that this process belongs to."""

    def __init__(self, rank: int = 0, size: int = 1, watch: Watch | None = None):
        self.rank, self.size, self.watch = rank, size, watch
        self.calls, self.broken = 0, False
        self.made: dict[int, object] = {}
        self.count = 0  # of all that was ever made: numbers are not used twice
        self.together = False  # whether every rank is in the same call at present

    @property
    def leads(self) -> bool:
        """Whether this process runs the program."""
        return self.rank == 0

    # asking and answering -----------------------------------------------------------------------------------

    def run(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call ``function``, which is found by its name in its module, on every rank; returns the leader's result.

        Within such a call it is a plain one. What a function raises on every rank, it raises here; a rank that fails
        alone ends all (`distributed.watch`).
        """
        if self.watch is None or self.together:
            return function(*arguments, **named)
        if self.broken:
            raise SdftError("other ranks have ended", "see the error above")
        self._send((function, arguments, named))
        try:
            result = self._call(function, arguments, named)
        except BaseException as error:
            self._settle(error)
            raise
        self._settle(None)
        return result

    def _settle(self, error: BaseException | None) -> None:
        """What the call came to on the other ranks. `SdftError` where one of them failed or is gone; where all failed,
        it is a failure of the call, which is this rank's to raise."""
        assert self.watch is not None
        outcomes = self.watch.outcomes(self.calls, GRACE if error else None)
        failed = {rank: problem for rank, problem in outcomes.items() if problem != ""}
        if not failed or (error and None not in failed.values() and len(failed) == self.size - 1):
            return
        self.broken = True
        rank, problem = min(failed.items(), key=lambda item: item[1] is None)
        reason = problem or "it has exited, or is still waiting"
        self.watch.give_up(f"rank {rank}: {reason}" if error is None or problem else f"rank 0: {_told(error)}")
        if error is None or _is_of_connection(error):
            raise SdftError(f"rank {rank}: {reason}", "the lines above may say more") from error

    def make(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """As `run`; what it returns is then known to every rank by the same number."""
        if self.size == 1:
            return function(*arguments, **named)
        self.count += 1
        number = self.count
        made: T = self.run(_make, number, function, arguments, named)
        return made

    def forget(self, made: object) -> None:
        """No longer hold what `make` returned; on every rank."""
        if self.size > 1 and (numbers := [number for number, each in self.made.items() if each is made]):
            self.run(_forget, numbers[0])

    def serve(self) -> None:
        """Do what the leader asks, until it is done. The work of every rank but the leader."""
        assert self.watch is not None
        while (asked := self._next()) is not None:
            try:
                self._call(*asked)
            except Exception as error:  # of any kind: the leader decides
                self.watch.report(self.calls, _told(error))
            else:
                self.watch.report(self.calls, "")

    def _next(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
        """What the leader asks next; the process ends where it has gone without a word, which it has said itself."""
        try:
            return self._receive()
        except RuntimeError as error:
            if _is_of_connection(error):
                os._exit(1)
            raise

    def dismiss(self) -> None:
        """The leader is done: the other ranks return from `serve`."""
        if self.leads:
            self._send(None)

    def _call(self, function: Callable[..., T], arguments: tuple[Any, ...], named: dict[str, Any]) -> T:
        self.calls += 1
        self.together = True
        if self.watch:
            self.watch.busy = self.calls
        try:
            return function(*arguments, **named)
        finally:
            self.together = False
            if self.watch:
                self.watch.busy = 0

    def _send(self, asked: object) -> None:
        from torch import distributed

        file = io.BytesIO()
        _Pickler(file, self.made).dump(asked)
        distributed.broadcast_object_list([file.getvalue()], src=0)

    def _receive(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
        from torch import distributed

        received: list[Any] = [None]
        distributed.broadcast_object_list(received, src=0)
        asked: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None
        asked = _Unpickler(io.BytesIO(received[0]), self.made).load()
        return asked

    # together -----------------------------------------------------------------------------------------------

    def share(self, count: int) -> range:
        """Which of ``count`` things are this rank's: every ``size``-th."""
        return range(self.rank, count, self.size)

    def gather(self, mine: Sequence[T], count: int) -> list[T]:
        """All ``count`` things in their order, of which every rank has its `share`."""
        if self.size == 1:
            return list(mine)
        from torch import distributed

        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, list(mine))
        return [parts[i % self.size][i // self.size] for i in range(count)]


class _Pickler(pickle.Pickler):
    """Sends objects that every rank has made as their numbers."""

    def __init__(self, file: io.BytesIO, made: dict[int, object]):
        super().__init__(file)
        self.numbers = {id(each): number for number, each in made.items()}

    def persistent_id(self, obj: Any) -> int | None:
        return self.numbers.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, made: dict[int, object]):
        super().__init__(file)
        self.made = made

    def persistent_load(self, pid: Any) -> object:
        return self.made[pid]


_joined = [Team()]


def team() -> Team:
    """The team that this process belongs to."""
    return _joined[-1]


def _make(number: int, function: Callable[..., T], arguments: tuple[Any, ...], named: dict[str, Any]) -> T:
    made = function(*arguments, **named)
    team().made[number] = made
    return made


def _forget(number: int) -> None:
    del team().made[number]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _is_of_connection(error: BaseException) -> bool:
    """Whether it is a library's, for a rank that does not answer, and no error of our own."""
    from torch import distributed

    lost = isinstance(error, distributed.DistBackendError | distributed.DistNetworkError)
    return lost or (isinstance(error, RuntimeError) and "gloo" in str(error))


def join() -> Team:
    """The team that a launcher has started this process for (``RANK`` and ``WORLD_SIZE`` in the environment)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and team().size == 1:
        import torch
        from torch import distributed

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = next(distributed.rendezvous("env://"))
        own = distributed.PrefixStore("collectives", store)
        distributed.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
        _joined.append(Team(rank, size, Watch(store, rank, size)))
    return team()


def leave() -> None:
    """The end of the team: the other ranks end, too."""
    if team().watch:
        from torch import distributed

        left = _joined.pop()
        if not left.broken:
            left.dismiss()
            distributed.barrier()
            distributed.destroy_process_group()
        if left.watch:
            left.watch.end()
