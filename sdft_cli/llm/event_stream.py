"""Server-sent events: a streamed chat completion, put together into the body that an unstreamed one would have had."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sdft_cli.types import Json

#: The finish reason of a choice whose stream broke off.
BROKEN = "the stream broke off"
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning", "thinking")


def is_event_stream(body: str) -> bool:
    """Whether a body is a stream of events and not JSON."""
    return body.lstrip("\ufeff \r\n\t").startswith(("data:", "event:", "id:", "retry:", ": ", ":\n"))


def assembled(body: str) -> dict[str, Json]:
    """The completion in a stream of chunks, or the error in it. A choice that has not ended has the finish reason
    `BROKEN`. Raises `ValueError` if an event is not JSON."""
    completion: dict[str, Json] = {"choices": []}
    choices: dict[int, dict[str, Json]] = {}
    done = False
    for data in _events(body):
        if data == "[DONE]":
            done = True
            continue
        chunk = json.loads(data)
        if not isinstance(chunk, dict):
            raise ValueError("an event is not an object")
        if chunk.get("error"):
            return {"error": chunk["error"]}
        if isinstance(chunk.get("usage"), dict):
            completion["usage"] = chunk["usage"]
        for choice in chunk.get("choices") or []:
            if isinstance(choice, dict):
                _add(choices.setdefault(choice.get("index") or 0, {"message": {}, "finish_reason": None}), choice)
    for index in sorted(choices):
        if choices[index]["finish_reason"] is None and not done:
            choices[index]["finish_reason"] = BROKEN
        completion["choices"].append(choices[index])
    return completion


def _events(body: str) -> Iterator[str]:
    """The data of each event."""
    lines: list[str] = []
    for line in [*body.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").strip())
        elif not line.strip() and lines:
            # some servers leave out the blank line between events
            yield from lines if len(lines) > 1 else ["".join(lines)]
            lines = []


def _add(whole: dict[str, Json], part: dict[str, Json]) -> None:
    """Add a chunk's part of a choice to what there is of it."""
    delta: Json = part.get("delta") or part.get("message")
    message = whole["message"]
    if isinstance(delta, dict):
        for name in _TEXTS:
            if text := _text(delta.get(name)):
                message[name] = message.get(name, "") + text
        if delta.get("tool_calls"):
            message.setdefault("tool_calls", []).extend(delta["tool_calls"])
    whole["finish_reason"] = part.get("finish_reason") or whole["finish_reason"]
    if isinstance(logprobs := part.get("logprobs"), dict):
        known = whole.setdefault("logprobs", {"content": []})
        known["content"].extend(logprobs.get("content") or [])


def _text(value: Json) -> str:
    """A text, or the text parts of a list."""
    if isinstance(value, list):
        parts = [part for part in value if isinstance(part, dict) and part.get("type") in (None, "text")]
        return "".join(str(part.get("text") or "") for part in parts)
    return value if isinstance(value, str) else ""
