"""A user's record as messages: prompt, demonstration, tools, gold answer; `BadRow` says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sdft_cli.messages import Message, is_trained
from sdft_cli.rows.formats import BadRow, text
from sdft_cli.rows.message_formats import PROMPT_WEIGHTS, Remarks, message_of, tools_of
from sdft_cli.rows.tool_texts import with_calls
from sdft_cli.rows.values import as_text, is_missing, parsed, rows_of
from sdft_cli.types import Json

TRAILING = "turns of the user at the end, which nobody answers, are left out"


class Conversation(NamedTuple):
    """What a record says; ``remarks`` are what is not used of it."""

    prompt: list[Message]
    demonstration: str | list[Message] | None
    tools: list[Json] | None
    remarks: Remarks


def conversation_of(values: Mapping[str, Json], names: Mapping[str, str], remarks: Remarks) -> Conversation:
    """The conversation in the ``values`` of a record by what they are for; ``names`` are their columns."""
    column = names.get("messages") or names.get("prompt") or "prompt"
    tools = values.get("tools")
    answered = not (is_missing(values.get("demonstration")) and is_missing(values.get("answer")))
    listed = values.get("messages") if "messages" in values else parsed(values.get("prompt"), "[")
    if "messages" in values or isinstance(listed, list):
        listed = _listed(listed, column)
        listed = listed[0] if len(listed) == 1 and isinstance(listed[0], list) else listed  # BFCL's turns of messages
        stored, tools = with_calls(listed, parsed(tools), remarks)
        messages = [message_of(m, f"{column}[{i}]", remarks) for i, m in enumerate(stored)]
        prompt, rest = _divided(messages, answered, remarks)
    else:
        prompt, rest = [*_history(values, names), _asked(values, names)], []
    prompt = _with_system(prompt, values, names)
    demonstration = _demonstration_of(values, names, rest, remarks)
    if not answered and demonstration is None and prompt[-1]["role"] == "tool":
        raise BadRow("demonstration does not end with the assistant's turn", "role 'tool'")
    if any("weight" in message for message in prompt):
        remarks.add(PROMPT_WEIGHTS)
        prompt = [_plain(message) for message in prompt]
    read_tools = tools_of(tools, names.get("tools", "tools"), remarks) if tools is not None else None
    return Conversation(prompt, demonstration, read_tools, remarks)


def _asked(values: Mapping[str, Json], names: Mapping[str, str]) -> Message:
    """The user's turn, from the columns of a prompt and of its input."""
    if is_missing(values.get("prompt")) or isinstance(values.get("prompt"), dict | list):
        question = text({names.get("prompt", "prompt"): values.get("prompt")}, names.get("prompt", "prompt"), "prompt")
    else:
        question = as_text(values["prompt"], "prompt", names.get("prompt", "prompt"))
    if not is_missing(values.get("input")):
        question = f"{question}\n\n{as_text(values['input'], 'input', names.get('input', 'input'))}"
    return {"role": "user", "content": question}


def _history(values: Mapping[str, Json], names: Mapping[str, str]) -> list[Message]:
    """Earlier turns, from a list of pairs of what was asked and what was answered."""
    pairs = parsed(values.get("history"), "[")
    if is_missing(pairs):
        return []
    column = names.get("history", "history")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise BadRow("history is not a list of pairs", f"field {column!r}")
    turns = [(role, said) for pair in pairs for role, said in zip(("user", "assistant"), pair, strict=True)]
    return [{"role": role, "content": as_text(said, "earlier turn", column)} for role, said in turns]


def _with_system(prompt: list[Message], values: Mapping[str, Json], names: Mapping[str, str]) -> list[Message]:
    if is_missing(values.get("system")):
        return prompt
    column = names.get("system", "system")
    system = as_text(values["system"], "system message", column)
    if prompt[0]["role"] == "system" and prompt[0]["content"].strip():
        if prompt[0]["content"] != system:
            raise BadRow("two system messages", f"one in the messages, and another in field {column!r}")
        return prompt
    return [{"role": "system", "content": system}, *prompt[prompt[0]["role"] == "system" :]]


def _demonstration_of(
    values: Mapping[str, Json], names: Mapping[str, str], rest: list[Message], remarks: Remarks
) -> str | list[Message] | None:
    """The turns after the prompt, else those of the column; a turn that is nothing but text as text. None if there are
    none."""
    column = names.get("demonstration", "demonstration")
    value = values.get("demonstration")
    value = None if isinstance(value, float) and is_missing(value) else value
    if rest and value is not None:
        raise BadRow("two demonstrations", f"one in the messages, and another in field {column!r}")
    if isinstance(value, list | dict) or (isinstance(value, str) and _is_messages(parsed(value, "["))):
        stored = parsed(value, "[")
        rest = [
            message_of(m, f"{column}[{i}]", remarks)
            for i, m in enumerate(_listed(stored if isinstance(stored, list) else [stored], column))
        ]
    elif value is not None:
        return as_text(value, "demonstration", column)
    if not rest:
        return None
    _check_turns(rest)
    plain = _plain(rest[0])
    return plain["content"] if len(rest) == 1 and set(plain) == {"role", "content"} else rest


def _is_messages(value: Json) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and {"role", "from"} & set(m) for m in value)
    )


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


def _listed(value: Json, column: str) -> list[Json]:
    """Messages as a list, also where they are the text of one (in CSV), or stored by columns (in Parquet)."""
    value = rows_of(parsed(value))
    if not isinstance(value, list) or not value:
        raise BadRow("no messages", f"field {column!r} is {'empty' if value == [] else type(value).__name__}")
    return value


def _divided(messages: list[Message], answered: bool, remarks: Remarks) -> tuple[list[Message], list[Message]]:
    """What is asked, and the turns of the answer: all after the last user's turn. Messages that end with a tool's turn
    ask for what the assistant makes of it, and hold no answer. A user's turn at the end that nothing answers is left
    out where the assistant has spoken before."""
    if not any(m["role"] == "user" for m in messages):
        raise BadRow("no user's turn", f"roles: {', '.join(m['role'] for m in messages)}")
    if messages[-1]["role"] == "tool":
        return messages, []
    if not answered and messages[-1]["role"] == "user":
        spoken = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=None)
        if spoken is not None:
            remarks.add(TRAILING)
            messages = messages[: spoken + 1]
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    return messages[: last + 1], messages[last + 1 :]
