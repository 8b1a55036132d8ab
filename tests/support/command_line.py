"""`sdft …` in process, with models that load for real; and a run that is interrupted where a test wants it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from sdft_cli.cli import app
from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import MetricsRow


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def sdft(*words: object) -> Done:
    """Run the command to its end."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["sdft", *map(str, words)])
        try:
            app.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@contextmanager
def interrupted(stage: int, step: int) -> Iterator[None]:
    """Commands in here are interrupted when they have logged this step, before they write a checkpoint of it."""
    append = MetricsLog.append

    def stop_at(self: MetricsLog, row: MetricsRow) -> None:
        append(self, row)
        if (row["kind"], row["stage"], row["step"]) == ("step", stage, step):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "append", stop_at)
        yield
