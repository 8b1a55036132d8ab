"""`sdft` as one of several processes that a launcher such as ``torchrun``, or ``--gpus``, has started: rank 0 runs the
command, the others do what it asks of them."""

from __future__ import annotations

import os
import signal
import sys

import typer

from sdft_cli.cli import endings
from sdft_cli.cli.options import say
from sdft_cli.distributed.team import join, leave
from sdft_cli.errors import UsageError
from sdft_cli.runs import signals

#: Commands that know how to use several processes.
COMMANDS = ("train", "eval")


def several() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def run(app: typer.Typer) -> int:
    """This process's part of the command that the arguments name; its exit code, which is the leader's to know."""
    leads = os.environ.get("RANK", "0") == "0"
    if not leads:
        # a signal reaches all processes; the leader decides what becomes of it
        for number in signals.STOPPING:
            signal.signal(number, signal.SIG_IGN)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if not command:  # --help, --version
        return endings.run(app) if leads else 0
    if command not in COMMANDS:
        if leads:
            say(f"error: sdft {command} runs as one process, not as {os.environ['WORLD_SIZE']}")
            say("hint: start it without a launcher; " + ", ".join(COMMANDS) + " can use several")
        return 2
    team = join()
    if not team.leads:
        team.serve()
        leave()
        return 0
    try:
        code = endings.run(app)
    finally:
        leave()
    return code


def relaunch(gpus: int | None) -> None:
    """Run this very command in ``gpus`` processes, and exit as they do; nothing where one is enough, or where this
    process is one of so many already. `UsageError` where a launcher has started another number."""
    if several() and gpus not in (None, started := int(os.environ["WORLD_SIZE"])):
        hint = "leave out --gpus, or the launcher"
        raise UsageError(f"--gpus {gpus}: a launcher has started {started} processes", hint)
    if gpus is None or several():
        return
    from sdft_cli.distributed.launch import launch

    if gpus > 1:
        raise typer.Exit(launch(gpus, sys.argv[1:]))
