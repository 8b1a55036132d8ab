"""Time on an idle machine, told from time on a busy one."""

import hashlib
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdft_cli.runs import cores
from sdft_cli.training.stopwatch import Elapsed, Stopwatch


def engine(name: str = "transformers", device: str = "cpu") -> Any:
    return SimpleNamespace(name=name, policy=SimpleNamespace(device=torch.device(device)))


def work(seconds: float) -> None:
    """Use so much processor time of the calling thread, without holding Python's lock."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2000)


def test_time_that_others_take_does_not_count() -> None:
    """A process that waits for the processor looks as if it slept."""
    with Stopwatch(engine()) as watch:
        work(0.2)
        time.sleep(0.5)
    assert 0.2 <= watch.elapsed.alone < 0.4 < 0.7 <= watch.elapsed.clock
    assert watch.elapsed.share == watch.elapsed.alone / watch.elapsed.clock < 0.6


@pytest.mark.parametrize(("name", "device"), [("vllm-server", "cpu"), ("transformers", "cuda")])
def test_elsewhere_the_clock_counts(name: str, device: str) -> None:
    """A server and a GPU work while this process waits."""
    with Stopwatch(engine(name, device)) as watch:
        time.sleep(0.05)
    assert watch.elapsed.alone == watch.elapsed.clock >= 0.05


def test_other_threads_and_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a thread that samples ahead, and for a program that is graded, is time as well."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with Stopwatch(engine()) as threaded:
        other = threading.Thread(target=work, args=(0.2,))
        other.start(), other.join()
    assert threaded.elapsed.alone >= 0.2
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    with Stopwatch(engine()) as waiting:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert waiting.elapsed.alone >= 0.15  # the system counts in ticks


def test_half_a_core_takes_twice_as_long_even_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "quota", lambda: 0.5)
    with Stopwatch(engine()) as watch:
        work(0.1)
        time.sleep(0.5)
    assert 0.2 <= watch.elapsed.alone < 0.4


def test_times_add_up() -> None:
    total = Elapsed(3.0, 1.0) + Elapsed(1.0, 1.0)
    assert total == (4.0, 2.0) and total.share == 0.5
    assert Elapsed().share == 1.0
