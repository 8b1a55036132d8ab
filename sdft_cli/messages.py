"""Chat messages in the OpenAI form, as every dataset has them: what they may hold, and one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

from sdft_cli.errors import UsageError

#: JSON whose shape only its reader knows; never a record of ours.
Json = Any
ROLES = ("system", "user", "assistant", "tool")
#: What a message may hold besides ``role`` and ``content``, and the roles that may have it.
_FURTHER: dict[str, tuple[str, ...]] = {
    "reasoning_content": ("assistant",),
    "tool_calls": ("assistant",),
    "tool_call_id": ("tool",),
    "name": ROLES,
    "weight": ROLES,
}
KEYS = ("role", "content", *_FURTHER)


class Message(TypedDict):
    """One chat message; ``role`` is one of `ROLES`.

    Of an assistant's turn: ``reasoning_content`` is the thinking before its ``content``; ``tool_calls`` are objects
    ``{"type": "function", "function": {"name": …, "arguments": {…}}}``, perhaps with an ``id``; a ``weight`` of 0 keeps
    the turn out of the loss (1, the default, trains on it). Of a tool's turn: ``tool_call_id`` names the call that it
    answers, ``name`` the function.
    """

    role: str
    content: str
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[Json]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    weight: NotRequired[int]


def read_messages(value: object, where: str) -> list[Message]:
    """``value`` as messages; `UsageError` that names ``where`` and what is wrong.

    A content of null becomes "" where there are tool calls.
    """
    if not isinstance(value, list):
        raise UsageError(f"{where} must be a list of messages")
    return [_read(message, where) for message in value]


def read_demonstration(value: object, where: str) -> list[Message]:
    """As `read_messages`, for an expert's response: it begins with the assistant's turn, and one of its turns is
    trained on."""
    turns = read_messages(value, where)
    if turns and turns[0]["role"] != "assistant":
        raise UsageError(f"{where} must begin with the assistant's turn, not with role {turns[0]['role']!r}")
    if turns and not any(is_trained(turn) for turn in turns):
        raise UsageError(f"{where}: every turn of the assistant has weight 0, so there is nothing to train on")
    return turns


def is_trained(message: Message) -> bool:
    """Whether a demonstration's turn is part of the loss."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def read_tools(value: object, where: str) -> list[Json]:
    """``value`` as a list of tools in the OpenAI form; `UsageError` that names ``where``."""
    if not isinstance(value, list):
        raise UsageError(f"{where} must be a list of tools")
    if not all(isinstance(tool, dict) and _named(tool.get("function")) for tool in value):
        raise UsageError(
            f"{where}: every tool needs a 'function' with a 'name'",
            'the form is {"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}',
        )
    return value


def _read(message: object, where: str) -> Message:
    if not isinstance(message, dict):
        raise UsageError(f"{where}: every message needs a 'role' and a text 'content'")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UsageError(f"{where}: unknown role {role!r}", f"roles: {', '.join(ROLES)}")
    further = {k: v for k, v in message.items() if k not in ("role", "content") and v is not None}
    if content is None and further.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise UsageError(f"{where}: every message needs a 'role' and a text 'content'")
    for key, value in further.items():
        if key not in _FURTHER:
            raise UsageError(f"{where}: a message has the unknown key {key!r}", f"keys: {', '.join(KEYS)}")
        _check(key, value, str(role), where)
    read: Json = {"role": role, "content": content, **further}
    checked: Message = read
    return checked


def _check(key: str, value: object, role: str, where: str) -> None:
    if role not in _FURTHER[key]:
        raise UsageError(f"{where}: {key!r} belongs to role {_FURTHER[key][0]!r}, not to {role!r}")
    if key == "tool_calls":
        _check_calls(value, where)
    elif key == "weight":
        if isinstance(value, bool) or value not in (0, 1):
            raise UsageError(f"{where}: weight {value!r} is neither 0 nor 1", "0 keeps a turn out of the loss")
        if value == 1 and role != "assistant":
            raise UsageError(f"{where}: a turn of role {role!r} cannot be trained on", "leave its weight out")
    elif not isinstance(value, str):
        raise UsageError(f"{where}: {key!r} must be text")


def _check_calls(calls: object, where: str) -> None:
    if not isinstance(calls, list) or not calls:
        raise UsageError(f"{where}: 'tool_calls' must be a list of calls, or be left out")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not _named(function):
            raise UsageError(
                f"{where}: every tool call needs a 'function' with a 'name'",
                'the form is {"type": "function", "function": {"name": …, "arguments": {…}}}',
            )
        if not isinstance(arguments_of(call), dict):
            raise UsageError(f"{where}: the arguments of a tool call must be an object, or the JSON text of one")


def arguments_of(call: Json) -> Json:
    """The arguments of a tool call, read from JSON where they are text; the text itself where it is no JSON."""
    arguments = call["function"].get("arguments", {})
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments


def formed_call(call: Json, as_text: bool) -> Json:
    """The tool call with its arguments as an object, or as JSON text."""
    arguments = arguments_of(call)
    arguments = json.dumps(arguments, ensure_ascii=False) if as_text else arguments
    return {"type": "function", **call, "function": {**call["function"], "arguments": arguments}}


def with_call_ids(messages: list[Message], name: Callable[[str], str]) -> list[Message]:
    """``messages`` in which every tool call has an id, which ``name`` makes of its own or of its place; a tool's turn
    that names no call answers the first that is still open."""
    numbered: list[Message] = []
    open_calls: list[str] = []
    for i, message in enumerate(messages):
        message = {**message}
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{**c, "id": name(c.get("id") or f"call_{i}_{k}")} for k, c in enumerate(calls)]
            open_calls += [call["id"] for call in message["tool_calls"]]
        elif message["role"] == "tool":
            given = message.get("tool_call_id")
            answered = name(given) if given else next(iter(open_calls), name(f"call_{i}"))
            message["tool_call_id"] = answered
            open_calls = [each for each in open_calls if each != answered]
        numbered.append(message)
    return numbered


def for_endpoint(messages: list[Message]) -> list[Message]:
    """``messages`` as an OpenAI endpoint takes them: every tool call with an id, and its arguments as text."""
    if not any(message.get("tool_calls") for message in messages):
        return messages
    sent = with_call_ids(messages, str)
    for message in sent:
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [formed_call(call, as_text=True) for call in calls]
    return sent


def _named(function: object) -> bool:
    return isinstance(function, dict) and isinstance(function.get("name"), str) and bool(function["name"])


def merged_system(messages: list[Message]) -> list[Message]:
    """``messages`` with every system text put before the user's turn that follows it, for models without a system role;
    one that no user's turn follows stays."""
    merged: list[Message] = []
    waiting: list[Message] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message)
            continue
        if message["role"] == "user" and waiting:
            texts = [m["content"] for m in (*waiting, message) if m["content"].strip()]
            message = {**message, "content": "\n\n".join(texts)}
            waiting = []
        merged.append(message)
    return messages if waiting else merged


def question_text(prompt: list[Message]) -> str:
    """What the last user's turn says; of a prompt without one, the last turn."""
    users = [message["content"] for message in prompt if message["role"] == "user"]
    return users[-1] if users else prompt[-1]["content"] if prompt else ""
