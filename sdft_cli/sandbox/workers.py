"""A script kept running in a process of its own, which may hang or crash without harm: it is killed and started anew.

The script reads one JSON object a line and answers with one. Its first line says ``{"ready": true}``, or ``{"failed":
why}`` where it cannot work here. It ends when its standard input does, thus also when the parent is killed.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdft_cli.errors import UsageError
from sdft_cli.types import Json

#: Seconds for a script to start: it may import large libraries on a busy machine.
START = 120.0
#: Seconds for a script to end by itself.
END = 2.0


class Worker:
    """Runs ``script``, a path from this folder, when it is first asked; ``hint`` says what to do where it cannot work.

    May be used from several threads: one question at a time is asked. A process that was forked from this one starts a
    script of its own.
    """

    def __init__(self, script: str, hint: str):
        self._script, self._hint = Path(__file__).parent / script, hint
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, order: dict[str, Json], seconds: float) -> dict[str, Json] | None:
        """The script's answer; None if it gave none within ``seconds`` of real time, or ended.

        Raises `UsageError` if the script cannot work here.
        """
        if self._owner not in (0, os.getpid()):
            self._lock = threading.Lock()  # after a fork, another thread's lock is never released
        with self._lock:
            process = self._running()
            try:
                return self._exchange(process, json.dumps(order) + "\n", seconds)
            except (OSError, ValueError):  # the pipe is closed: the process has ended
                self._stop()
                return None

    def close(self) -> None:
        """End the script, if it runs."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._owner != os.getpid():  # after a fork the pipes are the parent's
            self._process, self._owner = None, os.getpid()
            atexit.register(self.close)
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the parent, which ends it
        )
        first = self._exchange(self._process, "", START)
        if not first or "ready" not in first:
            self._stop()
            raise UsageError(
                f"{self._script.stem}: {(first or {}).get('failed', 'the script did not start')}", self._hint
            )
        return self._process

    def _exchange(self, process: subprocess.Popen[str], line: str, seconds: float) -> dict[str, Json] | None:
        assert process.stdin and process.stdout
        with _killed_after(process, seconds):
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        try:
            value = json.loads(answer)  # half a line where the process has ended
        except ValueError:
            self._stop()
            return None
        return value if isinstance(value, dict) else None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe:
                    pipe.close()
            except OSError:
                pass  # what was not written is of no use any more
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _killed_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
