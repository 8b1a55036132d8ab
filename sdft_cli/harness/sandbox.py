"""Run generated code where it can do no harm, and learn whether it came to its end. Linux only.

A program runs in a process of its own that `jail` shuts in by Landlock, seccomp and resource limits before it starts;
`checker` runs it there. No network, no process or thread besides its own, no file written or removed, nothing read but
the interpreter's own files, no signal to others, and limits on time, memory and output. It works as root and as anyone
else, in a container or not. Where the kernel lacks a layer nothing is run: `ready` refuses.

What it does not protect against: a fault of the kernel itself; measuring what other processes do to the machine's
speed; what the interpreter's folder holds (it can be read, site-packages beside it included); a program that walks
its interpreter's frames for the mark that says "passed" (it would cheat its own score, and nothing else). Up to the
limits, processor time and memory are the program's to waste.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft_cli.errors import UsageError

JAIL, CHECKER = (str(Path(__file__).with_name(name)) for name in ("jail.py", "checker.py"))
#: No site-packages, no user folder, nothing beside the script on the path, no bytecode written.
PYTHON = (getattr(sys, "_base_executable", None) or sys.executable, "-S", "-s", "-P", "-B")
#: Where the loader finds an interpreter's libraries, if it has been told; the only variable that goes along.
LIBRARY_PATH = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
#: The system's shared libraries and the loader's list of them.
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_HINT = "leave --allow-code-execution out: HumanEval is then left out, and the mean says so"
#: All of this must fail inside; it is tried once before anything else is run there.
_ESCAPES = """
import os, socket

def works(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return False
    return True

assert not works(socket.socket), "a socket"
assert not works(os.fork), "a process"
assert not works(os.listdir, "/"), "a folder"
assert not works(open, "/proc/self/environ"), "a file"
assert not works(os.unlink, "/nothing/there") and not works(os.kill, os.getppid(), 0), "a signal"
"""


@dataclass(frozen=True)
class Limits:
    """Seconds of processor time and by the clock, bytes of memory and of what is written to the verdict's file.

    The harness's own checker gives a program three seconds by the clock; here they are the processor's, so that a
    busy machine fails nothing.
    """

    cpu: int = 3
    wall: float = 30.0
    memory: int = 1 << 30
    output: int = 1 << 16


@dataclass(frozen=True)
class SandboxResult:
    """Whether a program came to its end without an exception, and what it ended with if it did not."""

    passed: bool
    why: str
    seconds: float


def run(program: str, limits: Limits = Limits()) -> SandboxResult:
    """Run a Python program in the sandbox; raises `UsageError` where this machine cannot confine it."""
    ready()
    return _run(program, limits)


@functools.cache
def ready() -> None:
    """Raise `UsageError` unless generated code can be confined here; tried out once, with code that would get out."""
    if sys.platform != "linux":
        raise UsageError("generated code can be confined on Linux only", _HINT)
    tried = _run(_ESCAPES, Limits())
    if not tried.passed:
        raise UsageError(f"generated code cannot be confined on this machine: {tried.why}", _HINT)


def _run(program: str, limits: Limits) -> SandboxResult:
    mark, token = secrets.token_hex(16), secrets.token_hex(16)
    order = {**asdict(limits), "read": _readable(), "token": token, "then": [*PYTHON, CHECKER]}
    command = [*PYTHON, JAIL, json.dumps(order)]
    text = json.dumps({"mark": mark, "program": program}).encode()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sdft-") as empty, tempfile.TemporaryFile() as verdict:
        ended = _wait(command, text, verdict, empty, limits.wall)
        verdict.seek(0)
        said = _lines(verdict.read(limits.output))
    seconds = time.perf_counter() - began
    for line in said:
        if line.get("token") == token:
            raise UsageError(f"generated code cannot be confined on this machine: {line['refused']}", _HINT)
        if line.get("mark") == mark:
            return SandboxResult(bool(line["passed"]), str(line["why"]), seconds)
    return SandboxResult(False, _how(ended, limits), seconds)


def _wait(command: list[str], text: bytes, verdict: Any, folder: str, seconds: float) -> int | None:
    """The exit status, or None where time was up. All of it is one process, so killing that one ends everything."""
    streams = {"stdin": subprocess.PIPE, "stdout": verdict, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **streams, cwd=folder, env=LIBRARY_PATH, start_new_session=True) as process:
        try:
            process.communicate(text, timeout=seconds)
            return process.returncode
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()


def _lines(text: bytes) -> list[dict[str, Any]]:
    """The JSON objects among the lines; a program may have written anything there."""
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _how(ended: int | None, limits: Limits) -> str:
    if ended is None:
        return f"stopped after {limits.wall:g} s"
    if ended == -signal.SIGXCPU:
        return f"stopped after {limits.cpu} s of processor time"
    if ended < 0:
        return f"ended by signal {signal.Signals(-ended).name}"
    return f"left without a verdict (exit code {ended})"


@functools.cache
def _readable() -> list[str]:
    """What the jailed interpreter needs to start: itself, its library, the system's libraries, the checker."""
    library = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    libraries = [sysconfig.get_config_var("LIBDIR") or "", *"".join(LIBRARY_PATH.values()).split(":"), *SYSTEM]
    return [path for path in (os.path.realpath(PYTHON[0]), *library, *libraries, CHECKER) if path]
