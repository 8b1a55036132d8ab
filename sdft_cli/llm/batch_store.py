"""Batches that were submitted to a Batch API, in the same file as the replies: nothing is submitted, or paid, twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from sdft_cli.llm.store_file import StoreFile
from sdft_cli.types import Json


class SubmittedBatch(NamedTuple):
    """A batch that was submitted: ``lines`` maps the name of each line to the digest and samples of its request.

    ``token`` is ours, and known before the endpoint names the batch; until then ``id`` is empty.
    """

    token: str
    id: str
    lines: dict[str, tuple[str, list[int]]]


class BatchStore:
    """The batches in the file of a reply store."""

    def __init__(self, file: StoreFile):
        self.file = file

    def save(self, batch: SubmittedBatch, requests: Mapping[str, str]) -> None:
        """Save a batch before it is submitted (``requests``: digest -> body), and again when it has its ``id``."""
        with self.file.transaction() as base:
            query = "INSERT INTO request VALUES (?, ?) ON CONFLICT DO NOTHING"
            base.executemany(query, requests.items())
            row = (batch.token, batch.id, json.dumps(batch.lines))
            base.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, 0, ?)", row)

    def open(self) -> list[SubmittedBatch]:
        """The batches whose responses have not been collected yet."""
        rows = self.file.select("SELECT token, id, jobs FROM batch WHERE NOT done ORDER BY rowid")
        return [SubmittedBatch(str(token), str(name), json.loads(str(lines))) for token, name, lines in rows]

    def close(self, token: str) -> None:
        """All responses of a batch are stored, or it was never created."""
        with self.file.transaction() as base:
            base.execute("UPDATE batch SET done = 1 WHERE token = ?", (token,))

    def request_body(self, digest: str) -> dict[str, Json]:
        """The body of the request with that digest."""
        ((body,),) = self.file.select("SELECT body FROM request WHERE digest = ?", digest)
        request: dict[str, Json] = json.loads(str(body))
        return request
