"""Queries that a model wrote, run on SQLite databases that they can only read.

A query runs within a budget: instructions of SQLite's machine (so that the verdict does not depend on how fast a
machine is), rows, bytes and real time. It cannot write, attach another file, load an extension or change a setting: an
authorizer allows nothing but reading, and files are opened read-only. SQLite may use at most `MEMORY` bytes in this
process from then on; SQLite has no limit for one connection.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

STEPS, SECONDS = 100_000_000, 30.0
ROWS, BYTES, LENGTH, MEMORY = 200_000, 1 << 28, 1 << 22, 1 << 30
_EVERY = 100_000
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}
#: What begins like this is SQL that makes a database; anything else is the path of one.
_SCRIPT = re.compile(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*(?:CREATE|INSERT|BEGIN|PRAGMA|DROP|SET)\b", re.I | re.S)
#: MySQL's width of an integer, with which SQLite takes no column for its AUTOINCREMENT.
_SIZED = re.compile(r"\bINTEGER\(\d+\)")
Cell = int | float | str | bytes | None


class Rows(NamedTuple):
    """What a query returns."""

    columns: int
    rows: list[tuple[Cell, ...]]


class Failed(Exception):
    """A query does not run; the reason in a few words."""


class Undecided(Exception):
    """Nothing can be said of a query here, as where the database cannot be read or time ran out."""


def is_script(database: str) -> bool:
    """Whether ``database`` is SQL text rather than the path of a file."""
    return _SCRIPT.match(database) is not None


def query(connection: sqlite3.Connection, sql: str) -> Rows:
    """The rows of one statement that only reads; raises `Failed` and `Undecided`."""
    budget = _Budget()
    with _reading_only(connection, budget):
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise Failed("it returns no rows: not a query")
            return Rows(len(cursor.description), list(_fetched(cursor)))
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            if budget.out_of_time:
                raise Undecided(f"stopped after {SECONDS:g} s") from None
            raise Failed("it takes too many steps" if budget.spent >= STEPS else str(error)) from None
        except MemoryError:
            raise Failed("it needs too much memory") from None


def _fetched(cursor: sqlite3.Cursor) -> Iterator[tuple[Cell, ...]]:
    size = 0
    for count, row in enumerate(cursor):
        size += sum(len(cell) for cell in row if isinstance(cell, str | bytes)) + 8 * len(row)
        if count >= ROWS or size > BYTES:
            raise Failed("it returns too many rows")
        yield row


class _Budget:
    """Called by SQLite every so many instructions; a true result stops the query."""

    def __init__(self) -> None:
        self.spent, self.until, self.out_of_time = 0, time.monotonic() + SECONDS, False

    def __call__(self) -> bool:
        self.spent += _EVERY
        self.out_of_time = time.monotonic() > self.until
        return self.out_of_time or self.spent >= STEPS


@contextmanager
def _reading_only(connection: sqlite3.Connection, budget: _Budget) -> Iterator[None]:
    connection.set_progress_handler(budget, _EVERY)
    connection.set_authorizer(_may_read)
    try:
        yield
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)


def _may_read(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


# --- databases --------------------------------------------------------------------------------------------------------


@contextmanager
def opened(database: str, folder: Path | None, dialect: str) -> Iterator[sqlite3.Connection]:
    """A database by the path of its file (relative to ``folder``), or made in memory by SQL text in ``dialect``; raises
    `Undecided`."""
    script = is_script(database)
    connection = _from_script(database, dialect) if script else _from_file((folder or Path()) / database)
    with closing(connection):
        yield connection


def _from_file(path: Path) -> sqlite3.Connection:
    try:
        place = quote(str(path.absolute()))
        connection = sqlite3.connect(f"file:{place}?mode=ro&immutable=1", uri=True)
        _set_up(connection)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise Undecided(f"the database {path.name} cannot be read: {error}") from None
    return connection


def _from_script(script: str, dialect: str) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(_made(script, dialect))
    _set_up(connection)
    return connection


def _set_up(connection: sqlite3.Connection) -> None:
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LENGTH)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA hard_heap_limit = {MEMORY}")


@lru_cache(maxsize=64)
def _made(script: str, dialect: str) -> bytes:
    """The database that a script makes, as the bytes of its file."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.set_authorizer(_may_make)
        connection.set_progress_handler(_Budget(), _EVERY)
        try:
            connection.executescript(script)
        except sqlite3.Error as first:
            _make_translated(connection, script, dialect, first)
        connection.set_authorizer(None)
        return connection.serialize()


def _may_make(action: int, *_: object) -> int:
    """Anything but another file: VACUUM INTO counts as attaching one."""
    return sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH) else sqlite3.SQLITE_OK


def _make_translated(connection: sqlite3.Connection, script: str, dialect: str, first: sqlite3.Error) -> None:
    """Run a script in another dialect, translated statement by statement, in the database made anew."""
    import sqlglot

    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f'DROP TABLE IF EXISTS "{name}"')
        read, ignored = None if dialect == "sqlite" else dialect, sqlglot.ErrorLevel.IGNORE
        for statement in sqlglot.transpile(script, read=read, write="sqlite", unsupported_level=ignored):
            connection.execute(_SIZED.sub("INTEGER", statement))
    except (sqlite3.Error, sqlglot.errors.SqlglotError, RecursionError, ValueError):
        raise Undecided(f"the database's SQL cannot be run: {first}") from None


def has_rows(connection: sqlite3.Connection) -> bool:
    """Whether any table holds a row; raises `Undecided` where a table cannot be read."""
    try:
        firsts = (connection.execute(f"SELECT 1 FROM {_quoted(name)} LIMIT 1") for name in tables(connection))
        return any(first.fetchone() for first in firsts)
    except sqlite3.Error as error:
        raise Undecided(f"the database cannot be read: {error}") from None


def tables(connection: sqlite3.Connection) -> list[str]:
    """The names of the database's own tables."""
    named = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'")
    return [name for (name,) in named]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
