"""A user's record as messages: its prompt, its demonstration, its gold answer; `BadRow` says what is wrong with it."""

from __future__ import annotations

import math

from sdft_cli.tasks._columns import Columns
from sdft_cli.tasks._formats import BadRow, Record, text
from sdft_cli.types import ROLES, Json, Message

_SHAREGPT = {"human": "user", "gpt": "assistant"}


def prompt_of(data: Record, columns: Columns) -> tuple[list[Message], list[Message]]:
    """The messages up to the last user's turn, and those after it."""
    column = columns.messages or columns.prompt
    assert column is not None  # a record without either has no known layout
    if columns.messages or isinstance(data.get(column), list):
        prompt, rest = _divided(_messages(data.get(column), column))
    else:
        question = text(data, column, "prompt")
        if columns.input and (value := data.get(columns.input)):
            question = f"{question}\n\n{text({columns.input: value}, columns.input, 'input')}"
        prompt, rest = [{"role": "user", "content": question}], []
    if columns.system and data.get(columns.system):
        prompt = [{"role": "system", "content": text(data, columns.system, "system message")}, *prompt]
    return prompt, rest


def demonstration_of(data: Record, columns: Columns, rest: list[Message]) -> str | list[Message] | None:
    """The turns after the prompt, else those of the column; a single turn as text. None if there are none."""
    value = data.get(columns.demonstration) if columns.demonstration else None
    if rest and value is not None:
        raise BadRow("two demonstrations", f"one in the messages, and another in field {columns.demonstration!r}")
    if isinstance(value, list):
        rest = _messages(value, str(columns.demonstration))
    elif value is not None:
        return _as_text(value, "demonstration", str(columns.demonstration))
    if not rest:
        return None
    if others := [m["role"] for m in rest if m["role"] not in ("assistant", "tool")]:
        raise BadRow("demonstration contains a turn that is not the assistant's", f"role {others[0]!r}")
    if rest[-1]["role"] != "assistant":
        raise BadRow("demonstration does not end with the assistant's turn", f"role {rest[-1]['role']!r}")
    return rest[0]["content"] if len(rest) == 1 else rest


def answer_of(data: Record, column: str | None) -> str | list[str] | None:
    """The gold answer: text, a number as text, or several texts of which any is right. None if there is none."""
    value = data.get(column) if column else None
    if value is None:
        return None
    if isinstance(value, list) and value:
        return [_as_text(v, "answer", str(column)) for v in value]
    return _as_text(value, "answer", str(column))


def _as_text(value: Json, noun: str, column: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"{noun} is not a number", f"field {column!r} is {value}")
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return text({column: value}, column, noun)


def _messages(value: Json, column: str) -> list[Message]:
    """Messages ``{role, content}`` or ``{from, value}``; content may be a list of text parts."""
    if not isinstance(value, list) or not value:
        raise BadRow("no messages", f"field {column!r} is {'empty' if value == [] else type(value).__name__}")
    return [_message(m, f"{column}[{i}]") for i, m in enumerate(value)]


def _message(value: Json, where: str) -> Message:
    if not isinstance(value, dict):
        raise BadRow("message is not an object", f"{where} is {type(value).__name__}")
    role = value.get("role", value.get("from"))
    role = _SHAREGPT.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise BadRow("unknown role", f"{where} has {role!r}; roles: {', '.join(ROLES)}")
    content = value.get("content", value.get("value"))
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "\n".join(p["text"] for p in content)
    if not isinstance(content, str):
        raise BadRow("content is not text", f"{where} is {type(content).__name__}")
    if not content.strip():
        raise BadRow("empty content", f"{where} of role {role!r}")
    return {"role": role, "content": content}


def _divided(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=None)
    if last is None:
        raise BadRow("no user's turn", f"roles: {', '.join(m['role'] for m in messages)}")
    return messages[: last + 1], messages[last + 1 :]
