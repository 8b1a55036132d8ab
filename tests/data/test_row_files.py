"""Databases beside rows: where they are looked for, and what is copied."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sdft_cli.data.row_files import RowFiles, copy


def database(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (?)", (value,))
    return path


def test_files_of_one_name_are_kept_apart_and_one_file_is_copied_once(tmp_path):
    source = tmp_path / "rows.jsonl"
    database(tmp_path / "one" / "shop.sqlite", 1)
    database(tmp_path / "two" / "shop.sqlite", 2)
    files = RowFiles()
    places = [files.place_of(name, source) for name in ("one/shop.sqlite", "two/shop.sqlite", "two/shop", "./one/shop")]
    assert places[0] == places[3] and places[1] == places[2] and len(files.places) == 2
    (tmp_path / "out").mkdir()
    hashes = copy(files.places, tmp_path / "out")
    assert set(hashes) == set(places)
    for place, value in zip(places, (1, 2), strict=False):
        with closing(sqlite3.connect(tmp_path / "out" / place)) as connection:
            assert connection.execute("SELECT a FROM t").fetchall() == [(value,)]


def test_what_is_no_database(tmp_path):
    (tmp_path / "x.sqlite").write_text("hello")
    (tmp_path / "empty.sqlite").touch()
    files = RowFiles()
    with pytest.raises(ValueError, match=r"x\.sqlite is not an SQLite database"):
        files.place_of("x", tmp_path / "rows.jsonl")
    assert files.place_of("none", tmp_path / "rows.jsonl") is None and not files.places
    assert files.place_of("empty", tmp_path / "rows.jsonl")
