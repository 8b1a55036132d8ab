"""Batch API of an endpoint: submit requests in files, collect the responses hours later, pay less.

`BatchJobs.submit` submits the requests whose replies are missing; `BatchJobs.collect` fetches the batches that have
ended and stores their responses like any others. A batch is saved before it is submitted, under a token that travels
with it: one that was submitted just before the process was killed is found again, and not paid for twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from sdft_cli.errors import GateError, SdftError
from sdft_cli.llm import batch_lines
from sdft_cli.llm.batch_store import BatchStore, SubmittedBatch
from sdft_cli.llm.budget import Prices
from sdft_cli.llm.http_client import HttpClient, endpoint_model_id, status_of
from sdft_cli.llm.parameters import SupportedParameters
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.recorder import Recorder
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.responses import PUT_OFF, ApiError
from sdft_cli.llm.retries import UNFINISHED_REPLIES
from sdft_cli.llm.types import Pending, Request, TeacherOptions, estimate_prompt_tokens

if TYPE_CHECKING:
    from openai.types import Batch

PATH: Final = "/v1/chat/completions"
#: Limits of one file, slightly below OpenAI's (50,000 requests, 200 MB).
MAX_LINES, MAX_BYTES = 50_000, 190_000_000
ENDED = ("completed", "failed", "expired", "cancelled", "canceled", "ended")
#: Statuses of a batch or file that is not there.
GONE = (404, 410)
#: A batch whose id we never learnt is looked for among this many of the newest.
NEWEST = 100


class _Line(NamedTuple):
    """One request in a file."""

    pending: Pending
    content: bytes


@dataclass
class Collected:
    """How many replies and errors were collected, a line for each unfinished batch, and a line for each problem."""

    replies: int = 0
    errors: int = 0
    unfinished: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class BatchJobs:
    """The batches of one reply store. Raises `SdftError` if the endpoint cannot be reached; nothing is lost then."""

    def __init__(self, options: TeacherOptions, store: ReplyStore, progress: Progress):
        self.options, self.store, self.batches = options, store, BatchStore(store.file)
        self.model_id = endpoint_model_id(options)
        self.client = HttpClient(options)
        self.client.need_key()
        self.parameters = SupportedParameters(store.file, self.model_id)
        self.recorder = Recorder(self.client, store, self.parameters, progress)

    def submit(self, requests: Sequence[Request]) -> list[str]:
        """Submit the requests that are in no open batch yet; returns the ids of the new batches."""
        lines = self._lines(requests)
        self._check_budget([line.pending.request for line in lines.values()])
        return [self._submit(part) for part in _parts(lines)]

    def collect(self) -> Collected:
        """Store the responses of all batches that have ended."""
        collected = Collected()
        for batch in self.batches.open():
            if self._collect(batch, collected):
                self.batches.close(batch.token)
        return collected

    # --- submitting --------------------------------------------------------------------------------------------

    def _lines(self, requests: Sequence[Request]) -> dict[str, _Line]:
        """A line, by its name, for every request with samples that are neither stored nor in an open batch."""
        jobs = [job for batch in self.batches.open() for job in batch.lines.values()]
        in_batches = {(digest, sample) for digest, samples in jobs for sample in samples}
        lines = {}
        for request in requests:
            digest = request.digest(self.model_id)
            missing = [s for s in self.store.missing(digest, request.samples) if (digest, s) not in in_batches]
            if missing:
                pending = Pending(digest, replace(request, samples=tuple(missing)))
                name = f"{digest[:40]}-{missing[0]}"
                body = {"model": self.options.model, **self.parameters.body(pending)}
                line = {"custom_id": name, "method": "POST", "url": PATH, "body": body}
                lines[name] = _Line(pending, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return lines

    def _submit(self, lines: dict[str, _Line]) -> str:
        """Submit one file of lines as a batch; returns its id."""
        content = b"".join(line.content for line in lines.values())
        token = hashlib.sha256(content).hexdigest()[:32]
        pending = {name: line.pending for name, line in lines.items()}
        batch = SubmittedBatch(token, "", {name: (p.digest, list(p.request.samples)) for name, p in pending.items()})
        self.batches.save(batch, {p.digest: json.dumps(p.request.body()) for p in pending.values()})
        try:
            name = self._create(content, token)
        except SdftError as error:
            if 400 <= status_of(error) < 500:  # it was not created, so that it may be submitted again
                self.batches.close(token)
            if status_of(error) in (404, 405, 501):
                error.hint = "this endpoint seems to have no Batch API: leave --batch out"
            raise
        self.batches.save(batch._replace(id=name), {})
        return name

    def _create(self, content: bytes, token: str) -> str:
        """Create the batch of a file at the endpoint; returns its id."""
        file = self.client.call(lambda client: client.files.create(file=("requests.jsonl", content), purpose="batch"))
        created = self.client.call(
            lambda client: client.batches.create(
                input_file_id=file.id, endpoint=PATH, completion_window="24h", metadata={"sdft": token}
            )
        )
        return created.id

    def _check_budget(self, requests: Sequence[Request]) -> None:
        most, prices = self.options.max_requests, Prices(self.options.price_in, self.options.price_out)
        if most is not None and len(requests) > most:
            raise GateError(
                f"{len(requests)} requests are more than --max-requests {most}", "raise it; nothing was sent"
            )
        worst = sum(prices.cost(estimate_prompt_tokens(r.messages), r.max_tokens * len(r.samples)) for r in requests)
        if self.options.max_cost is not None and worst > self.options.max_cost:
            raise GateError(
                f"{len(requests)} requests may cost {worst:.2f}, more than --max-cost {self.options.max_cost:g}",
                "raise it; nothing was sent",
            )

    # --- collecting --------------------------------------------------------------------------------------------

    def _collect(self, batch: SubmittedBatch, collected: Collected) -> bool:
        """Store the responses of a batch; False if it has not ended."""
        name = batch.id or self._find(batch.token)
        if name is None:
            return True  # it was never created
        try:
            info = self.client.call(lambda client: client.batches.retrieve(name))
        except SdftError as error:
            if status_of(error) not in GONE:
                raise
            collected.problems.append(f"{name} is not there any more: its requests can be submitted again")
            return True
        if info.status in ENDED:
            self._fetch(info, batch, collected)
            return True
        counts = info.request_counts
        done = f", {counts.completed} of {counts.total} done" if counts else ""
        collected.unfinished.append(f"{info.id} is {info.status}{done}")
        return False

    def _find(self, token: str) -> str | None:
        """The batch's id at the endpoint; None if it was never created."""
        newest = self.client.call(lambda client: client.batches.list(limit=NEWEST).data)
        return next((batch.id for batch in newest if (batch.metadata or {}).get("sdft") == token), None)

    def _fetch(self, info: Batch, batch: SubmittedBatch, collected: Collected) -> None:
        """Store every line in the files of an ended batch; what is wrong with a line is said, and stops no other."""
        put_off: list[tuple[ApiError, Pending]] = []
        for file in filter(None, (info.output_file_id, info.error_file_id)):
            if (data := self._content(file, collected)) is None:
                continue
            lines = batch_lines.read(data, batch.lines)
            collected.problems += [f"{file}: {problem}" for problem in lines.problems()]
            for line in lines.good:
                digest, samples = batch.lines[line.name]
                request = Request.from_body(self.batches.request_body(digest), tuple(samples))
                put_off += self._record(line, Pending(digest, request), collected)
        self._settle_put_off(put_off, collected)
        if info.status != "completed":
            collected.problems.append(f"{info.id} has {info.status}{batch_lines.reasons(info)}")

    def _content(self, file: str, collected: Collected) -> bytes | None:
        """A file's content; None, and a line for the user, if the endpoint has it no more."""
        try:
            return self.client.call(lambda client: client.files.content(file).content)
        except SdftError as error:
            if status_of(error) not in GONE:
                raise
            collected.problems.append(f"{file} is not there any more: its requests can be submitted again")
            return None

    def _record(
        self, line: batch_lines.BatchLine, pending: Pending, collected: Collected
    ) -> list[tuple[ApiError, Pending]]:
        """Store the response in one line of a file; returns an error whose words are unknown."""
        try:
            collected.replies += len(self.recorder.record(self.client.received(line.status, {}, line.body), pending))
        except ApiError as error:
            collected.errors += 1
            if error.remedy == PUT_OFF:
                return [(error, pending)]
            last = error.reply is not None and self.store.attempts(pending.digest) >= UNFINISHED_REPLIES
            try:
                self.recorder.settle(error, pending, last)
            except SdftError as fatal:  # the other lines may still be good
                collected.problems.append(fatal.message)
        return []

    def _settle_put_off(self, put_off: list[tuple[ApiError, Pending]], collected: Collected) -> None:
        """Leave out prompts that were refused in unknown words if others were answered; else the words are about all
        of them."""
        for error, pending in put_off:
            if collected.replies or self.recorder.has_answers():
                self.recorder.leave_out(error, pending)
            else:
                collected.problems.append(self.recorder.fatal(error).message)


def _parts(lines: dict[str, _Line]) -> Iterator[dict[str, _Line]]:
    """The lines of each file."""
    part: dict[str, _Line] = {}
    size = 0
    for name, line in lines.items():
        if part and (len(part) == MAX_LINES or size + len(line.content) > MAX_BYTES):
            yield part
            part, size = {}, 0
        part[name] = line
        size += len(line.content)
    if part:
        yield part
