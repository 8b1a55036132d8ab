"""How a command ends: its exit code, and the last lines on stderr where it does not end well.

Exit codes: 0 fine, 1 the run failed, 2 wrong usage or bad input, 3 a gate was broken, 128 + n a signal n, of which 141
(SIGPIPE) stands for a reader of stdout that has gone, such as ``head``.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from sdft_cli.cli import streams
from sdft_cli.cli.options import say
from sdft_cli.errors import SdftError, explained
from sdft_cli.runs import signals

BROKEN_PIPE = 128 + 13

#: What a command keeps when it is stopped, unless it says so itself.
_KEPT = {
    "prepare": "the task at hand was not written; a teacher's replies are kept, and the same command goes on with them",
    "eval": "whatever was measured to its end is kept, and the same command goes on from there",
    "grade": "a judge's verdicts are kept, and the same command goes on with them",
    "demo": "whatever is finished is kept, and the same command goes on from there",
    "train": "nothing was changed: no run has begun or gone on",
}

_FAULT = (
    "This is a fault of sdft, or of a plug-in that was named. Please report it: with all lines above, the command, and"
    " what `sdft --version` prints."
)


class Passed(Exception):
    """Carries an ``error`` of a command past typer, which would end some of them in words of its own."""

    def __init__(self, error: BaseException, command: str | None):
        super().__init__()
        self.error, self.command = error, command


class Commands(TyperGroup):
    """All commands of ``sdft``."""

    def invoke(self, ctx: Any) -> Any:  # typer's own context, or click's, by its version
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            passed = Passed(error, ctx.invoked_subcommand)
        raise passed


def run(app: typer.Typer) -> int:
    """Run the command that the arguments name; its exit code. Whatever ended it has been said; an error that nobody has
    foreseen is raised, and says under its traceback what to do with it."""
    code, command = 0, None
    ended: BaseException | None = None
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Passed as passed:
        ended, command = passed.error, passed.command
    except Exception as error:
        ended = error
    if ended:  # outside the handlers: a traceback is the error's alone
        code = _tell(ended, command)
    return _flush() or code


def _tell(error: BaseException, command: str | None) -> int:
    """Say what ended a command; the exit code."""
    if isinstance(error, BrokenPipeError) and error.filename is None:
        return BROKEN_PIPE  # whoever read the output has seen enough
    if isinstance(error, KeyboardInterrupt):
        return _tell_of_stop(error, command)
    told = explained(error)
    if told is None:
        error.add_note(_FAULT)
        raise error
    say(f"error: {_relative(told.message)}")
    if told.hint:
        say(f"hint: {_relative(told.hint)}")
    return told.code


def _tell_of_stop(error: KeyboardInterrupt, command: str | None) -> int:
    number = signals.last()
    if not isinstance(error, signals.Stopped):
        error = signals.Stopped(number, f"stopped by {number.name}", _KEPT.get(command or "", ""))
    say(_relative(error.message))
    if error.hint:
        say(f"hint: {_relative(error.hint)}")
    # what was cut off in the middle, such as an import, may complain as the interpreter ends
    atexit.register(streams.to_nowhere, sys.stderr)
    return error.code


def _relative(text: str) -> str:
    """``text`` with paths below the working folder as a user would write them."""
    here = os.path.join(os.getcwd(), "")
    return text.replace(here, "") if here != os.sep else text


def _flush() -> int:
    """Hand over what is still buffered for stdout; an exit code where that fails, else 0."""
    try:
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        code = BROKEN_PIPE
    except (OSError, ValueError) as error:
        told = explained(error, "stdout") or SdftError(f"stdout: {error}")
        say(f"error: {told.message}")
        code = told.code
    streams.to_nowhere(sys.stdout)  # or the interpreter tries again as it ends, and complains
    return code
