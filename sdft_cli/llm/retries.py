"""Retries: a request is sent again after an error that may pass, up to a limit, with a pause in between.

Retried are 429, 5xx, time-outs, lost connections, broken JSON and empty text; the pause is what the server asks for,
else it doubles. Every other 4xx ends the run at once (`llm.responses` decides which is which).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm import responses
from sdft_cli.llm.http_client import HttpClient
from sdft_cli.llm.rate_limit import Clock
from sdft_cli.llm.recorder import Recorder
from sdft_cli.llm.responses import ApiError
from sdft_cli.llm.types import RESUME_HINT, Pending

#: A request is sent this often before its prompt is given up for this run.
ATTEMPTS = 10
#: This often, while there has been no response at all: a wrong address is more likely than an outage.
FIRST_ATTEMPTS = 4
#: So many prompts given up without a reply in between mean that the endpoint is down.
GIVEN_UP_IN_A_ROW = 3
#: Seconds.
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0


class PromptGivenUp(Exception):
    """A prompt got no reply in `ATTEMPTS` attempts; the others go on."""


class Retries:
    """Sends requests to one endpoint until each is settled."""

    def __init__(self, client: HttpClient, recorder: Recorder, clock: Clock):
        self.client, self.recorder, self.clock = client, recorder, clock
        self.random = random.Random()
        self.given_up = 0

    async def until_settled(self, pending: Pending, send: Callable[[int], Awaitable[None]]) -> None:
        """Call ``send(attempt)``, which raises `ApiError` unless it stores a reply, until the prompt is settled.

        Raises `PromptGivenUp` after the last attempt, and `SdftError` if no further attempt makes sense.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await send(attempt)
            except ApiError as error:
                if not self.client.reached and attempt >= FIRST_ATTEMPTS:
                    message = f"{self.client.address} does not respond: {error.what}"
                    raise UsageError(message, "check --base-url") from error
                last = attempt == ATTEMPTS
                if self.recorder.settle(error, pending, last):
                    return
                if last and error.remedy in (responses.RETRY, responses.SLOW_DOWN):
                    self._give_up(error)
                if error.remedy == responses.RETRY:
                    await self.clock.sleep(self.pause(error, attempt))
            else:
                self.given_up = 0
                return

    def pause(self, error: ApiError, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt``."""
        return backoff(attempt, self.random) if error.wait is None else error.wait

    def _give_up(self, error: ApiError) -> None:
        self.given_up += 1
        if self.given_up >= GIVEN_UP_IN_A_ROW:
            message = f"{self.client.address} is down, {ATTEMPTS} attempts each for several prompts: {error.what}"
            raise SdftError(message, RESUME_HINT)
        raise PromptGivenUp(error.what)


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds after attempt number ``attempt`` (from 1): doubling, at most a minute, with jitter of up to a half."""
    longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** (attempt - 1))
    return longest * (0.5 + rng.random() / 2)
