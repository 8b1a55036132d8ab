"""Ten thousand of a user's own rows: seconds, and about a kilobyte of memory per row besides the rows."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from pathlib import Path

from sdft_cli.commands.prepare import prepare
from sdft_cli.types import PrepareOptions


def write(path: Path, count: int) -> int:
    """Rows of two texts of forty words each, with frequencies as in a language; returns the file's size in bytes."""
    rng = random.Random(0)
    words = [f"w{int(200 * rng.paretovariate(0.7))}" for _ in range(50_000)]
    draw = lambda: " ".join(rng.choices(words, k=40))  # noqa: E731
    path.write_text("".join(json.dumps({"prompt": draw(), "completion": draw()}) + "\n" for _ in range(count)))
    return path.stat().st_size


def run(path: Path) -> dict:
    (summary,) = prepare(["big"], {"big": [path]}, path.parent / "data", PrepareOptions())
    return summary


def test_ten_thousand_rows_take_seconds(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", 10_000)
    start = time.process_time()
    summary = run(tmp_path / "x.jsonl")
    assert time.process_time() - start < 30  # 5 s of one core on an idle machine
    assert summary["rows"] == {"train": 7500, "validation": 500, "test": 2000}


def test_memory_grows_by_about_a_kilobyte_per_row_besides_the_rows(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        """The most bytes beyond those of the file."""
        size = write(tmp_path / f"{count}.jsonl", count)
        tracemalloc.start()
        run(tmp_path / f"{count}.jsonl")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most - size

    peak(200)  # imports and caches
    small, large = peak(1000), peak(4000)
    assert (large - small) / 3000 < 1300
