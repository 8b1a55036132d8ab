"""Queries of a model can only read, and only so much."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sdft_cli.grading import sqlite_runs
from sdft_cli.grading.named_rules import grader
from sdft_cli.grading.sqlite_runs import Failed, Undecided, opened, query
from sdft_cli.types import Example


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "d.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)")
    return path


HARM = [
    "DELETE FROM t", "DROP TABLE t", "INSERT INTO t VALUES (4)", "UPDATE t SET a = 0", "CREATE TABLE u (b)",
    "CREATE TEMP TABLE u (b)", "ATTACH 'other.sqlite' AS o", "DETACH main", "VACUUM", "VACUUM INTO 'other.sqlite'",
    "PRAGMA query_only = OFF", "PRAGMA writable_schema = 1", "PRAGMA journal_mode = WAL", "BEGIN", "COMMIT", "REINDEX",
    "SELECT load_extension('x')", "SELECT writefile('other.sqlite', 'x')", "SELECT readfile('/etc/passwd')",
    "SELECT * FROM pragma_database_list", "SELECT fts3_tokenizer('x')", "ANALYZE", "SAVEPOINT s",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "EXPLAIN DELETE FROM t", "SELECT 1; DELETE FROM t",
]  # fmt: skip


@pytest.mark.parametrize("sql", HARM)
def test_nothing_is_changed(database, sql, monkeypatch):
    monkeypatch.chdir(database.parent)
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    with opened("d.sqlite", database.parent, "sqlite") as connection, pytest.raises(Failed):
        query(connection, sql)
    score = grader("sql").score(
        f"```sql\n{sql}\n```", Example("x", [], answer="SELECT 9", meta={"database": "d.sqlite"}), database.parent
    )
    assert score.value == 0
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert [path.name for path in database.parent.iterdir()] == ["d.sqlite"]


def test_a_script_cannot_reach_another_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for harm in ("ATTACH 'other.sqlite' AS o", "VACUUM INTO 'other.sqlite'"):
        with pytest.raises(Undecided), opened(f"CREATE TABLE t (a); {harm};", None, "sqlite"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_query_that_never_ends_is_stopped_after_so_many_steps(database, monkeypatch):
    monkeypatch.setattr(sqlite_runs, "STEPS", 1_000_000)
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT sum(n) FROM r"
    with opened("d.sqlite", database.parent, "sqlite") as connection:
        with pytest.raises(Failed, match="too many steps"):
            query(connection, endless)
        assert query(connection, "SELECT sum(a) FROM t").rows == [(6,)]  # the next one has a budget of its own
        monkeypatch.setattr(sqlite_runs, "SECONDS", 0.0)
        with pytest.raises(Undecided, match="stopped after"):  # how fast a machine is says nothing of the query
            query(connection, endless)


def test_rows_and_bytes_are_limited(database, monkeypatch):
    monkeypatch.setattr(sqlite_runs, "ROWS", 100)
    monkeypatch.setattr(sqlite_runs, "BYTES", 10_000)
    with opened("d.sqlite", database.parent, "sqlite") as connection:
        for many in ("SELECT 1 FROM t, t b, t c, t d, t e", "SELECT hex(zeroblob(3000)) FROM t"):
            with pytest.raises(Failed, match="too many rows"):
                query(connection, many)
        with pytest.raises(Failed, match="too big"):
            query(connection, "SELECT zeroblob(1000000000)")


def test_memory_is_limited():
    """In a process of its own, as the limit is one of the process."""
    code = """
from sdft_cli.grading import sqlite_runs as s
s.MEMORY = 20 << 20
with s.opened("CREATE TABLE t (a); INSERT INTO t VALUES (1)", None, "sqlite") as c:
    many = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 100000)"
    try:
        s.query(c, many + " SELECT DISTINCT hex(randomblob(5000)) FROM r")
    except s.Failed as error:
        print(error)
    print(s.query(c, "SELECT 1").rows)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "it needs too much memory\n[(1,)]\n", done


def test_a_database_with_bytes_that_are_no_text_is_read(tmp_path):
    with closing(sqlite3.connect(tmp_path / "d.sqlite")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))")
        connection.commit()
    with opened("d.sqlite", tmp_path, "sqlite") as connection:
        assert query(connection, "SELECT a FROM t").rows == [("\ufffdA",)]


def test_a_file_that_is_no_database_decides_nothing(tmp_path):
    (tmp_path / "d.sqlite").write_text("hello " * 500)
    with pytest.raises(Undecided, match=r"d\.sqlite cannot be read"), opened("d.sqlite", tmp_path, "sqlite"):
        pass
