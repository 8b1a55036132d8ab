"""Reply store: what a model has replied, on disk before anything is done with it; ``data/.teacher/<task>.sqlite``.

A reply is found by the digest of model and request and by the number of its sample, so the same request is never paid
for twice. For its tables and its format version see `llm.store_file`; to look at it while no run has it open::

    sqlite3 data/.teacher/science.sqlite
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sdft_cli.llm.store_file import StoreFile
from sdft_cli.llm.types import REFUSED, STOP, THOUGHT, UNFINISHED, Reply, ending


class StoredResponse(NamedTuple):
    """A response as it came, the request's body (JSON), and the replies in it by sample number (none for an error)."""

    digest: str
    request: str
    status: str
    body: str
    replies: Mapping[int, Reply]


class ReplyStore:
    """An open store; use it in a ``with``, or close it. One process at a time, since a second one would pay twice.

    Raises as `StoreFile` does.
    """

    def __init__(self, path: Path):
        self.file = StoreFile(path)

    def __enter__(self) -> ReplyStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    def find(self, digest: str, sample: int) -> Reply | None:
        """The stored reply to sample number ``sample`` of a request, if there is one."""
        columns = "text, finish, prompt_tokens, completion_tokens"
        rows = self.file.select(f"SELECT {columns} FROM reply WHERE digest = ? AND sample = ?", digest, sample)
        for text, finish, read, written in rows:
            return Reply(str(text), _ending(str(finish)), int(read), int(written))
        return None

    def has_answers(self) -> bool:
        """Whether any reply is an answer in words."""
        return bool(self.file.select("SELECT 1 FROM reply WHERE finish = ? AND trim(text) <> '' LIMIT 1", STOP))

    def attempts(self, digest: str) -> int:
        """How many responses to a request there were."""
        ((count,),) = self.file.select("SELECT count(*) FROM response WHERE digest = ?", digest)
        return int(count)

    def refused_alone(self, digest: str, times: int) -> bool:
        """Whether a request was refused (status 4xx), and others were answered since; or it was refused so many times,
        and others were answered at all."""
        query = "SELECT count(*), coalesce(min(id), 0) FROM response WHERE digest = ? AND status LIKE '4__'"
        ((count, first),) = self.file.select(query, digest)
        since = 0 if int(count) >= times else int(first)
        return bool(self.file.select("SELECT 1 FROM response WHERE id > ? AND status = '200' LIMIT 1", since))

    def fails_alone(self, digest: str, times: int) -> bool:
        """Whether a request got at least so many internal errors of the server (status 500), which has answered others
        since the first of them."""
        query = "SELECT count(*), coalesce(min(id), 0) FROM response WHERE digest = ? AND status = '500'"
        ((count, first),) = self.file.select(query, digest)
        return int(count) >= times and bool(
            self.file.select("SELECT 1 FROM response WHERE id > ? AND status = '200' LIMIT 1", first)
        )

    def missing(self, digest: str, samples: Sequence[int]) -> list[int]:
        """Those of ``samples`` without a stored reply."""
        return [sample for sample in samples if self.find(digest, sample) is None]

    def replies(self, digest: str, samples: Sequence[int]) -> list[Reply] | None:
        """The replies to ``samples`` in their order; None unless all are stored."""
        replies = [reply for sample in samples if (reply := self.find(digest, sample))]
        return replies if len(replies) == len(samples) else None

    def add(self, *responses: StoredResponse) -> None:
        """Store the responses, all or none. A reply that is there already is kept."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self.file.transaction() as base:
            for digest, request, status, body, replies in responses:
                base.execute("INSERT INTO request VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, request))
                query = "INSERT INTO response (digest, at, status, body) VALUES (?, ?, ?, ?)"
                number = base.execute(query, (digest, at, status, body)).lastrowid
                rows = [
                    (digest, sample, r.text, r.finish, r.prompt_tokens, r.completion_tokens, number)
                    for sample, r in replies.items()
                ]
                base.executemany("INSERT INTO reply VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


def _ending(finish: str) -> str:
    """The ending of a stored reply; older stores have the servers' own words."""
    return finish if finish in (STOP, REFUSED, UNFINISHED, THOUGHT) else ending(finish)
