"""The SQLite file under a reply store: one process at a time, transactions, and a format version.

The version is the file's ``user_version``; its ``application_id`` says that it is a reply store. The tables:

    request       digest, body                        every request, once
    response      id, digest, at, status, body        every response as it came, failed ones included
    reply         digest, sample, text, finish, prompt_tokens, completion_tokens, response    what was read from them
    batch         token, id, done, jobs               requests submitted through a Batch API (`llm.batch_store`)
    unsupported   teacher, parameter                  parameters that an endpoint does not take (`llm.parameters`)

Versions:

    1   `unsupported` was called ``lack``; ``user_version`` is 0 or 1, and there is no ``application_id``
    2   the tables above

What is stored was paid for, so an older file is carried over when it is opened, whole or not at all; a newer one is
refused.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdft_cli.errors import SdftError, UsageError

VERSION = 2
APPLICATION_ID = 0x73646674  # "sdft"
SYNC_SECONDS = 1.0
_TABLES = """
CREATE TABLE IF NOT EXISTS request (digest TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS response (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL, at TEXT NOT NULL, status TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reply (
    digest TEXT NOT NULL, sample INTEGER NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, response INTEGER NOT NULL,
    PRIMARY KEY (digest, sample)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (token TEXT PRIMARY KEY, id TEXT NOT NULL, done INTEGER NOT NULL, jobs TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS unsupported (
    teacher TEXT NOT NULL, parameter TEXT NOT NULL, PRIMARY KEY (teacher, parameter));
"""

#: The types of our columns.
Value = str | int


class StoreInUse(UsageError):
    """Another process has the file open; it may be opened when that has ended."""


class StoreFile:
    """The file at ``path``, open; created if it does not exist, carried over if its version is older.

    Every change is a transaction of its own. A killed process loses nothing it has added; a power cut may lose the last
    second, since syncing the disk at every addition would slow down a fast endpoint.

    Raises `UsageError` for a file that is in use by another process, damaged, newer, or not a reply store, and
    `SdftError` if it cannot be opened.
    """

    def __init__(self, path: Path):
        self.path, self.synced_at = path, time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.base = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._cannot_open(error) from error

    def close(self) -> None:
        self.base.close()

    def select(self, query: str, *values: Value) -> list[tuple[Value, ...]]:
        return self.base.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Changes in this block are made together or not at all; `SdftError` if they cannot be written."""
        try:
            self.base.execute("BEGIN IMMEDIATE")
            yield self.base
            self.base.execute("COMMIT")
        except sqlite3.Error as error:
            if self.base.in_transaction:
                self.base.execute("ROLLBACK")
            raise SdftError(f"cannot write {self.path}: {error}", "check the disk; what was stored is kept") from error
        if time.monotonic() - self.synced_at > SYNC_SECONDS:
            self.base.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.synced_at = time.monotonic()

    def _open(self) -> None:
        # The lock that keeps a second process out is SQLite's own: the system releases it however this process ends.
        self.base.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.base.execute("PRAGMA journal_mode = WAL")
        self.base.execute("PRAGMA synchronous = NORMAL")
        self.base.execute("BEGIN EXCLUSIVE")
        try:
            self._carry_over()
        except BaseException:
            self.base.close()
            raise
        self.base.execute("COMMIT")

    def _carry_over(self) -> None:
        """Bring a new or older file to `VERSION`; refuse a newer one, and any other database."""
        ((version,),), ((application,),) = self.select("PRAGMA user_version"), self.select("PRAGMA application_id")
        tables = {name for (name,) in self.select("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if application not in (0, APPLICATION_ID) or (application == 0 and tables and "reply" not in tables):
            raise UsageError(f"{self.path} is a database but not a reply store", "move it away to start a new one")
        if int(version) > VERSION:
            raise UsageError(
                f"{self.path} has format version {version}, and this sdft reads versions up to {VERSION}",
                "update sdft; or move the file away and pay for its replies again",
            )
        if "lack" in tables:
            self.base.execute("ALTER TABLE lack RENAME TO unsupported")
        for statement in _TABLES.split(";"):
            self.base.execute(statement)
        self.base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.base.execute(f"PRAGMA user_version = {VERSION}")

    def _cannot_open(self, error: Exception) -> SdftError:
        if "locked" in str(error):
            return StoreInUse(f"{self.path} is in use by another process", "wait until that has ended, or stop it")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return UsageError(f"{self.path} is damaged or not a database: {error}", "move it away to start a new one")
        return SdftError(f"cannot open {self.path}: {error}", "check the disk and the permissions")
