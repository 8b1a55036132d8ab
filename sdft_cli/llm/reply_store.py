"""What a teacher has answered, on disk before anything is done with it: ``data/.teacher/<task>.sqlite``.

Five tables, for a look by ``sqlite3 data/.teacher/science.sqlite`` while no run has it open:

    request   digest, body                                              what was asked, once
    response  id, digest, at, status, body                              every answer as it came, the failed ones too
    reply     digest, sample, text, finish, prompt_tokens, completion_tokens, response       what could be read of it
    batch     token, id, done, jobs                                     what was handed over in files (see `batch`)
    lack      teacher, parameter                                        what an endpoint was found not to take

A reply is found by the digest of what was asked of whom and by its sample's number, so the same question is never
paid for twice. Every addition is a transaction of its own: a killed process loses nothing that was added, a power cut
the last moments (the disk is told to write about once a second; at each addition, it would set the pace of a fast
endpoint). One process at a time: a second one is refused, for it would pay for the same questions.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm.types import Reply

VERSION = 1
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
CREATE TABLE IF NOT EXISTS lack (teacher TEXT NOT NULL, parameter TEXT NOT NULL, PRIMARY KEY (teacher, parameter));
"""


class Handed(NamedTuple):
    """A batch that was handed over: ``jobs`` maps its lines' names to (digest, samples).

    ``token`` is ours and known before the endpoint has named the batch; until then ``id`` is empty.
    """

    token: str
    id: str
    jobs: dict[str, tuple[str, list[int]]]


class Store:
    """An open store; close it, or use it in a ``with``. Raises `SdftError` where the disk will not take an addition."""

    def __init__(self, path: Path):
        self.path, self.synced = path, time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.base = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.base.close()

    def find(self, digest: str, sample: int) -> Reply | None:
        """The stored reply to sample number ``sample`` of a question, if there is one."""
        columns = "text, finish, prompt_tokens, completion_tokens"
        found = self.base.execute(f"SELECT {columns} FROM reply WHERE digest = ? AND sample = ?", (digest, sample))
        row = found.fetchone()
        return Reply(*row) if row else None

    def missing(self, digest: str, samples: Sequence[int]) -> list[int]:
        """Those of ``samples`` that no reply is stored for."""
        return [sample for sample in samples if self.find(digest, sample) is None]

    def replies(self, digest: str, samples: Sequence[int]) -> list[Reply] | None:
        """The replies to ``samples`` in their order; None unless all are stored."""
        found = [reply for sample in samples if (reply := self.find(digest, sample))]
        return found if len(found) == len(samples) else None

    def keep(self, digest: str, request: str, status: str, body: str, replies: Mapping[int, Reply]) -> None:
        """Store one answer as it came and, by sample number, the replies in it (none, if it is a fault)."""
        self.keep_all([(digest, request, status, body, replies)])

    def keep_all(self, answers: list[tuple[str, str, str, str, Mapping[int, Reply]]]) -> None:
        """Store several answers, all or none. A reply that is there already stays as it is."""
        with self._change():
            for answer in answers:
                self._add(*answer)
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.base.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.synced = time.monotonic()

    # --- what else is known of an endpoint ---------------------------------------------------------------------

    def lacking(self, teacher: dict[str, Any]) -> set[str]:
        """The parameters that this teacher does not take, as far as it is known."""
        found = self.base.execute("SELECT parameter FROM lack WHERE teacher = ?", (json.dumps(teacher),))
        return {name for (name,) in found.fetchall()}

    def note_lack(self, teacher: dict[str, Any], parameter: str) -> None:
        with self._change():
            row = (json.dumps(teacher), parameter)
            self.base.execute("INSERT INTO lack VALUES (?, ?) ON CONFLICT DO NOTHING", row)

    def hand_over(self, batch: Handed, requests: Mapping[str, str]) -> None:
        """Note a batch before it is handed over (``requests``: digest -> body), or again when it has its ``id``."""
        with self._change():
            rows = "INSERT INTO request VALUES (?, ?) ON CONFLICT DO NOTHING"
            self.base.executemany(rows, requests.items())
            row = (batch.token, batch.id, json.dumps(batch.jobs))
            self.base.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, 0, ?)", row)

    def handed(self) -> list[Handed]:
        """The batches whose answers are still to be fetched."""
        found = self.base.execute("SELECT token, id, jobs FROM batch WHERE NOT done ORDER BY rowid").fetchall()
        return [Handed(token, name, json.loads(jobs)) for token, name, jobs in found]

    def fetched(self, token: str) -> None:
        """All answers of a batch are stored, or it never came to be one."""
        with self._change():
            self.base.execute("UPDATE batch SET done = 1 WHERE token = ?", (token,))

    def asked(self, digest: str) -> dict[str, Any]:
        """The body of the request of that digest."""
        body: dict[str, Any] = json.loads(
            self.base.execute("SELECT body FROM request WHERE digest = ?", (digest,)).fetchone()[0]
        )
        return body

    # --- the file ----------------------------------------------------------------------------------------------

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction: whole, or not at all."""
        try:
            self.base.execute("BEGIN IMMEDIATE")
            yield
            self.base.execute("COMMIT")
        except sqlite3.Error as error:
            if self.base.in_transaction:
                self.base.execute("ROLLBACK")
            raise SdftError(f"cannot write {self.path}: {error}", "check the disk; what was stored is kept") from error

    def _add(self, digest: str, request: str, status: str, body: str, replies: Mapping[int, Reply]) -> None:
        self.base.execute("INSERT INTO request VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, request))
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        columns = "INSERT INTO response (digest, at, status, body) VALUES (?, ?, ?, ?)"
        number = self.base.execute(columns, (digest, at, status, body)).lastrowid
        rows = [
            (digest, sample, r.text, r.finish, r.prompt_tokens, r.completion_tokens, number)
            for sample, r in replies.items()
        ]
        self.base.executemany("INSERT INTO reply VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def _open(self) -> None:
        # The lock that keeps a second run out is SQLite's own: the system frees it when this process ends, however.
        self.base.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.base.execute("PRAGMA journal_mode = WAL")
        self.base.execute("PRAGMA synchronous = NORMAL")
        self.base.execute("BEGIN EXCLUSIVE")
        (version,) = self.base.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            self.base.close()
            raise UsageError(f"{self.path} was written by another version of sdft", "move it away to start anew")
        for statement in _TABLES.split(";"):
            self.base.execute(statement)
        self.base.execute(f"PRAGMA user_version = {VERSION}")
        self.base.execute("COMMIT")

    def _unusable(self, error: Exception) -> SdftError:
        if "locked" in str(error):
            return UsageError(f"{self.path} is in use by another process", "wait until that has ended, or stop it")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return UsageError(f"{self.path} is damaged or is no store: {error}", "move it away to start anew")
        return SdftError(f"cannot open {self.path}: {error}", "check the disk and the permissions")
