"""What a user's row is graded by: its gold answer, else its demonstration."""

from __future__ import annotations

import json
from dataclasses import replace

from sdft_cli.messages import arguments_of
from sdft_cli.types import Example, Json


def with_gold(example: Example, calls: bool) -> Example:
    """A row without a gold answer is graded by its demonstration; with ``calls`` by the tools that this calls.

    An empty list or object becomes its JSON text, as a blank field would be none.
    """
    if example.answer is None:
        said = _said(example, calls)
        return replace(example, answer=said) if said else example
    return replace(example, answer=json.dumps(example.answer)) if example.answer in ([], {}) else example


def gold_text(example: Example) -> str:
    """The gold answer where it is text, or the first of several; "" for what has another form."""
    answer = example.answer
    return answer if isinstance(answer, str) else answer[0] if is_texts(answer) else ""


def first_answer(answer: Json) -> str:
    """A gold answer as a demonstration: the first of several, JSON of an object."""
    return gold_text(Example("", [], answer=answer)) or json.dumps(answer, ensure_ascii=False)


def is_texts(answer: Json) -> bool:
    return isinstance(answer, list) and bool(answer) and all(isinstance(each, str) for each in answer)


def _said(example: Example, calls: bool) -> Json:
    """What a demonstration of one turn says, without its reasoning; None where that is several turns, or tool calls.

    With ``calls``, the first of several turns counts, since a completion is one turn; and of a turn that calls tools
    its calls.
    """
    shown = example.demonstration
    if not isinstance(shown, list):
        return shown
    if called := shown[0].get("tool_calls"):
        named = [{"name": call["function"]["name"], "arguments": arguments_of(call)} for call in called]
        return named if calls else None
    return shown[0]["content"] if len(shown) == 1 or calls else None
