"""Token counts in a response: the larger reading where a server's fields allow two.

OpenAI counts thinking within ``completion_tokens``; others count it only in ``total_tokens`` (Gemini), or beside both.
Some count a cached prompt beside ``prompt_tokens``. Whoever pays pays for all of it.
"""

from __future__ import annotations

from typing import NamedTuple

from sdft_cli.types import Json

_READ = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count")
_WRITTEN = ("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count")
_TOTAL = ("total_tokens", "totalTokenCount", "total_token_count")
_THOUGHT = ("reasoning_tokens", "thinking_tokens", "thoughts_token_count", "thoughtsTokenCount", "thought_tokens")
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")


class TokenCounts(NamedTuple):
    """Tokens read and written, None where the server does not say."""

    read: int | None
    written: int | None


def token_counts(usage: Json) -> TokenCounts:
    """What a response's ``usage`` says, in the larger reading."""
    usage = usage if isinstance(usage, dict) else {}
    read, written, total = (_first(usage, names) for names in (_READ, _WRITTEN, _TOTAL))
    thought = max((_first(part, _THOUGHT) or 0 for part in _parts(usage)), default=0)
    cached = sum(_first(usage, (name,)) or 0 for name in _CACHED)
    if read is not None and cached and (cached > read or "prompt_tokens" not in usage):
        read += cached
    if read is None and total is not None and written is not None:
        read = max(0, total - written)
    readings = [written] if written is not None else []
    if total is not None and read is not None:
        readings.append(total - read)
    if thought and (thought > (written or 0) or total is None):
        readings.append((written or 0) + thought)
    return TokenCounts(read, max(readings) if readings else None)


def _parts(usage: dict[str, Json]) -> list[dict[str, Json]]:
    """The fields of ``usage``, and those of the objects in it."""
    return [usage, *(value for value in usage.values() if isinstance(value, dict))]


def _first(part: dict[str, Json], names: tuple[str, ...]) -> int | None:
    """The first of these counts that there is; some servers write them as text or with a decimal point."""
    for name in names:
        value = part.get(name)
        if isinstance(value, str) and value.strip().isdigit():
            return int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return None
