"""A teacher behind any OpenAI-compatible endpoint: many prompts at once, every answer stored before it is used.

The client's own retries are off (``max_retries=0``): they can pay twice unseen and give up on a long Retry-After.
Ours asks again after 429, 5xx, a time-out, a lost connection, broken JSON and empty text, waits as long as the server
wants, and stops at once at any other 4xx. What was asked for is checked, not assumed: a server that ignores ``n`` is
asked one by one, text beyond a stop is cut off, missing log-probabilities are an error.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm import responses
from sdft_cli.llm.api_key import missing_key, read_key, redacted, without_secrets
from sdft_cli.llm.budget import Budget
from sdft_cli.llm.rate_limit import Clock, Pace, WallClock, Window, backoff
from sdft_cli.llm.reply_store import Store
from sdft_cli.llm.responses import Fault
from sdft_cli.llm.types import REFUSED, Outcome, Pursuit, Reply, Request, TeacherOptions, Told, prompt_tokens, step
from sdft_cli.llm.usage import Tally

OPENAI = "https://api.openai.com/v1"
#: So often a request is sent before its prompt is given up for this run.
ATTEMPTS = 10
#: So often, while it has not answered at all: a wrong address is more likely than a pause.
FIRST_ATTEMPTS = 4
#: So many prompts given up without one reply in between mean that the endpoint is down.
GIVEN_UP_IN_A_ROW = 3
#: A person is told of pauses from so many seconds on.
LONG_PAUSE = 10.0
GO_ON = "every reply is stored: the same command goes on from there"


class HttpReply(NamedTuple):
    """A server's answer as it came, but for the key. A ``status`` of 0: there was none, and ``body`` says why."""

    status: int
    headers: Mapping[str, str]
    body: str


class _GivenUp(Exception):
    """One prompt got no reply in `ATTEMPTS` attempts; the others go on."""


class _Ending(Exception):
    """The run is ending: nothing new is sent."""


def named(options: TeacherOptions) -> dict[str, Any]:
    """See `types.LanguageModel`; asks neither for a key nor for the network."""
    return {"model": options.model, "base_url": without_secrets(url_of(options))}


def url_of(options: TeacherOptions) -> str:
    """The address as the user gave it, secrets and all."""
    return options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI


class Endpoint:
    """See `types.LanguageModel`. ``clock`` is for tests."""

    def __init__(self, options: TeacherOptions, store: Store, tally: Tally, clock: Clock | None = None):
        self.options, self.store, self.tally = options, store, tally
        self.named = named(options)
        self.where: str = self.named["base_url"]
        self.key = read_key(options.api_key_env, options.api_key_file)
        self.clock, self.draw = clock or WallClock(), random.Random()
        self.window, self.budget = Window(options.concurrency, self.clock), Budget(options)
        self.requests, self.tokens = Pace(options.rpm, self.clock), Pace(options.tpm, self.clock)
        self.without = store.lacking(self.named)  # parameters that this server does not take
        self.in_flight: set[asyncio.Task[Any] | None] = set()
        self.alone: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.ending = self.reached = False
        self.given_up = 0

    # --- many pursuits at once ------------------------------------------------------------------------------

    def run(self, pursuits: Sequence[Pursuit], told: Told) -> list[Outcome]:
        """See `types.LanguageModel`. Before an error or interrupt ends the run, replies in flight are stored.

        Raises `GateError` where the budget is used up, `UsageError` where the endpoint refuses the request as such,
        and `SdftError` where it is down or some prompts got no reply.
        """
        return asyncio.run(self._run(pursuits, told)) if pursuits else []

    async def _run(self, pursuits: Sequence[Pursuit], told: Told) -> list[Outcome]:
        from openai import AsyncOpenAI

        outcomes: list[Outcome | None] = [None] * len(pursuits)
        todo, failed, self.ending = iter(enumerate(pursuits)), list[str](), False
        timeout = self.options.timeout
        url, key = url_of(self.options), self.key or "none"  # the client wants one, even where the endpoint does not
        async with AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=timeout) as self.client:
            count = min(self.options.concurrency, len(pursuits))
            workers = [asyncio.create_task(self._work(todo, outcomes, failed, told)) for _ in range(count)]
            try:
                await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                await self._let_arrive(workers)
        _raise_first(workers)
        if failed:
            raise SdftError(f"{len(failed)} of {len(pursuits)} prompts got no reply; the last: {failed[-1]}", GO_ON)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _work(
        self, todo: Iterator[tuple[int, Pursuit]], outcomes: list[Outcome | None], failed: list[str], told: Told
    ) -> None:
        """Take one pursuit after the other to its end."""
        for i, pursuit in todo:
            try:
                outcome = outcomes[i] = await self._pursue(pursuit)
            except _GivenUp as given_up:
                failed.append(str(given_up))
            except BaseException:
                self.ending = True  # now, before others have another turn
                raise
            else:
                told(outcome)

    async def _pursue(self, pursuit: Pursuit) -> Outcome:
        at = step(pursuit, None)
        while isinstance(at, Request):
            at = step(pursuit, await self.ask(at))
        return at

    async def _let_arrive(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """End the workers: who only waits at once, whose request is out when its answer is stored."""
        self.ending = True
        for worker in workers:
            if worker not in self.in_flight:
                worker.cancel()
        if self.in_flight:
            self.tally.say(f"waiting for {len(self.in_flight)} answers that are on their way; {GO_ON}")
        await asyncio.wait(workers)
        for worker in workers:
            if not worker.cancelled():
                worker.exception()  # seen: asyncio need not say so

    # --- one request ----------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> list[Reply]:
        """The replies to all samples of ``request``: the stored ones, and from the server those that are missing."""
        digest = request.digest(self.named)
        async with self.alone.setdefault(digest, asyncio.Lock()):  # rows that ask the same thing pay for it once
            missing = self.store.missing(digest, request.samples)
            self.tally.stored += len(request.samples) - len(missing)
            if missing and not self.key and self.where == OPENAI:
                raise missing_key(self.options.api_key_env)
            while missing:
                group = missing[:1] if "n" in self.without else missing
                await self._until_answered(request, digest, group)
                missing = self.store.missing(digest, request.samples)
        return self.store.replies(digest, request.samples) or []

    async def _until_answered(self, request: Request, digest: str, group: list[int]) -> None:
        """Ask until at least one reply for ``group`` (numbers of samples) is stored."""
        for attempt in range(1, ATTEMPTS + 1):
            if self.ending:
                raise _Ending
            try:
                await self._once(request, digest, group, attempt)
                self.given_up = 0
                return
            except Fault as fault:
                if not self.reached and attempt >= FIRST_ATTEMPTS:
                    raise UsageError(f"{self.where} does not answer: {fault.what}", "check --base-url") from fault
                if self.settled(fault, request, digest, group, last=attempt == ATTEMPTS):
                    return
                if fault.todo == responses.AGAIN:
                    await self.clock.sleep(self._pause(fault, attempt))

    def settled(self, fault: Fault, request: Request, digest: str, group: list[int], last: bool = False) -> bool:
        """Whether the fault is an answer after all: this prompt is refused, or nothing is said, time after time.

        False if it is to be asked again; raises where that makes no sense.
        """
        self.tally.faults += 1
        if fault.todo == responses.FATAL:
            raise _fatal(self.where, fault)
        if fault.todo == responses.WITHOUT:
            self._do_without(fault.parameter, f"the endpoint does not take {fault.parameter}; going on without it")
        elif fault.todo == responses.NEVER or (last and fault.what == responses.EMPTY):
            reply = Reply(fault.what, REFUSED) if fault.todo == responses.NEVER else Reply("")
            self.store.keep(digest, json.dumps(request.body()), "settled", fault.what, dict.fromkeys(group, reply))
            return True
        elif last:
            self._give_up(fault)
        else:
            self.tally.remark(f"asking again after: {fault.what}", about=fault.kind)
        return False

    def _give_up(self, fault: Fault) -> None:
        self.given_up += 1
        if self.given_up >= GIVEN_UP_IN_A_ROW:
            raise SdftError(f"{self.where} is down, {ATTEMPTS} attempts each for several prompts: {fault.what}", GO_ON)
        raise _GivenUp(fault.what)

    async def _once(self, request: Request, digest: str, group: list[int], attempt: int) -> None:
        """Send one request and store the answer; raises the `Fault` that it is, if it is one."""
        async with self._turn(request, group) as turn:
            body = self.body(request, digest, group)
            answer = await self._post(body)
            try:
                said = self.take(answer, request, digest, group)
            except Fault as fault:
                turn.cost = turn.worst if fault.paid else 0.0
                if fault.todo == responses.SLOWER:
                    self._slow_down(turn.entered, fault, attempt)
                if fault.todo == responses.WITHOUT and fault.parameter not in body:
                    fault.todo = responses.FATAL
                raise
            self._count(turn, request, said)

    def take(self, answer: HttpReply, request: Request, digest: str, group: list[int]) -> list[Reply]:
        """Store an answer, and the replies in it by their samples' numbers; raises the `Fault` that it is instead."""
        body, status = json.dumps(request.body()), str(answer.status) if answer.status else "none"
        try:
            replies = _read(answer, request, len(group))
        except Fault:
            self.store.keep(digest, body, status, answer.body, {})
            raise
        said = {sample: reply for sample, reply in zip(group, replies, strict=False) if reply}
        self.store.keep(digest, body, status, answer.body, said)
        if len(replies) < len(group):
            self._do_without("n", "the endpoint ignores n; asking for one sample at a time")
        self.tally.written(list(said.values()))
        return list(said.values())

    def _do_without(self, parameter: str, remark: str) -> None:
        self.without.add(parameter)
        self.store.note_lack(self.named, parameter)
        self.tally.remark(remark)

    @asynccontextmanager
    async def _turn(self, request: Request, group: list[int]) -> AsyncIterator[_Turn]:
        """One's turn by window, budget and pace; on leaving, what the request has cost is settled."""
        read, written = prompt_tokens(request.messages), request.max_tokens * len(group)
        entered = await self.window.enter()
        try:
            turn = _Turn(entered, await self.budget.reserve(read, written), read + written)
            try:
                await self.requests.take()
                await self.tokens.take(turn.tokens)
                if self.ending:
                    raise _Ending
                self.in_flight.add(asyncio.current_task())
                self.tally.requests += 1
                yield turn
            finally:
                self.in_flight.discard(asyncio.current_task())
                await self.budget.settle(turn.worst, turn.cost)
                self.tally.cost = self.budget.cost if self.budget.prices.known else None
        finally:
            await self.window.leave()

    def _count(self, turn: _Turn, request: Request, replies: list[Reply]) -> None:
        read, written = (sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies))
        turn.cost = self.budget.prices.cost(read, written)
        self.tokens.give_back(turn.tokens - read - written)
        self.window.bore(turn.entered)
        if written > request.max_tokens * len(replies):
            self.tally.remark("the endpoint writes more than max_tokens; --max-cost may be passed by what is in flight")

    def _slow_down(self, entered: float, fault: Fault, attempt: int) -> None:
        pause = self._pause(fault, attempt)
        self.window.overloaded(entered, pause)
        if pause >= LONG_PAUSE:
            self.tally.say(f"the endpoint wants a pause of {pause:.0f} s ({fault.what})")

    def _pause(self, fault: Fault, attempt: int) -> float:
        """Seconds: what the server wants, else ever more."""
        return backoff(attempt, self.draw) if fault.wait is None else fault.wait

    # --- the wire -------------------------------------------------------------------------------------------

    def body(self, request: Request, digest: str, group: list[int]) -> dict[str, Any]:
        """What goes over the wire. The seed belongs to prompt and sample, so an answer lost on its way comes again."""
        body = request.body()
        if "max_tokens" in self.without:
            body["max_completion_tokens"] = body.pop("max_tokens")
        if "seed" not in self.without:
            body.setdefault("seed", int(digest[:7], 16) + group[0])
        if len(group) > 1 and "n" not in self.without:
            body["n"] = len(group)
        return body

    async def _post(self, body: dict[str, Any]) -> HttpReply:
        import openai

        try:
            async with asyncio.timeout(self.options.timeout):  # the client's own is for each part of an answer
                completions = self.client.chat.completions.with_raw_response
                raw = await completions.create(model=self.options.model, messages=[], extra_body=body)
                return self.seen(raw.status_code, raw.headers, raw.text)
        except openai.APIStatusError as error:
            return self.seen(error.status_code, error.response.headers, error.response.text)
        except (TimeoutError, openai.APITimeoutError):
            return HttpReply(0, {}, f"no answer within {self.options.timeout:g} s")
        except openai.APIConnectionError as error:
            return self.seen(0, {}, f"no connection: {error.__cause__ or error}")

    def seen(self, status: int, headers: Mapping[str, str], body: str) -> HttpReply:
        """The answer without the key, should the server have echoed it; an error without what looks like one, too."""
        self.reached = self.reached or status > 0
        return HttpReply(status, headers, redacted(body, self.key, guess=status != 200))


class _Turn:
    """One request's place: when it entered the window, what it may cost at most, and what it has cost."""

    def __init__(self, entered: float, worst: float, tokens: int):
        self.entered, self.worst, self.tokens, self.cost = entered, worst, tokens, 0.0


def _read(answer: HttpReply, request: Request, wanted: int) -> list[Reply | None]:
    if answer.status == 200:
        return responses.read(answer.body, request, wanted)
    if answer.status == 0:
        raise Fault(answer.body, paid=True)
    raise responses.fault_of(answer.status, answer.headers, answer.body)


def _fatal(where: str, fault: Fault) -> SdftError:
    """The one clear error for a fault that no repetition mends."""
    hints = {
        "status 401": "check the key: --api-key-env NAME or --api-key-file FILE",
        "status 403": "check the key and what it is allowed: --api-key-env NAME or --api-key-file FILE",
        "status 404": "check --base-url (it usually ends with /v1) and the model's name",
        "status 429": f"the account has no money left; {GO_ON}",
    }
    kind = SdftError if fault.kind == "status 429" else UsageError
    return kind(f"{where} refuses the request: {fault.what}", hints.get(fault.kind, GO_ON))


def _raise_first(workers: Sequence[asyncio.Task[None]]) -> None:
    """Raise the error that ended the run, if one did."""
    errors = [worker.exception() for worker in workers if not worker.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, _Ending):
            raise error
