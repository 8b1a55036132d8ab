"""Lines in the files of a batch, as they are read: a line that is cut off, or is none of ours, stops no other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.types import Json

if TYPE_CHECKING:
    from openai.types import Batch

_UNREADABLE, _UNKNOWN, _AGAIN = "cannot be read", "are none of this batch", "are there twice"
#: Reasons of a failed batch that are shown.
_REASONS = 3


class BatchLine(NamedTuple):
    """The response to one request: the request's name, the status and the body."""

    name: str
    status: int
    body: str


@dataclass
class BatchLines:
    """The lines of a file, one per request, and how many others there are, by what is wrong with them."""

    good: list[BatchLine] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)

    def problems(self) -> list[str]:
        """A line for each kind of problem."""
        return [
            f"{count} lines {problem}" if count > 1 else f"1 line {_one(problem)}"
            for problem, count in self.bad.items()
        ]


def read(data: bytes, names: Container[str]) -> BatchLines:
    """The lines of a file, in their order; of two with one name the first counts, whatever else the file holds."""
    lines, seen = BatchLines(), set[str]()
    for text in data.decode("utf-8-sig", errors="replace").split("\n"):
        if not text.strip():
            continue
        line = _line(text)
        if line is None:
            lines.bad[_UNREADABLE] += 1
        elif line.name not in names:
            lines.bad[_UNKNOWN] += 1
        elif line.name in seen:
            lines.bad[_AGAIN] += 1
        else:
            seen.add(line.name)
            lines.good.append(line)
    return lines


def reasons(info: Batch) -> str:
    """Why a batch has failed, as the endpoint says: ``: the reason (line 3); …``, or nothing."""
    data = (info.errors.data if info.errors else None) or []
    told = [f"{error.message or error.code}" + (f" (line {error.line})" if error.line else "") for error in data]
    more = f"; and {len(told) - _REASONS} more" if len(told) > _REASONS else ""
    return f": {'; '.join(told[:_REASONS])}{more}" if told else ""


def _line(text: str) -> BatchLine | None:
    """One line of a file; None if it is none."""
    try:
        line = json.loads(text.strip().lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str):
        return None
    response = line["response"] if isinstance(line.get("response"), dict) else {}
    body: Json = response.get("body")
    status = response.get("status_code")
    number = int(status) if isinstance(status, (int, str)) and str(status).isdigit() else 0
    if not body:
        # expired or cancelled before its turn, or an error without a response
        return BatchLine(line["custom_id"], number if number >= 400 else 503, json.dumps({"error": line.get("error")}))
    return BatchLine(line["custom_id"], number or 200, body if isinstance(body, str) else json.dumps(body))


def _one(problem: str) -> str:
    return {_UNKNOWN: "is none of this batch", _AGAIN: "is there twice"}.get(problem, problem)
