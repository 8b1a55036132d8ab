"""Thousands of a user's own rows, in one file or many: seconds, and about a kilobyte of memory per row besides them."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from pathlib import Path

import pytest

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
    small, large = peak(500), peak(2000)
    assert (large - small) / 1500 < 1300


def spread(folder: Path, count: int) -> int:
    """``count`` rows in eight kinds of files, some in other letters than ASCII; returns the files' size in bytes."""
    import bz2
    import csv
    import gzip
    import io

    import openpyxl
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    source = folder.parent / "rows.jsonl"
    write(source, count)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row in rows[::3]:
        row["completion"] = row["completion"].replace("w1", "é").replace("w2", "–а")
    folder.mkdir()
    parts = [rows[i::8] for i in range(8)]
    lines = lambda some: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some).encode()  # noqa: E731

    def table(some: list[dict], delimiter: str) -> bytes:
        writer = csv.DictWriter(stream := io.StringIO(), list(some[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(some)
        return stream.getvalue().encode()

    files = {
        "a.jsonl": lines(parts[0]),
        "b.jsonl.gz": gzip.compress(lines(parts[1])),
        "c.json": json.dumps({"data": parts[2]}).encode(),
        "d.csv": table(parts[3], ";"),
        "e.tsv.bz2": bz2.compress(table(parts[4], "\t")),
        "f.jsonl.zst": zstandard.ZstdCompressor().compress(lines(parts[5])),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    pq.write_table(pa.Table.from_pylist(parts[6]), folder / "g.parquet")
    sheet = (book := openpyxl.Workbook(write_only=True)).create_sheet()
    for cells in [list(parts[7][0]), *(list(row.values()) for row in parts[7])]:
        sheet.append(cells)
    book.save(folder / "h.xlsx")
    return len(lines(rows))


def test_rows_of_mixed_files_take_seconds(tmp_path: Path) -> None:
    spread(tmp_path / "in", 4000)
    start = time.process_time()
    summary = run(tmp_path / "in")
    assert time.process_time() - start < 20  # 3 s of one core on an idle machine
    assert summary["rows"] == {"train": 3000, "validation": 200, "test": 800}


@pytest.mark.slow
def test_twenty_thousand_rows_of_mixed_files_take_less_than_a_minute(tmp_path: Path) -> None:
    spread(tmp_path / "in", 20_000)
    start = time.process_time()
    summary = run(tmp_path / "in")
    assert time.process_time() - start < 60  # of one core
    assert summary["rows"] == {"train": 15_000, "validation": 1000, "test": 4000}
