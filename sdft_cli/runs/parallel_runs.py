"""Several runs at once, each in a process of its own, with a progress bar each.

A small model gains nothing from a second thread, so two methods side by side take half the time of one after the
other. The run folder is the only channel: a job is ``sdft train --resume`` on a folder that holds a recipe, and its
progress is read from the rows it logs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import cast

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from sdft_cli import console
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.runs import signals
from sdft_cli.runs.cores import cores
from sdft_cli.runs.records import MetricsRow, StepRow
from sdft_cli.runs.signals import Stopped
from sdft_cli.types import Json


@dataclass
class Job:
    """A run folder with its recipe; ``steps`` is the total over its stages, for the bar. ``output`` collects the lines
    that its process prints on stderr, ``offset`` is how far its metrics have been read, in bytes."""

    label: str
    folder: Path
    steps: int
    output: list[str] = field(default_factory=list)
    offset: int = 0

    def last_step(self) -> StepRow | None:
        """The newest step logged since the last call; a line still being written waits for the next."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return None
        if path.stat().st_size < self.offset:  # a resumed run drops the rows after its checkpoint
            self.offset = 0
        with path.open("rb") as f:
            f.seek(self.offset)
            complete = f.read().rpartition(b"\n")[0]
        self.offset += len(complete) + bool(complete)
        rows = (_row(line) for line in reversed(complete.splitlines()))
        return next((row for row in rows if row and row["kind"] == "step"), None)

    def complaint(self, code: int) -> str:
        """Why it stopped, as far as it reported that."""
        if code == -signal.SIGKILL:
            return "killed by SIGKILL, as the system does with whoever takes its last memory"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        said = self._last("error: ") or next((line for line in self.output if line.startswith("stopped by ")), "")
        return said or "\n".join([f"exit code {code}", *self.output[-3:]])

    def hint(self) -> str:
        return self._last("hint: ") or f"sdft train --resume --out {self.folder} goes on with this run alone"

    def _last(self, begin: str) -> str:
        return next((line.removeprefix(begin) for line in reversed(self.output) if line.startswith(begin)), "")


def _row(line: bytes) -> MetricsRow | None:
    """A logged row; None for the rest of a line whose file was rewritten since the last look."""
    try:
        row: Json = json.loads(line)
    except ValueError:
        return None
    return cast(MetricsRow, row) if isinstance(row, dict) and "kind" in row else None


class _Running:
    """A job's process; a thread puts the lines it prints into ``lines``."""

    def __init__(self, job: Job, threads: int, lines: SimpleQueue[tuple[Job, str]]):
        words = [sys.executable, "-m", "sdft_cli", "train", "--resume", "--out", str(job.folder)]
        share = {"OMP_NUM_THREADS": str(threads)}  # jobs that take every core each are slower than one at a time
        self.job = job
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**share, **os.environ, "PYTHONIOENCODING": "utf-8", signals.PARENT: str(os.getpid())},
            # a terminal sends Ctrl-C to its whole group; passed on as well, that is two, and a second one does not wait
            process_group=0 if os.name == "posix" else None,
        )
        self.relay = threading.Thread(target=self._relay, args=(lines,), daemon=True)
        self.relay.start()

    def _relay(self, lines: SimpleQueue[tuple[Job, str]]) -> None:
        for line in self.process.stderr or ():
            lines.put((self.job, line.rstrip()))

    def code(self) -> int | None:
        """Its exit code, once all its output has arrived; None while it runs."""
        code = self.process.poll()
        if code is not None:
            self.relay.join(timeout=5)
        return code

    def send(self, number: int) -> None:
        """Pass a signal on; a process that has ended takes none."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended and all its output has arrived."""
        self.process.wait()
        self.relay.join(timeout=5)
        return self.process.returncode


def train_all(jobs: Sequence[Job], at_once: int, quiet: bool = False, keep_going: bool = False) -> dict[str, str]:
    """Run every job to its end in their order, ``at_once`` side by side; returns the failed ones' complaints by label.

    A failure stops the others and is raised. With ``keep_going`` only bad input (exit code 2) is, for the others are
    likely to share it. A signal is passed on to all jobs, which save their state; then `Stopped` is raised. A folder
    whose job was stopped or failed can be resumed.
    """
    lines: SimpleQueue[tuple[Job, str]] = SimpleQueue()
    waiting, failed = list(jobs), {}
    running: list[_Running] = []
    with signals.as_interrupts(), _Display(jobs, quiet) as display:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    with signals.held():  # a process that is started must be listed
                        running.append(_Running(waiting.pop(0), max(1, cores() // at_once), lines))
                    display.start(running[-1].job)
                time.sleep(0.2)
                codes = [(r, r.code()) for r in running]
                _relay(lines, display)
                for r, code in codes:
                    if row := r.job.last_step():
                        display.show(r.job, row)
                    if code is None:
                        continue
                    running.remove(r)
                    if code:
                        failed[r.job.label] = r.job.complaint(code)
                    if code == UsageError.code or (code and not keep_going):
                        raise _error(r.job, code)
                    display.finish(r.job, code == 0)
        except KeyboardInterrupt:
            raise _stopped(running, jobs, lines, display) from None
        except BaseException:
            _end(running, lines, display, signal.SIGTERM)
            raise
    return failed


def _stopped(
    running: Sequence[_Running], jobs: Sequence[Job], lines: SimpleQueue[tuple[Job, str]], display: _Display
) -> Stopped:
    """Pass the signal on, wait until every job has saved its state, and say how far they are."""
    number = signals.last()
    _end(running, lines, display, number)
    done = sum((job.folder / "done.json").is_file() for job in jobs)
    text = f"stopped by {number.name}: {done} of {len(jobs)} runs are finished, the others are saved as far as they are"
    return Stopped(number, text, "the same command goes on from there")


def _end(running: Sequence[_Running], lines: SimpleQueue[tuple[Job, str]], display: _Display, number: int) -> None:
    """Send the jobs a signal, and wait for them; a further signal is passed on, and ends them at once."""
    ended = False
    while not ended:
        try:
            for r in running:
                r.send(number)
            for r in running:
                r.wait()
            ended = True
        except KeyboardInterrupt:
            number = signals.last()
    _relay(lines, display)


def _error(job: Job, code: int) -> SdftError:
    kind = UsageError if code == UsageError.code else SdftError
    return kind(f"the run {job.folder} stopped: {job.complaint(code)}", job.hint())


def _relay(lines: SimpleQueue[tuple[Job, str]], display: _Display) -> None:
    while True:
        try:
            job, line = lines.get_nowait()
        except Empty:
            return
        job.output.append(line)
        display.line(job, line)


class _Display:
    """On a terminal a bar for each running job, with the jobs' notes above; elsewhere their lines, labelled.

    Step lines are left out where bars show the steps, and where there are too many jobs to follow each.
    """

    def __init__(self, jobs: Sequence[Job], quiet: bool):
        self.quiet, self.live = quiet, console.is_live() and not quiet
        self.width, self.of, self.ended = max((len(j.label) for j in jobs), default=0), len(jobs), 0
        self.steps = not self.live and len(jobs) <= 4
        self.first: dict[str, tuple[int, float]] = {}
        self.bars: dict[str, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[stage]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console.err,
            expand=True,
            disable=not self.live,
        )

    def __enter__(self) -> _Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, job: Job) -> None:
        self.bars[job.label] = self.progress.add_task(job.label, total=job.steps, stage="starting", figures="")

    def finish(self, job: Job, succeeded: bool) -> None:
        self.ended += 1
        self.progress.remove_task(self.bars.pop(job.label))
        self.line(job, f"{'finished' if succeeded else 'failed'} ({self.ended} of {self.of})")

    def show(self, job: Job, row: StepRow) -> None:
        done, now = row["global_step"], time.monotonic()
        first, since = self.first.setdefault(job.label, (done, now))
        left = console.clock((job.steps - done) * (now - since) / (done - first)) if done > first else "-:--"
        figures = f"loss {row['loss']:.3f}  left {left}"
        self.progress.update(self.bars[job.label], completed=done, stage=row["task"], figures=figures)

    def line(self, job: Job, text: str) -> None:
        if self.quiet or (not self.steps and "  step " in text):
            return
        console.err.print(Text(f"{job.label:<{self.width}} {text}"), soft_wrap=not self.live)
