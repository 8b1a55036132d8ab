"""A worker's script may hang, crash, print, or fail to start: each is one answer, and nothing is left behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.sandbox.workers import Worker

SCRIPT = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "hang":
        time.sleep(600)
    if order["do"] == "crash":
        os._exit(3)
    if order["do"] == "half":
        sys.stdout.write('{"half": '); sys.stdout.flush(); os._exit(0)
    print(json.dumps({"pid": os.getpid(), "echo": order["do"]}), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    made = Worker(str(path), "do something")
    yield made
    made.close()


def ask(worker: Worker, what: str, seconds: float = 30.0):
    return worker.ask({"do": what}, seconds)


def is_gone(pid: int) -> bool:
    """Ended and waited for: not even a zombie is left."""
    return not Path(f"/proc/{pid}").exists() if os.path.isdir("/proc/self") else True


def test_one_process_answers_many_questions(worker):
    first, second = ask(worker, "a"), ask(worker, "b")
    assert (first["echo"], second["echo"]) == ("a", "b")
    assert first["pid"] == second["pid"] != os.getpid()


@pytest.mark.parametrize("what", ["hang", "crash", "half"])
def test_a_script_that_fails_is_replaced(worker, what):
    before = ask(worker, "a")["pid"]
    began = time.monotonic()
    assert ask(worker, what, 0.5) is None
    assert time.monotonic() - began < 20
    assert is_gone(before)
    assert ask(worker, "b")["pid"] != before


def test_closing_ends_the_process_and_asking_again_starts_one(worker):
    pid = ask(worker, "a")["pid"]
    worker.close()
    worker.close()
    assert is_gone(pid)
    assert ask(worker, "b")["pid"] != pid


def test_threads_take_turns(worker):
    answers: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.__setitem__(i, ask(worker, str(i))["echo"])) for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: str(i) for i in range(12)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_starts_its_own_and_leaves_the_parents_alone(worker):
    mine = ask(worker, "a")["pid"]
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        other = ask(worker, "b")["pid"]
        worker.close()
        os.write(writing, str(other).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != mine
    assert ask(worker, "c")["pid"] == mine


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('print(\'{"failed": "no library"}\')', "no library"),
        ("raise SystemExit(1)", "did not start"),
        ("print('hi')", "did not start"),
    ],
)
def test_a_script_that_cannot_work_here_is_a_usage_error(tmp_path, script, says):
    path = tmp_path / "broken.py"
    path.write_text(script, encoding="utf-8")
    with pytest.raises(UsageError, match=says) as error:
        Worker(str(path), "install it").ask({}, 5)
    assert error.value.hint == "install it"
