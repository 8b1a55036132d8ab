"""Run generated code where it can do no harm, and report whether it reached its end. Linux only.

A program runs in a process of its own, which `jail` confines by Landlock, seccomp and resource limits before the
program starts; `checker` runs it there. It has no network, no further process or thread, cannot write or remove files,
read anything but the interpreter's own files, or signal other processes, and its time, memory and output are limited.
This works as root or any other user, in a container or not. If the kernel lacks a layer, `ready` refuses to run it.

It does not protect against: a bug in the kernel itself; timing what other processes do to the machine's speed; reading
the interpreter's folder (site-packages beside it included); a program that searches its interpreter's frames for the
mark that says "passed" (it would cheat its own score, and nothing else). Within the limits, a program may waste
processor time and memory.
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
from typing import IO

from sdft_cli.errors import UsageError
from sdft_cli.types import Json

JAIL, CHECKER = (str(Path(__file__).with_name(name)) for name in ("jail.py", "checker.py"))
#: No site-packages, no user folder, only the script itself on the path, no bytecode written.
PYTHON = (getattr(sys, "_base_executable", None) or sys.executable, "-S", "-s", "-P", "-B")
#: Where the loader finds an interpreter's libraries, if set; the only variable that is passed on.
LIBRARY_PATH = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
#: The system's shared libraries and the loader's list of them.
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_HINT = "without --allow-code-execution, HumanEval is left out and the mean is marked accordingly"
#: All of this must fail inside; it is tried once before anything else is run.
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
    """Seconds of processor time (``cpu``) and of real time (``wall``), bytes of ``memory`` and of ``output``.

    The harness's own checker gives a program three seconds of real time; here they are processor time, so that no
    program fails because the machine is busy.
    """

    cpu: int = 3
    wall: float = 30.0
    memory: int = 1 << 30
    output: int = 1 << 16


@dataclass(frozen=True)
class SandboxResult:
    """Whether a program reached its end without an exception, and what ended it if not; ``seconds`` of real time."""

    passed: bool
    why: str
    seconds: float


def run(program: str, limits: Limits = Limits()) -> SandboxResult:
    """Run a Python program in the sandbox; raises `UsageError` where this machine cannot confine it."""
    ready()
    return _run(program, limits)


@functools.cache
def ready() -> None:
    """Raise `UsageError` unless generated code can be confined here; tested once, with code that tries to escape."""
    if sys.platform != "linux":
        raise UsageError("generated code can be confined on Linux only", _HINT)
    escapes = _run(_ESCAPES, Limits())
    if not escapes.passed:
        raise UsageError(f"generated code cannot be confined on this machine: {escapes.why}", _HINT)


def _run(program: str, limits: Limits) -> SandboxResult:
    mark, token = secrets.token_hex(16), secrets.token_hex(16)
    order = {**asdict(limits), "read": _readable(), "token": token, "then": [*PYTHON, CHECKER]}
    command = [*PYTHON, JAIL, json.dumps(order)]
    text = json.dumps({"mark": mark, "program": program}).encode()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sdft-") as empty, tempfile.TemporaryFile() as output:
        status = _wait(command, text, output, empty, limits.wall)
        output.seek(0)
        lines = _json_objects(output.read(limits.output))
    seconds = time.perf_counter() - began
    for line in lines:
        if line.get("token") == token:
            raise UsageError(f"generated code cannot be confined on this machine: {line['refused']}", _HINT)
        if line.get("mark") == mark:
            return SandboxResult(bool(line["passed"]), str(line["why"]), seconds)
    return SandboxResult(False, _reason(status, limits), seconds)


def _wait(command: list[str], text: bytes, output: IO[bytes], folder: str, seconds: float) -> int | None:
    """The exit status, or None if time ran out. There is only one process, so killing it ends everything."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=LIBRARY_PATH,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(text, timeout=seconds)
            return process.returncode
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()


def _json_objects(text: bytes) -> list[dict[str, Json]]:
    """Those among the lines; a program may have written anything there."""
    objects = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            objects.append(value)
    return objects


def _reason(status: int | None, limits: Limits) -> str:
    if status is None:
        return f"stopped after {limits.wall:g} s"
    if status == -signal.SIGXCPU:
        return f"stopped after {limits.cpu} s of processor time"
    if status < 0:
        return f"ended by signal {signal.Signals(-status).name}"
    return f"exited before its end (exit code {status})"


@functools.cache
def _readable() -> list[str]:
    """What the jailed interpreter needs to start: itself, its library, the system's libraries, the checker."""
    library = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    libraries = [sysconfig.get_config_var("LIBDIR") or "", *"".join(LIBRARY_PATH.values()).split(":"), *SYSTEM]
    return [path for path in (os.path.realpath(PYTHON[0]), *library, *libraries, CHECKER) if path]
