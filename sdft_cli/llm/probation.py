"""Probation: is this endpoint what it should be? Until its first usable reply, requests go out one at a time.

So a wrong address, key or model is found by one request and not by sixty-four. What no retry can cure, and no words
explain (an unknown refusal, a body that is no completion), is held against the endpoint: two such responses end the run
while nothing has been answered, and three unknown refusals in a row end it later on. An unknown refusal between good
replies is about its prompt, which is then left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sdft_cli.llm.refusals import PUT_OFF
from sdft_cli.llm.responses import EMPTY, ApiError
from sdft_cli.llm.types import CALLED, LENGTH, STOP, THOUGHT, Reply

#: Suspicious responses before the first usable one that end a run; unknown refusals in a row that end it later.
SUSPECTS, REFUSALS_IN_A_ROW = 2, 3
#: Empty replies before the first usable one: a prompt may have none, so they are held against the endpoint less.
EMPTY_REPLIES = 6
_MORE_ROOM = (
    "raise --max-tokens, or have the model think less, such as by --send reasoning_effort=low or "
    "--send chat_template_kwargs='{\"enable_thinking\": false}'"
)


class Probation:
    """What an endpoint has shown so far; ``passed`` from its first reply with text on."""

    def __init__(self) -> None:
        self.passed = False
        self.suspects = self.empty = self.refused = 0
        self.lock = asyncio.Lock()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until a request may go out: one at a time until the endpoint has passed."""
        if self.passed:
            yield
            return
        await self.lock.acquire()
        alone = not self.passed
        if not alone:
            self.lock.release()
        try:
            yield
        finally:
            if alone:
                self.lock.release()

    def answered(self, replies: list[Reply]) -> ApiError | None:
        """The endpoint has sent these replies; the error that ends the run if none ever has a text."""
        if any(reply.finish == CALLED or (reply.text.strip() and reply.finish in (STOP, LENGTH)) for reply in replies):
            self.passed, self.suspects, self.refused = True, 0, 0
            return None
        self.refused = 0
        if self.passed:
            return None
        self.suspects += sum(reply.finish in (THOUGHT, LENGTH) for reply in replies)
        if self.suspects < SUSPECTS:
            return None
        if any(reply.finish == LENGTH for reply in replies):
            return ApiError("its replies are cut off at max_tokens before their first word", about=_MORE_ROOM)
        return ApiError("its replies are thinking without an answer", about=_MORE_ROOM)

    def is_over(self, error: ApiError) -> bool:
        """Whether this error ends the run, given those before it."""
        if error.remedy == PUT_OFF and self.passed:
            self.refused += 1
            return self.refused >= REFUSALS_IN_A_ROW
        if self.passed:
            return False
        if error.what == EMPTY:
            self.empty += 1
            return self.empty >= EMPTY_REPLIES
        self.suspects += error.suspect
        return self.suspects >= SUSPECTS
