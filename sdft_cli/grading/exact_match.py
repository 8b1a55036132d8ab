"""Exact match: a completion is the demonstration or the gold answer, and nothing else.

Stricter than most rules, which look for the answer in what was written: it tells whether a model has also learned the
form, and whether it stops. Equal are spellings that differ in white space or in how Unicode writes a character
(`plain_text`), and texts with and without a full stop at their end; JSON is compared as values. Thinking before the
answer does not count. Case, emphasis and any further word do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from sdft_cli.grading.exactness import without_stop
from sdft_cli.grading.plain_text import plain
from sdft_cli.grading.thinking import strip_thinking
from sdft_cli.types import Example, Json


def exact_match(completion: str, example: Example) -> bool | None:
    """Whether ``completion`` is what the row should be answered with; None for a row that does not say it in words."""
    wanted = [form for form in map(_form, _answers(example)) if form != ""]
    return _form(strip_thinking(completion)) in wanted if wanted else None


def _answers(example: Example) -> Iterator[Json]:
    """The demonstration, where it is one turn of words, and the gold answer, or each of several in words."""
    shown, gold = example.demonstration, example.answer
    if isinstance(shown, list):
        shown = shown[0]["content"] if len(shown) == 1 and not shown[0].get("tool_calls") else None
    yield shown or ""
    if isinstance(gold, str | dict):
        yield gold
    elif isinstance(gold, int | float) and not isinstance(gold, bool):
        yield str(gold)
    elif isinstance(gold, list):
        yield gold
        yield from (each for each in gold if isinstance(each, str))


def _form(answer: Json) -> Json:
    """What is compared: the value of a JSON object or list, or the text in one spelling."""
    if not isinstance(answer, str):
        return answer
    text = answer.strip()
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return " ".join(without_stop(plain(text).strip()).split())
