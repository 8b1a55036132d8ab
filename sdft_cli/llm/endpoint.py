"""A model behind an OpenAI-compatible endpoint: many prompts at once, every response stored before it is used.

One request passes, in this order: `llm.reply_store` (is the reply there already?), `llm.retries`, `llm.probation`,
`llm.rate_limit`, `llm.budget`, `llm.http_client`, `llm.recorder`. What was requested is checked, not assumed: if a
server ignores ``n``, samples are requested one by one; text beyond a stop is cut off; missing log-probabilities are an
error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

from sdft_cli.llm import responses
from sdft_cli.llm.budget import Budget
from sdft_cli.llm.http_client import HttpClient, endpoint_model_id
from sdft_cli.llm.parameters import SupportedParameters, change_text, changed
from sdft_cli.llm.probation import Probation
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.rate_limit import Clock, RateLimiter, WallClock
from sdft_cli.llm.recorder import Recorder
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.responses import ApiError
from sdft_cli.llm.retries import Retries
from sdft_cli.llm.types import (
    Callback,
    Exchange,
    Pending,
    PromptResult,
    Reply,
    Request,
    TeacherOptions,
    estimate_prompt_tokens,
)
from sdft_cli.llm.worker_pool import WorkerPool
from sdft_cli.types import Json

#: Pauses of at least this many seconds are reported.
LONG_PAUSE = 10.0


class EndpointModel:
    """See `language_model.LanguageModel`. ``clock`` is for tests."""

    def __init__(self, options: TeacherOptions, store: ReplyStore, progress: Progress, clock: Clock | None = None):
        clock = clock or WallClock()
        self.store, self.progress = store, progress
        self.model_id = endpoint_model_id(options)
        self.client = HttpClient(options)
        self.parameters = SupportedParameters(store.file, self.model_id)
        self.recorder, self.probation = Recorder(self.client, store, self.parameters, progress), Probation()
        self.retries = Retries(self.client, self.recorder, clock, self.probation)
        self.limiter, self.budget = RateLimiter(options, clock), Budget(options)
        self.workers = WorkerPool(options.concurrency, progress)
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: The most tokens of one sample so far: some servers bill thinking beyond ``max_tokens``.
        self.most_written = 0

    @property
    def left_out(self) -> list[str]:
        """See `language_model.LanguageModel`."""
        return self.parameters.left_out

    def run(self, exchanges: Sequence[Exchange], on_finished: Callback) -> list[PromptResult]:
        """See `language_model.LanguageModel`.

        Before an error or an interrupt ends the run, replies under way are stored. Raises `GateError` if the budget is
        used up, `UsageError` if the endpoint refuses the request as such, and `SdftError` if it is down or some prompts
        got no reply.
        """
        for parameter in self.left_out:
            self.progress.note_once(change_text(parameter))
        return asyncio.run(self._run(exchanges, on_finished)) if exchanges else []

    async def _run(self, exchanges: Sequence[Exchange], on_finished: Callback) -> list[PromptResult]:
        async with self.client.connected():
            return await self.workers.run(exchanges, self._replies, on_finished)

    async def _replies(self, request: Request) -> list[Reply]:
        """The replies to all samples of ``request``: the stored ones, and those that are missing from the server."""
        digest = request.digest(self.model_id)
        async with self.locks.setdefault(digest, asyncio.Lock()):  # equal requests of several rows are paid for once
            missing = self.store.missing(digest, request.samples)
            self.progress.usage.stored += len(request.samples) - len(missing)
            if missing:
                self.client.need_key()
                if name := self.client.not_set:
                    self.progress.note_once(f"{name} is not set: requests go out without a key")
            while missing:
                samples = missing if self.parameters.supports("n") else missing[:1]
                pending = Pending(digest, replace(request, samples=tuple(samples)))
                await self.retries.until_settled(pending, partial(self._send, pending))
                missing = self.store.missing(digest, request.samples)
        return self.store.replies(digest, request.samples) or []

    async def _send(self, pending: Pending, attempt: int) -> list[Reply]:
        """Send a request once and store the response; raises the `ApiError` that it is, if it is one."""
        self.workers.check_open()
        async with self._admitted(pending.request) as admission:
            self.workers.check_open()
            body = self.parameters.body(pending)
            response = await self.client.post(body)
            try:
                replies = self.recorder.record(response, pending)
            except ApiError as error:
                self._fail(admission, error, body, attempt)
                raise
            self._succeed(admission, pending.request, replies)
            return replies

    def _fail(self, admission: _Admission, error: ApiError, body: dict[str, Json], attempt: int) -> None:
        admission.cost = admission.worst_cost if error.paid else 0.0
        if error.reply is not None and not error.reply.estimated:
            self.progress.replied([error.reply])
            admission.cost = self.budget.prices.cost(error.reply.prompt_tokens, error.reply.completion_tokens)
        if error.remedy == responses.SLOW_DOWN:
            self._slow_down(admission, error, attempt)
        if error.remedy == responses.DROP_PARAMETER and changed(body, error.parameter) == body:
            error.remedy, error.about = responses.ABORT, f"it refuses what it was asked for: {error.parameter}"

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[_Admission]:
        """Wait until rate limits and budget admit the request; at the end, what it has cost is settled."""
        most = max(request.max_tokens, self.most_written) * len(request.samples)
        read, written = estimate_prompt_tokens(request.messages), most
        async with self.probation.place(), self.limiter.place() as entered:
            admission = _Admission(entered, await self.budget.reserve(read, written), read + written)
            try:
                await self.limiter.turn(admission.tokens)
                with self.workers.sending():
                    self.progress.usage.requests += 1
                    yield admission
            finally:
                await self.budget.settle(admission.worst_cost, admission.cost)
                self.progress.usage.cost = self.budget.cost if self.budget.prices.known else None

    def _succeed(self, admission: _Admission, request: Request, replies: list[Reply]) -> None:
        read, written = (sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies))
        admission.cost = self.budget.prices.cost(read, written)
        self.limiter.succeeded(admission.entered, admission.tokens - read - written)
        self.most_written = max(self.most_written, -(-written // max(1, len(replies))))
        if written > request.max_tokens * len(replies):
            self.progress.note_once(
                "the endpoint writes more than max_tokens: requests under way may exceed --max-cost"
            )

    def _slow_down(self, admission: _Admission, error: ApiError, attempt: int) -> None:
        pause = self.retries.pause(error, attempt)
        self.limiter.overloaded(admission.entered, pause)
        if pause >= LONG_PAUSE:
            self.progress.note(f"the endpoint asks for a pause of {pause:.0f} s ({error.what})")


@dataclass
class _Admission:
    """A request that may be sent: when it entered, its worst cost, its most tokens, and what it has cost."""

    entered: float
    worst_cost: float
    tokens: int
    cost: float = 0.0
