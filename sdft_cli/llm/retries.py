"""Retries: a request is sent again after an error that may pass, up to a limit, with a pause in between.

Retried are 429, 5xx, time-outs, lost connections, broken JSON, empty text and replies that do not end by themselves;
the pause is what the server asks for, else it doubles. What `llm.refusals` knows as final ends the run, or leaves a
prompt out, at once; an unknown refusal is put off until the others are answered (`llm.probation`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm import responses
from sdft_cli.llm.http_client import HttpClient
from sdft_cli.llm.probation import Probation
from sdft_cli.llm.rate_limit import Clock
from sdft_cli.llm.recorder import Recorder
from sdft_cli.llm.responses import ApiError
from sdft_cli.llm.types import RESUME_HINT, Pending, Reply

#: A request is sent this often before its prompt is given up for this run.
ATTEMPTS = 10
#: So many replies that are empty, or that did not end by themselves, settle a prompt: they are paid for, too.
EMPTY_REPLIES, UNFINISHED_REPLIES = 5, 3
#: This often, or until so many requests of a run have timed out, while there has been no response at all: a wrong
#: address is more likely than an outage.
FIRST_ATTEMPTS, FIRST_TIME_OUTS = 4, 6
#: So many prompts given up without a reply in between mean that the endpoint is down.
GIVEN_UP_IN_A_ROW = 3
#: Seconds.
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0
#: A longer pause that a server asks for ends the run: it is to be started again then.
LONGEST_PAUSE = 1800.0
#: A prompt at which a server failed (status 500) in this many runs, and answered others in between, is left out.
RUNS_GIVEN_UP = 2
#: A prompt that unknown words refused, asked about alone, this often is left out if others were ever answered.
RUNS_REFUSED = 3


class PromptGivenUp(Exception):
    """A prompt got no reply in `ATTEMPTS` attempts; the others go on."""


class PromptPutOff(Exception):
    """A prompt was refused in unknown words: it is settled when the others have shown whether the endpoint answers."""


class Retries:
    """Sends requests to one endpoint until each is settled."""

    def __init__(self, client: HttpClient, recorder: Recorder, clock: Clock, probation: Probation):
        self.client, self.recorder, self.clock, self.probation = client, recorder, clock, probation
        self.random = random.Random()
        self.given_up = self.timed_out = 0
        self.put_off: dict[str, ApiError] = {}

    async def until_settled(self, pending: Pending, send: Callable[[int], Awaitable[list[Reply]]]) -> None:
        """Call ``send(attempt)``, which raises `ApiError` unless it stores replies, until the prompt is settled.

        Raises `PromptGivenUp` after the last attempt, `PromptPutOff` the first time that unknown words refuse it, and
        `SdftError` if no further attempt makes sense.
        """
        if pending.digest in self.put_off:
            self._settle_put_off(pending)
            return
        unusable = 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                replies = await send(attempt)
            except ApiError as error:
                unusable += error.reply is not None
                most = EMPTY_REPLIES if error.what == responses.EMPTY else UNFINISHED_REPLIES
                last = attempt == ATTEMPTS or unusable >= most
                if await self._is_settled(error, pending, attempt, last):
                    return
            else:
                self.given_up = 0
                if useless := self.probation.answered(replies):
                    raise self.recorder.fatal(useless)
                return

    def pause(self, error: ApiError, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt``; raises `SdftError` if a server asks for more than a run
        should wait."""
        if error.wait is not None and error.wait > LONGEST_PAUSE:
            message = f"{self.client.address} asks for a pause of {_duration(error.wait)} ({error.what})"
            raise SdftError(message, f"{RESUME_HINT} then")
        return backoff(attempt, self.random) if error.wait is None else error.wait

    async def _is_settled(self, error: ApiError, pending: Pending, attempt: int, last: bool) -> bool:
        """Whether this error settles the prompt; if not, the pause is over when this returns."""
        self._check_reached(error, attempt)
        if self.probation.is_over(error):
            raise self.recorder.fatal(error)
        if error.remedy == responses.PUT_OFF:
            self.recorder.progress.usage.errors += 1
            self.put_off[pending.digest] = error
            raise PromptPutOff(error.what)
        if self.recorder.settle(error, pending, last):
            return True
        if last and error.remedy in (responses.RETRY, responses.SLOW_DOWN):
            return self._give_up(error, pending)
        if error.remedy == responses.RETRY:
            await self.clock.sleep(self.pause(error, attempt))
        return False

    def _check_reached(self, error: ApiError, attempt: int) -> None:
        """Raise `UsageError` if nothing has ever answered."""
        if self.client.reached:
            return
        self.timed_out += error.timed_out
        never = attempt >= FIRST_ATTEMPTS or self.timed_out >= FIRST_TIME_OUTS
        if error.remedy == responses.ABORT or never:
            message = f"{self.client.address} does not respond: {error.what}"
            raise UsageError(message, error.about or "check --base-url") from error

    def _settle_put_off(self, pending: Pending) -> None:
        """Leave out a prompt that was refused in unknown words, if others were answered; else the words are about all
        of them, and raised."""
        error = self.put_off.pop(pending.digest)
        if not self.probation.passed and not self.recorder.refused_alone(pending, RUNS_REFUSED):
            raise self.recorder.fatal(error)
        self.recorder.leave_out(error, pending)

    def _give_up(self, error: ApiError, pending: Pending) -> bool:
        """Give a prompt up for this run; leave it out (True) if that has happened before while others got replies."""
        self.given_up += 1
        if self.given_up >= GIVEN_UP_IN_A_ROW:
            message = f"{self.client.address} is down, {ATTEMPTS} attempts each for several prompts: {error.what}"
            raise SdftError(message, RESUME_HINT)
        if self.recorder.fails_alone(pending, RUNS_GIVEN_UP * ATTEMPTS):
            self.recorder.leave_out(error, pending)
            return True
        raise PromptGivenUp(error.what)


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds after attempt number ``attempt`` (from 1): doubling, at most a minute, with jitter of up to a half."""
    longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** (attempt - 1))
    return longest * (0.5 + rng.random() / 2)


def _duration(seconds: float) -> str:
    """Seconds as a person says them: ``40 min``, ``24 h``."""
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"
