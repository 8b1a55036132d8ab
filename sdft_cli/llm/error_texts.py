"""Texts of errors: one line for people, and all words for `llm.refusals`, whatever form the body has."""

from __future__ import annotations

import json

from sdft_cli.llm.api_key import redacted
from sdft_cli.types import Json

#: Where a message may be, best first.
_KEYS = ("error", "message", "detail", "msg", "error_msg", "error_message", "Message", "reason", "errors", "title")
#: What only repeats the request.
_ECHOES = ("input", "messages", "prompt", "failed_generation", "ctx", "url")
_LONGEST = 300
#: Messages of gateways that say nothing: what they wrap says it.
_EMPTY = ("provider returned error", "upstream error", "bad request", "error")


def message_of(error: Json) -> str:
    """The message in an error's body, on one line and cut if it is long; without anything like a key."""
    text = " ".join(_message(error).split())
    text = redacted(text, None, guess=True)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def words_of(error: Json) -> str:
    """All text of an error's body but what repeats the request."""
    if isinstance(error, str):
        return error
    try:
        return json.dumps(_without_echoes(error), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return ""


def _message(error: Json) -> str:
    while isinstance(error, list) and len(error) == 1:
        error = error[0]
    if isinstance(error, list):
        return "; ".join(_message(each) for each in error[:5])
    if not isinstance(error, dict):
        return error if isinstance(error, str) else json.dumps(error)
    if "loc" in error and "msg" in error:
        place = ".".join(str(part) for part in error["loc"]) if isinstance(error["loc"], list) else str(error["loc"])
        return f"{place}: {error['msg']}"
    inner = next((error[key] for key in _KEYS if error.get(key)), None)
    text = _message(inner) if inner is not None else json.dumps(error, ensure_ascii=False)
    metadata = error.get("metadata")
    if text.strip().lower() in _EMPTY and isinstance(metadata, dict):
        text = f"{text}: {metadata.get('raw') or json.dumps(metadata, ensure_ascii=False)}"
    return text


def _without_echoes(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_echoes(each) for key, each in value.items() if key not in _ECHOES}
    return [_without_echoes(each) for each in value] if isinstance(value, list) else value
