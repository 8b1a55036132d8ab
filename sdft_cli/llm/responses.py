"""Responses of a server: the replies in one, or the error that it is and what to do about it.

Nothing is taken for granted: an OpenAI-compatible server may send half a body, an error with status 200, a stream that
nobody asked for, no text, text that does not end by itself, fewer choices than requested, text beyond a stop sequence,
or no log-probabilities. What errors mean is in `llm.refusals`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sdft_cli.llm import event_stream, refusals
from sdft_cli.llm.error_texts import message_of, words_of
from sdft_cli.llm.http_client import TIMED_OUT, HttpResponse
from sdft_cli.llm.refusals import ABORT, DROP_PARAMETER, PUT_OFF, RETRY, SKIP, SLOW_DOWN
from sdft_cli.llm.refused_parameters import SYSTEM
from sdft_cli.llm.token_counts import token_counts
from sdft_cli.llm.types import (
    CALLED,
    LENGTH,
    REFUSED,
    STOP,
    THOUGHT,
    UNFINISHED,
    Reply,
    Request,
    cut_at_stop,
    ending,
    estimate_prompt_tokens,
    estimate_tokens,
)
from sdft_cli.types import Json

__all__ = ["ABORT", "DROP_PARAMETER", "EMPTY", "PUT_OFF", "RETRY", "SKIP", "SLOW_DOWN", "ApiError", "read"]

EMPTY = "empty text"
#: What a request may hold besides its own body: see `parameters.SupportedParameters.body`.
_ADDED = ("seed", "n", "max_completion_tokens", "stream", "stream_options")
_THINKING = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
_THINKING_PARTS = ("thinking", "reasoning", "redacted_thinking")


@dataclass(eq=False)
class ApiError(Exception):
    """A response without a usable reply. ``what`` describes it, ``wait`` is the pause in seconds the server asked for.

    ``paid`` says that the server may have written, and billed, a reply that we did not get; ``reply`` is one that we
    got and cannot use, with what it cost. ``parameter`` is what to change, ``about`` what is wrong with the prompt (for
    `SKIP`) or what the user can do. ``suspect``: whether an endpoint whose first responses are like this is none: 2 if
    one is enough to say so, 1 if two are (see `llm.probation`).
    """

    what: str
    remedy: str = RETRY
    wait: float | None = None
    parameter: str = ""
    paid: bool = False
    about: str = ""
    suspect: int = 0
    reply: Reply | None = None

    @property
    def timed_out(self) -> bool:
        """Whether there was no response for as long as we wait."""
        return self.what.startswith(TIMED_OUT)

    @property
    def kind(self) -> str:
        """``what`` without its details: of one kind, only the first error is reported."""
        return self.what.partition(":")[0]


def read(response: HttpResponse, request: Request, now: datetime | None = None) -> list[Reply | None]:
    """The replies in a response, at most as many as ``request`` wants; None for a choice without text.

    Raises `ApiError` for anything but a chat completion, and if log-probabilities were requested and are missing.
    """
    now = now or datetime.now(UTC)
    if response.status == 0:
        raise _no_response(response.body)
    if 200 <= response.status < 300:
        return _replies(response, request, now)
    if 300 <= response.status < 400:
        to = response.headers.get("location", "another address").partition("?")[0]
        what = f"status {response.status}: it redirects to {to}, and a key must not follow"
        raise ApiError(
            what, ABORT, about=f"if you trust it, give that address: --base-url {to.removesuffix('/chat/completions')}"
        )
    raise _error(response.status, response, request, now)


def _no_response(what: str) -> ApiError:
    if "CERTIFICATE_VERIFY_FAILED" in what:
        return ApiError(what, ABORT, about="trust the certificate by SSL_CERT_FILE, or correct --base-url")
    if "WRONG_VERSION_NUMBER" in what or "RECORD_LAYER_FAILURE" in what:
        return ApiError(what, ABORT, about="this address does not speak TLS: write http:// in --base-url")
    if "UnsupportedProtocol" in what or "Invalid URL" in what:
        return ApiError(what, ABORT, about="write --base-url as https://host/v1")
    return ApiError(what, paid=True)


def _replies(response: HttpResponse, request: Request, now: datetime) -> list[Reply | None]:
    data = _parsed(response.body)
    choices = data.get("choices")
    if error := data.get("error"):
        raise _error(_status_in(error), response, request, now, error)
    if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
        words = message_of(data) if set(data) & {"message", "detail", "msg", "error_msg", "errors"} else ""
        what = "no choices" + (f": {words}" if words else "")
        raise ApiError(what, paid=True, suspect=1, about="check that --base-url is that of a chat completions API")
    if request.extra.get("logprobs") and not all(c.get("logprobs") for c in choices):
        raise ApiError("the endpoint ignores logprobs, which --send requests", ABORT, paid=True)
    if any(choice.get("finish_reason") == event_stream.BROKEN for choice in choices):
        raise ApiError(event_stream.BROKEN, paid=True)
    replies = [_reply(choice, request) for choice in choices[: len(request.samples)]]
    counted = _with_usage(replies, choices, data.get("usage"), request)
    usable = [reply if reply and (reply.text.strip() or reply.finish != STOP) else None for reply in counted]
    kept = [reply if reply and reply.finish != UNFINISHED else None for reply in usable]
    if any(kept):
        return _first_has_tokens(kept, counted[0])
    if broken := next((reply for reply in usable if reply), None):
        reason = choices[0].get("finish_reason") or choices[0].get("stop_reason")
        what = f"a reply with the finish reason {str(reason)[:60]!r}"
        about = "look at the server's log, or ask another endpoint: only what ends by itself can be used"
        reply = replace(counted[0] or broken, finish=UNFINISHED)
        raise ApiError(what, paid=True, suspect=1, about=about, reply=reply)
    raise ApiError(EMPTY, paid=True, suspect=1, reply=counted[0])


def _first_has_tokens(kept: list[Reply | None], first: Reply | None) -> list[Reply | None]:
    """The kept replies; the first of them has the tokens of the whole response."""
    at = next(i for i, reply in enumerate(kept) if reply)
    holder = kept[at]
    if holder and first:
        kept[at] = replace(first, text=holder.text, finish=holder.finish)
    return kept


def _error(status: int, response: HttpResponse, request: Request, now: datetime, body: Json = None) -> ApiError:
    """What an error means; it came with this status, or says that it should have."""
    error = body if body is not None else _json_or_text(response.body)
    message, words = message_of(error), words_of(error)
    came_as_reply = body is not None
    what = f"{'an error with status 200' if came_as_reply else f'status {status}'}" + (
        f": {message}" if message else ""
    )
    sent = [*request.body(), *_ADDED, *([SYSTEM] if _has_system(request) else [])]
    sent = [name for name in sent if name not in ("model", "messages")]
    meaning = refusals.meaning(status, words, sent, request.max_tokens, request.temperature)
    wait = retry_after(response.headers, now)
    wait = refusals.wait_in(words) if wait is None else wait
    suspect = int(meaning.remedy == PUT_OFF or (came_as_reply and meaning.remedy == RETRY))
    paid = came_as_reply and meaning.remedy == RETRY
    return ApiError(what, meaning.remedy, wait, meaning.parameter, paid, meaning.about, suspect)


def _status_in(error: Json) -> int:
    """The status that an error with status 200 names itself; 200 if it names none."""
    code = error.get("code") or error.get("status") or error.get("status_code") if isinstance(error, dict) else None
    number = int(code) if isinstance(code, (int, float, str)) and str(code).isdigit() else 200
    return number if 400 <= number < 600 else 200


def _has_system(request: Request) -> bool:
    return any(message["role"] == "system" for message in request.messages)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait according to ``retry-after-ms`` or ``retry-after`` (seconds, or a date by the server's clock)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "").removesuffix("s")) * unit
        except ValueError:
            continue
        if 0 <= seconds < math.inf:
            return seconds
    until = _date(headers.get("retry-after"))
    return max(0.0, (until - (_date(headers.get("date")) or now)).total_seconds()) if until else None


def _parsed(body: str) -> dict[str, Json]:
    """The object in a body, be it JSON or a stream of events."""
    about = "check --base-url: it usually ends with /v1"
    if body.lstrip().startswith("<"):
        raise ApiError("status 200, but a web page instead of JSON", paid=True, suspect=2, about=about)
    if not body.strip():
        raise ApiError("status 200, but an empty body", paid=True, suspect=1, about=about)
    try:
        data = event_stream.assembled(body) if event_stream.is_event_stream(body) else json.loads(body.lstrip("\ufeff"))
        json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate could not be written to any file
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        suspect = int(not body.lstrip("\ufeff \r\n\t").startswith(("{", "data:")))
        raise ApiError(f"broken JSON: {len(body)} characters", paid=True, suspect=suspect, about=about) from error
    if not isinstance(data, dict):
        data = data[0] if isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict) else None
    if data is None:
        raise ApiError("not a JSON object", paid=True, suspect=1, about=about)
    return data


def _reply(choice: dict[str, Json], request: Request) -> Reply | None:
    message = choice.get("message") or choice.get("delta")
    message = message if isinstance(message, dict) else {}
    if refusal := message.get("refusal"):
        return Reply(str(refusal), REFUSED)
    raw = choice.get("finish_reason") or choice.get("stop_reason")
    finish = ending(str(raw)) if raw else STOP
    if finish == REFUSED:
        return Reply(f"finish reason {raw}", REFUSED)
    text = _text(message.get("content", choice.get("text")))
    text, stopped = cut_at_stop(text, request.stops)
    finish = STOP if stopped else finish
    if text.strip() or finish != STOP:  # thinking that used up the limit leaves no text, however often it is tried
        return Reply(text, finish)
    if message.get("tool_calls") or message.get("function_call"):
        return Reply("", CALLED)
    return Reply("", THOUGHT) if _thinking(message) else None


def _text(content: Json) -> str:
    """A message's content: text, or the text parts of a list, without its thinking."""
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") not in _THINKING_PARTS]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _thinking(message: dict[str, Json]) -> str:
    """The thinking that a server gives apart from the content."""
    fields = [message.get(name) for name in _THINKING]
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    fields += [
        p.get("thinking") or p.get("text") for p in parts if isinstance(p, dict) and p.get("type") in _THINKING_PARTS
    ]
    return "".join(_all_text(field) for field in fields)


def _all_text(value: Json) -> str:
    """The text in whatever form a server gives thinking."""
    if isinstance(value, list):
        return "".join(map(_all_text, value))
    if isinstance(value, dict):
        return _all_text(value.get("thinking") or value.get("text") or value.get("content"))
    return value if isinstance(value, str) else ""


def _with_usage(replies: list[Reply | None], choices: list[Json], usage: Json, request: Request) -> list[Reply | None]:
    """The replies; the first has the tokens of all, as the server counts them, or estimates if it does not.

    A reply without a finish reason counts as ended by itself unless it has as many tokens as were allowed.
    """
    texts = [reply.text for reply in replies if reply]
    thinking = [_thinking(c["message"]) for c in choices if isinstance(c.get("message"), dict)]
    read, written = token_counts(usage)
    estimated = not read or (not written and any(map(str.strip, [*texts, *thinking])))
    if written is None or (not written and estimated):
        written = estimate_tokens(*texts, *thinking)
    elif any(thinking) and sum(len(t.encode()) for t in [*texts, *thinking]) > 8 * written:
        written = estimate_tokens(*texts, *thinking)  # the thinking is not counted
    read = read or estimate_prompt_tokens(request.messages)
    first = replies[0] or Reply("")
    first = replace(first, prompt_tokens=read, completion_tokens=written, estimated=estimated)
    open_ended = not choices[0].get("finish_reason") and not choices[0].get("stop_reason")
    if open_ended and first.finish == STOP and not estimated and written >= request.max_tokens * len(replies):
        first = replace(first, finish=LENGTH)
    return [first, *replies[1:]]


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
