"""An endpoint's Batch API: hand requests over in files, come back hours later, pay less.

``submit`` hands over what is missing of every prompt's next samples, ``collect`` fetches what is done and stores it
like any other answer. A batch is noted before it is handed over, under a token that travels with it, so one that was
handed over when we were killed is found again and not paid for twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sdft_cli.errors import GateError, SdftError
from sdft_cli.llm.api_key import missing_key, redacted
from sdft_cli.llm.budget import Prices
from sdft_cli.llm.endpoint import GO_ON, OPENAI, Endpoint, url_of
from sdft_cli.llm.reply_store import Handed, Store
from sdft_cli.llm.responses import Fault
from sdft_cli.llm.types import Request, TeacherOptions, prompt_tokens
from sdft_cli.llm.usage import Tally

if TYPE_CHECKING:
    from openai import OpenAI

PATH = "/v1/chat/completions"
#: What one file may hold, a little below what OpenAI allows (50,000 requests, 200 MB).
MOST_LINES, MOST_BYTES = 50_000, 190_000_000
ENDED = ("completed", "failed", "expired", "cancelled")
#: Among so many of the newest batches one is looked for whose id we never learnt.
NEWEST = 100


class _Line(NamedTuple):
    """One request in a file; ``request`` asks for the samples that are missing."""

    digest: str
    request: Request
    content: bytes


@dataclass
class Collected:
    """What a visit brought: ``replies`` and ``faults`` of batches that have ended, a line for each that has not."""

    replies: int = 0
    faults: int = 0
    waiting: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class BatchJobs:
    """The batches of one store. Raises `SdftError` where the endpoint cannot be had; nothing is lost by that."""

    def __init__(self, options: TeacherOptions, store: Store, tally: Tally):
        self.options, self.store = options, store
        self.endpoint = Endpoint(options, store, tally)
        if not self.endpoint.key and self.endpoint.where == OPENAI:
            raise missing_key(options.api_key_env)

    def submit(self, requests: Sequence[Request]) -> list[str]:
        """Hand over the requests that no batch holds yet; the names of the batches that they are in."""
        jobs = [job for batch in self.store.handed() for job in batch.jobs.values()]
        lines = self._lines(requests, {(digest, sample) for digest, samples in jobs for sample in samples})
        self._check_budget([line.request for line in lines.values()])
        return [self._hand_over(part) for part in _parts(lines)]

    def collect(self) -> Collected:
        """Store the answers of all batches that have ended."""
        found = Collected()
        for batch in self.store.handed():
            if name := batch.id or self._find(batch.token):
                info = self._call(lambda client, name=name: client.batches.retrieve(name))  # type: ignore[misc]
                if info.status not in ENDED:
                    counts = info.request_counts
                    done = f", {counts.completed} of {counts.total} done" if counts else ""
                    found.waiting.append(f"{info.id} is {info.status}{done}")
                    continue
                self._fetch(info, batch, found)
            self.store.fetched(batch.token)
        return found

    # --- out ---------------------------------------------------------------------------------------------------

    def _lines(self, requests: Sequence[Request], held: set[tuple[str, int]]) -> dict[str, _Line]:
        """What is neither stored nor held by a batch, by a name for each line."""
        lines = {}
        for request in requests:
            digest = request.digest(self.endpoint.named)
            missing = [s for s in self.store.missing(digest, request.samples) if (digest, s) not in held]
            if missing:
                body = {"model": self.options.model, **self.endpoint.body(request, digest, missing)}
                name = f"{digest[:40]}-{missing[0]}"
                line = {"custom_id": name, "method": "POST", "url": PATH, "body": body}
                content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                lines[name] = _Line(digest, replace(request, samples=tuple(missing)), content)
        return lines

    def _hand_over(self, lines: dict[str, _Line]) -> str:
        content = b"".join(line.content for line in lines.values())
        token = hashlib.sha256(content).hexdigest()[:32]
        jobs = {name: (line.digest, list(line.request.samples)) for name, line in lines.items()}
        bodies = {line.digest: json.dumps(line.request.body()) for line in lines.values()}
        self.store.hand_over(Handed(token, "", jobs), bodies)
        file = self._call(lambda client: client.files.create(file=("requests.jsonl", content), purpose="batch"))
        more: dict[str, Any] = {"endpoint": PATH, "completion_window": "24h", "metadata": {"sdft": token}}
        made = self._call(lambda client: client.batches.create(input_file_id=file.id, **more))
        self.store.hand_over(Handed(token, made.id, jobs), {})
        return str(made.id)

    def _check_budget(self, requests: Sequence[Request]) -> None:
        most, prices = self.options.max_requests, Prices(self.options.price_in, self.options.price_out)
        if most is not None and len(requests) > most:
            raise GateError(
                f"{len(requests)} requests are more than --max-requests {most}", "raise it; nothing was sent"
            )
        worst = sum(prices.cost(prompt_tokens(r.messages), r.max_tokens * len(r.samples)) for r in requests)
        if self.options.max_cost is not None and worst > self.options.max_cost:
            raise GateError(
                f"{len(requests)} requests may cost {worst:.2f}, more than --max-cost {self.options.max_cost:g}",
                "raise it; nothing was sent",
            )

    # --- in ----------------------------------------------------------------------------------------------------

    def _find(self, token: str) -> str | None:
        """The batch's name at the endpoint; None where it was never handed over."""
        newest = self._call(lambda client: client.batches.list(limit=NEWEST).data)
        return next((batch.id for batch in newest if (batch.metadata or {}).get("sdft") == token), None)

    def _fetch(self, info: Any, batch: Handed, found: Collected) -> None:
        """Store every line of an ended batch's files of answers."""
        for file in filter(None, (info.output_file_id, info.error_file_id)):
            text = self._call(lambda client, file=file: client.files.content(file).text)  # type: ignore[misc]
            for line in filter(str.strip, text.split("\n")):
                said = json.loads(line)
                if job := batch.jobs.get(said.get("custom_id")):
                    self._take(said, job[0], list(job[1]), found)
        if info.status != "completed":
            found.errors.append(f"{info.id} has {info.status}")

    def _take(self, said: dict[str, Any], digest: str, group: list[int], found: Collected) -> None:
        response, error = said.get("response") or {}, said.get("error")
        status = int(response.get("status_code") or 0)
        body = json.dumps(response["body"]) if response.get("body") else json.dumps({"error": error})
        answer = self.endpoint.seen(status if status or not error else 500, {}, body)
        request = Request.of(self.store.asked(digest), tuple(group))
        try:
            found.replies += len(self.endpoint.take(answer, request, digest, group))
        except Fault as fault:
            found.faults += 1
            try:
                self.endpoint.settled(fault, request, digest, group)
            except SdftError as fatal:  # the other lines are none the worse for it
                found.errors.append(fatal.message)

    def _call(self, action: Callable[[OpenAI], Any]) -> Any:
        """One call; nothing is repeated unseen, for a batch that is made twice is paid for twice."""
        import openai

        key, url = self.endpoint.key or "none", url_of(self.options)
        try:
            with openai.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=self.options.timeout) as client:
                return action(client)
        except openai.OpenAIError as error:
            what = redacted(" ".join(str(error).split())[:300], self.endpoint.key, guess=True)
            raise SdftError(f"{self.endpoint.where}: {what}", GO_ON) from error


def _parts(lines: dict[str, _Line]) -> Iterator[dict[str, _Line]]:
    """Lines for one file each."""
    part: dict[str, _Line] = {}
    size = 0
    for name, line in lines.items():
        if part and (len(part) == MOST_LINES or size + len(line.content) > MOST_BYTES):
            yield part
            part, size = {}, 0
        part[name] = line
        size += len(line.content)
    if part:
        yield part
