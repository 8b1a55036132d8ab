"""A user's record as messages: prompt, demonstration, tools, gold answer; `BadRow` says what is wrong with it."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

from sdft_cli.messages import Message, is_trained
from sdft_cli.tasks._columns import Columns
from sdft_cli.tasks._formats import BadRow, Record, text
from sdft_cli.tasks._message_formats import PROMPT_WEIGHTS, Remarks, message_of, tools_of
from sdft_cli.types import Json


class Conversation(NamedTuple):
    """What a record says; ``remarks`` are what is not used of it."""

    prompt: list[Message]
    demonstration: str | list[Message] | None
    tools: list[Json] | None
    remarks: Remarks


def conversation_of(data: Record, columns: Columns) -> Conversation:
    """The conversation in a record of a known layout."""
    remarks: Remarks = set()
    prompt, rest = _prompt_of(data, columns, remarks)
    demonstration = _demonstration_of(data, columns, rest, remarks)
    unanswered = demonstration is None and (not columns.answer or data.get(columns.answer) is None)
    if unanswered and prompt[-1]["role"] == "tool":
        raise BadRow("demonstration does not end with the assistant's turn", "role 'tool'")
    if any("weight" in message for message in prompt):
        remarks.add(PROMPT_WEIGHTS)
        prompt = [_plain(message) for message in prompt]
    tools = tools_of(data.get(columns.tools), columns.tools, remarks) if columns.tools else None
    return Conversation(prompt, demonstration, tools, remarks)


def answer_of(data: Record, column: str | None) -> str | list[str] | None:
    """The gold answer: text, a number as text, or several texts of which any is right. None if there is none."""
    value = data.get(column) if column else None
    if value is None:
        return None
    if isinstance(value, list) and value:
        return [_as_text(v, "answer", str(column)) for v in value]
    return _as_text(value, "answer", str(column))


def _prompt_of(data: Record, columns: Columns, remarks: Remarks) -> tuple[list[Message], list[Message]]:
    """The messages that are asked, and those after them."""
    column = columns.messages or columns.prompt
    assert column is not None  # a record without either has no known layout
    prompt: list[Message]
    rest: list[Message] = []
    if columns.messages or isinstance(data.get(column), list):
        prompt, rest = _divided(_messages(_listed(data.get(column)), column, remarks))
    else:
        question = text(data, column, "prompt")
        if columns.input and (value := data.get(columns.input)):
            question = f"{question}\n\n{text({columns.input: value}, columns.input, 'input')}"
        prompt = [{"role": "user", "content": question}]
    if not (columns.system and data.get(columns.system)):
        return prompt, rest
    system = text(data, columns.system, "system message")
    if prompt[0]["role"] == "system" and prompt[0]["content"].strip():
        if prompt[0]["content"] != system:
            raise BadRow("two system messages", f"one in the messages, and another in field {columns.system!r}")
        return prompt, rest
    return [{"role": "system", "content": system}, *prompt[prompt[0]["role"] == "system" :]], rest


def _demonstration_of(
    data: Record, columns: Columns, rest: list[Message], remarks: Remarks
) -> str | list[Message] | None:
    """The turns after the prompt, else those of the column; a turn that is nothing but text as text. None if there are
    none."""
    value = data.get(columns.demonstration) if columns.demonstration else None
    if rest and value is not None:
        raise BadRow("two demonstrations", f"one in the messages, and another in field {columns.demonstration!r}")
    if isinstance(value, list | dict):
        rest = _messages(value if isinstance(value, list) else [value], str(columns.demonstration), remarks)
    elif value is not None:
        return _as_text(value, "demonstration", str(columns.demonstration))
    if not rest:
        return None
    _check_turns(rest)
    plain = _plain(rest[0])
    return plain["content"] if len(rest) == 1 and set(plain) == {"role", "content"} else rest


def _check_turns(turns: list[Message]) -> None:
    if others := [m["role"] for m in turns if m["role"] not in ("assistant", "tool")]:
        raise BadRow("demonstration contains a turn that is not the assistant's", f"role {others[0]!r}")
    if turns[0]["role"] != "assistant":
        raise BadRow("demonstration does not begin with the assistant's turn", f"role {turns[0]['role']!r}")
    if turns[-1]["role"] != "assistant":
        raise BadRow("demonstration does not end with the assistant's turn", f"role {turns[-1]['role']!r}")
    if not any(is_trained(turn) for turn in turns):
        raise BadRow("nothing to train on", "every turn of the assistant has weight 0")


def _plain(message: Message) -> Message:
    """The message without its weight."""
    plain: Message = {**message}
    plain.pop("weight", None)
    return plain


def _as_text(value: Json, noun: str, column: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"{noun} is not a number", f"field {column!r} is {value}")
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return text({column: value}, column, noun)


def _listed(value: Json) -> Json:
    """``value``, read from JSON where it is the text of a list, as in a CSV file."""
    try:
        return json.loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    except (ValueError, RecursionError):
        return value


def _messages(value: Json, column: str, remarks: Remarks) -> list[Message]:
    """Messages of any form (`_message_formats`)."""
    if not isinstance(value, list) or not value:
        raise BadRow("no messages", f"field {column!r} is {'empty' if value == [] else type(value).__name__}")
    return [message_of(m, f"{column}[{i}]", remarks) for i, m in enumerate(value)]


def _divided(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """What is asked, and the turns of the answer: all after the last user's turn. Messages that end with a tool's turn
    ask for what the assistant makes of it, and hold no answer."""
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=None)
    if last is None:
        raise BadRow("no user's turn", f"roles: {', '.join(m['role'] for m in messages)}")
    if messages[-1]["role"] == "tool":
        return messages, []
    return messages[: last + 1], messages[last + 1 :]
