"""What a server's answer is worth: the replies in it, or the fault that it is. Pure; nothing is taken for granted.

An OpenAI-compatible server may send half a body, an error with status 200, no text, fewer choices than were asked
for, text beyond a stop, or no log-probabilities. `read` takes a body with status 200 apart, `fault_of` every other
answer; a `Fault` says what is to be done about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from sdft_cli.llm.types import LENGTH, REFUSED, STOP, Reply, Request, cut, prompt_tokens, rough_tokens

#: What is to be done: ask again; ask again and slower; never ask this prompt again; leave a parameter out; give up.
AGAIN, SLOWER, NEVER, WITHOUT, FATAL = "again", "slower", "never", "without", "fatal"
EMPTY = "empty text"
#: Parameters that we can do without, or write another way.
OPTIONAL = ("seed", "n", "max_tokens")
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_ABOUT_PROMPT = (
    "context_length_exceeded", "string_above_max_length", "content_filter", "content_policy_violation",
    "maximum context length",
)  # fmt: skip
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecognized|unknown|unexpected|forbidden|not permitted|extra", re.I
)


@dataclass(eq=False)
class Fault(Exception):
    """An answer that is no reply. ``what`` is for a person, ``wait`` the seconds that the server asked for.

    ``paid`` says that the server may have written, and billed, a reply that we did not get.
    """

    what: str
    todo: str = AGAIN
    wait: float | None = None
    parameter: str = ""
    paid: bool = False

    @property
    def kind(self) -> str:
        """``what`` without its details: equal for faults that a person need be told of once."""
        return self.what.partition(":")[0]


def read(body: str, request: Request, wanted: int) -> list[Reply | None]:
    """The replies in a chat completion's body, at most ``wanted``; None where a choice has no text.

    Raises `Fault` for a body that is no chat completion, and where log-probabilities were asked for and are missing.
    """
    data = _parsed(body)
    choices = data.get("choices")
    if error := data.get("error"):
        raise Fault(f"an error with status 200: {_message(error)}", paid=True)
    if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
        raise Fault("no choices", paid=True)
    if request.more.get("logprobs") and not all(c.get("logprobs") for c in choices):
        raise Fault("the endpoint ignores logprobs, which --send asks for", FATAL, paid=True)
    replies = [_reply(choice, request.stops) for choice in choices[:wanted]]
    said = [reply for reply in replies if reply]
    if not said:
        raise Fault(EMPTY, paid=True)
    counted = _with_usage(said, data.get("usage"), request)
    return [counted if reply is said[0] else reply for reply in replies]


def fault_of(status: int, headers: Mapping[str, str], body: str, now: datetime | None = None) -> Fault:
    """What an answer with another status than 200 means; ``headers`` are looked up by small letters."""
    said = _message(_json_or_text(body))
    what = f"status {status}" + (f": {said}" if said else "")
    wait = retry_after(headers, now or datetime.now(UTC))
    if status == 429 and any(code in body for code in _NO_MONEY):
        return Fault(what, FATAL)
    if status in (429, 503, 529):
        return Fault(what, SLOWER, wait)
    if status == 408 or status >= 500:
        return Fault(what, AGAIN, wait)
    if status in (400, 413, 422) and any(code in body for code in _ABOUT_PROMPT):
        return Fault(what, NEVER)
    if status in (400, 422) and (name := _unsupported(body)):
        return Fault(what, WITHOUT, parameter=name)
    return Fault(what, FATAL)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after`` (seconds, or a date by the server's own clock)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    until = _date(headers.get("retry-after"))
    return max(0.0, (until - (_date(headers.get("date")) or now)).total_seconds()) if until else None


def _parsed(body: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
        json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair could not be written to any file
    except (ValueError, RecursionError) as error:
        raise Fault(f"broken JSON: {len(body)} characters", paid=True) from error
    if not isinstance(data, dict):
        raise Fault("no JSON object", paid=True)
    return data


def _reply(choice: dict[str, Any], stops: list[str]) -> Reply | None:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    finish = str(choice.get("finish_reason") or STOP)
    if refusal := message.get("refusal"):
        return Reply(str(refusal), REFUSED)
    text = _text(message.get("content"))
    if finish == "content_filter":
        return Reply("content_filter", REFUSED)
    text, beyond = cut(text, stops)
    finish = STOP if beyond else finish
    if not text.strip() and finish != LENGTH:  # a limit that thinking used up gives no text, and never will
        return None
    return Reply(text, finish)


def _text(content: Any) -> str:
    """A message's content: text, or the text parts of a list."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _with_usage(said: list[Reply], usage: Any, request: Request) -> Reply:
    """The first of the replies with the tokens of all, as the server counts them; estimates where it does not."""
    usage = usage if isinstance(usage, dict) else {}
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return replace(
        said[0],
        prompt_tokens=read if isinstance(read, int) else prompt_tokens(request.messages),
        completion_tokens=written if isinstance(written, int) else rough_tokens(*(reply.text for reply in said)),
    )


def _unsupported(body: str) -> str:
    """Which of the `OPTIONAL` parameters the server will not take; "" if it complains about something else."""
    if not _UNSUPPORTED.search(body):
        return ""
    return next((name for name in OPTIONAL if re.search(rf"[\"'`]{name}[\"'`]", body)), "")


def _message(said: Any) -> str:
    """The sentence in an error's body, on one line and not too long."""
    while isinstance(said, dict):
        inner = said.get("error") or said.get("message") or said.get("detail")
        said = inner if inner is not None else json.dumps(said)
    text = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return text if len(text) <= 300 else f"{text[:300]} …"


def _json_or_text(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return "" if "<html" in body.lower() else body


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
