"""Responses of a server: the replies in one, or the error that it is and what to do about it.

Nothing is taken for granted: an OpenAI-compatible server may send half a body, an error with status 200, no text, fewer
choices than requested, text beyond a stop sequence, or no log-probabilities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sdft_cli.llm.http_client import HttpResponse
from sdft_cli.llm.parameters import OPTIONAL
from sdft_cli.llm.types import (
    LENGTH,
    REFUSED,
    STOP,
    Reply,
    Request,
    cut_at_stop,
    estimate_prompt_tokens,
    estimate_tokens,
)
from sdft_cli.types import Json

#: What to do about an error: send the request again; again, but slow down; skip this prompt for good; leave a parameter
#: out; end the run.
RETRY, SLOW_DOWN, SKIP, DROP_PARAMETER, ABORT = "retry", "slow down", "skip", "drop parameter", "abort"
EMPTY = "empty text"
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_ABOUT_PROMPT = (
    "context_length_exceeded", "string_above_max_length", "content_filter", "content_policy_violation",
    "maximum context length",
)  # fmt: skip
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecognized|unknown|unexpected|forbidden|not permitted|extra", re.I
)


@dataclass(eq=False)
class ApiError(Exception):
    """A response without a usable reply. ``what`` describes it, ``wait`` is the pause in seconds the server asked for.

    ``paid`` says that the server may have written, and billed, a reply that we did not get. ``parameter`` is the one to
    leave out.
    """

    what: str
    remedy: str = RETRY
    wait: float | None = None
    parameter: str = ""
    paid: bool = False

    @property
    def kind(self) -> str:
        """``what`` without its details: of one kind, only the first error is reported."""
        return self.what.partition(":")[0]


def read(response: HttpResponse, request: Request, now: datetime | None = None) -> list[Reply | None]:
    """The replies in a response, at most as many as ``request`` wants; None for a choice without text.

    Raises `ApiError` for anything but a chat completion, and if log-probabilities were requested and are missing.
    """
    if response.status == 200:
        return _replies(response.body, request)
    if response.status == 0:
        raise ApiError(response.body, paid=True)
    raise _error(response, now or datetime.now(UTC))


def _replies(body: str, request: Request) -> list[Reply | None]:
    data = _parsed(body)
    choices = data.get("choices")
    if error := data.get("error"):
        raise ApiError(f"an error with status 200: {_message(error)}", paid=True)
    if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
        raise ApiError("no choices", paid=True)
    if request.extra.get("logprobs") and not all(c.get("logprobs") for c in choices):
        raise ApiError("the endpoint ignores logprobs, which --send requests", ABORT, paid=True)
    replies = [_reply(choice, request.stops) for choice in choices[: len(request.samples)]]
    written = [reply for reply in replies if reply]
    if not written:
        raise ApiError(EMPTY, paid=True)
    counted = _with_usage(written, data.get("usage"), request)
    return [counted if reply is written[0] else reply for reply in replies]


def _error(response: HttpResponse, now: datetime) -> ApiError:
    """What a status other than 200 means; ``headers`` are looked up in lower case."""
    status, body = response.status, response.body
    message = _message(_json_or_text(body))
    what = f"status {status}" + (f": {message}" if message else "")
    wait = retry_after(response.headers, now)
    if status == 429 and any(code in body for code in _NO_MONEY):
        return ApiError(what, ABORT)
    if status in (429, 503, 529):
        return ApiError(what, SLOW_DOWN, wait)
    if status == 408 or status >= 500:
        return ApiError(what, RETRY, wait)
    if status in (400, 413, 422) and any(code in body for code in _ABOUT_PROMPT):
        return ApiError(what, SKIP)
    if status in (400, 422) and (name := _unsupported(body)):
        return ApiError(what, DROP_PARAMETER, parameter=name)
    return ApiError(what, ABORT)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait according to ``retry-after-ms`` or ``retry-after`` (seconds, or a date by the server's clock)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    until = _date(headers.get("retry-after"))
    return max(0.0, (until - (_date(headers.get("date")) or now)).total_seconds()) if until else None


def _parsed(body: str) -> dict[str, Json]:
    try:
        data = json.loads(body)
        json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate could not be written to any file
    except (ValueError, RecursionError) as error:
        raise ApiError(f"broken JSON: {len(body)} characters", paid=True) from error
    if not isinstance(data, dict):
        raise ApiError("not a JSON object", paid=True)
    return data


def _reply(choice: dict[str, Json], stops: list[str]) -> Reply | None:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    finish = str(choice.get("finish_reason") or STOP)
    if refusal := message.get("refusal"):
        return Reply(str(refusal), REFUSED)
    text = _text(message.get("content"))
    if finish == "content_filter":
        return Reply("content_filter", REFUSED)
    text, stopped = cut_at_stop(text, stops)
    finish = STOP if stopped else finish
    if (
        not text.strip() and finish != LENGTH
    ):  # thinking that used up the limit leaves no text, however often it is tried
        return None
    return Reply(text, finish)


def _text(content: Json) -> str:
    """A message's content: text, or the text parts of a list."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _with_usage(replies: list[Reply], usage: Json, request: Request) -> Reply:
    """The first of the replies with the tokens of all, as the server counts them; estimates if it does not."""
    usage = usage if isinstance(usage, dict) else {}
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return replace(
        replies[0],
        prompt_tokens=read if isinstance(read, int) else estimate_prompt_tokens(request.messages),
        completion_tokens=written if isinstance(written, int) else estimate_tokens(*(reply.text for reply in replies)),
    )


def _unsupported(body: str) -> str:
    """Which of the `OPTIONAL` parameters the server does not take; "" if it complains about something else."""
    if not _UNSUPPORTED.search(body):
        return ""
    return next((name for name in OPTIONAL if re.search(rf"[\"'`]{name}[\"'`]", body)), "")


def _message(error: Json) -> str:
    """The message in an error's body, on one line and cut if it is long."""
    while isinstance(error, dict):
        inner = error.get("error") or error.get("message") or error.get("detail")
        error = inner if inner is not None else json.dumps(error)
    text = " ".join((error if isinstance(error, str) else json.dumps(error)).split())
    return text if len(text) <= 300 else f"{text[:300]} …"


def _json_or_text(body: str) -> Json:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return "" if "<html" in body.lower() else body


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
