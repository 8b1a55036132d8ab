"""Where one rank fails, all end, soon, with its reason; where all fail alike, the call fails and the team goes on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ended(kind: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """How two ranks end where one does what ``kind`` says, and after how many seconds."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.support.rank_trouble",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "SDFT_RANK_TIMEOUT": "5"}
    began = time.monotonic()
    result = subprocess.run(
        [*command, kind], cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False
    )
    assert "before 2" in result.stdout
    return result, time.monotonic() - began


def test_what_fails_on_every_rank_fails_and_the_team_goes_on() -> None:
    result, _ = ended("all raise")
    assert "error: as it should be" in result.stderr and "after 2" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raise", "error: rank 1: ValueError: a fault of one rank"),
        ("kill", "Signal 9 (SIGKILL)"),
        ("stop", "error: rank 1 has given no sign of life for 5 seconds"),
        ("skip", "the ranks have come to different steps, losses or norms (7, 0.5, 1.0 on rank 1)"),
    ],
)
def test_one_rank_fails_and_all_end_with_its_reason(kind: str, reason: str) -> None:
    result, seconds = ended(kind)
    assert result.returncode != 0 and reason in result.stderr
    assert seconds < 100  # the launcher gives a stopped process half a minute
