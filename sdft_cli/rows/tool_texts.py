"""Tools and tool calls that a dataset writes into the text of its messages: Hermes's tags, Glaive's chats.

They become tools, tool calls and tools' turns, which every model's own chat template writes in its own way.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from sdft_cli.rows.formats import BadRow
from sdft_cli.rows.message_formats import Remarks
from sdft_cli.types import Json

_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_GLAIVE = re.compile(r"(?:\A|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_CALL = re.compile(r"<functioncall>\s*(.*)", re.DOTALL)
_QUOTED_ARGUMENTS = re.compile(r"\"arguments\"\s*:\s*'(.*)'\s*\}", re.DOTALL)
SYSTEM_CUT = (
    "what the system text says of tools and of how to call them is left out: chat templates write it themselves"
)


def with_calls(messages: list[Json], tools: Json, remarks: Remarks) -> tuple[list[Json], Json]:
    """Messages whose text has ``<tools>``, ``<tool_call>`` or ``<tool_response>`` tags, with tool calls instead; and
    their tools, which are those of the column if there are any. Other messages are returned as they are."""
    listed = None
    read: list[Json] = []
    for message in messages:
        content = _said(message)
        role = message.get("role", message.get("from")) if isinstance(message, dict) else None
        if role == "system" and (match := _last(_TOOLS, content)) and (named := objects(match[1])) is not None:
            listed = named
            read += _system(content[: match.start()], remarks)
            continue
        read.append(message)
    if listed is None and not tools:
        return messages, tools
    return [each for message in read for each in _turns(message)], tools or listed


def objects(text: str) -> list[Json] | None:
    """The objects of a list, or of several that stand one after another; None if the text is neither."""
    text = text.strip()
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            return value if isinstance(value, list) else [value]
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return None
        found.append(value)
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
    return found or None


def glaive(values: dict[str, Json], names: Mapping[str, str], remarks: Remarks) -> dict[str, Json]:
    """A record of glaive-function-calling: its system text lists the functions, its chat is one text."""
    chat, system = values.get("messages"), values.get("system")
    if not isinstance(chat, str):
        raise BadRow("no messages", f"field {names.get('messages')!r} is {type(chat).__name__}")
    kind, tools = _glaive_system(system if isinstance(system, str) else "", remarks)
    _, *pieces = _GLAIVE.split("\n" + chat.replace("<|endoftext|>", ""))
    turns = [_glaive_turn(who, text.strip()) for who, text in zip(pieces[::2], pieces[1::2], strict=True)]
    rest = {role: value for role, value in values.items() if role not in ("system", "messages")}
    return {**rest, "messages": [*kind, *turns], "tools": values.get("tools") or tools}


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match that holds something: a text may speak of ``<tools> </tools>`` before it lists them."""
    return next((match for match in reversed(list(pattern.finditer(text))) if match[1].strip()), None)


# --- Hermes ---------------------------------------------------------------------------------------------------------


def _system(before: str, remarks: Remarks) -> list[Json]:
    """What a system text says before it comes to its tools: its sentences but for the one that introduces them."""
    remarks.add(SYSTEM_CUT)
    sentences = re.split(r"(?<=[.!?])\s+", before.strip())
    own = [
        each
        for each in sentences
        if "<tools>" not in each and "tool" not in each.lower() and "function" not in each.lower()
    ]
    kept = [each for each in own if "plug into" not in each and not each.lower().startswith("here are")]
    return [{"role": "system", "content": " ".join(kept)}] if kept else []


def _turns(message: Json) -> list[Json]:
    if not isinstance(message, dict):
        return [message]
    content, role = _said(message), message.get("role", message.get("from"))
    if role in ("assistant", "gpt", "model") and not message.get("tool_calls") and (found := _CALL.findall(content)):
        calls = [_call(written) for written in found]
        return [{**_rest(message), "role": "assistant", "content": _CALL.sub("", content).strip(), "tool_calls": calls}]
    answers = role in ("tool", "observation", "function", "user", "human") and not _RESPONSE.sub("", content).strip()
    if answers and (found := _RESPONSE.findall(content)):
        return [{**_rest(message), "role": "tool", "content": each.strip()} for each in found]
    return [message]


def _call(written: str) -> Json:
    found = objects(written)
    if not found or len(found) != 1 or not isinstance(found[0], dict):
        raise BadRow("tool call is not JSON", f"<tool_call> with {written.strip()[:40]!r}")
    return found[0]


def _rest(message: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in message.items() if key not in ("role", "from", "content", "value")}


def _said(message: Any) -> str:
    content = message.get("content", message.get("value")) if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


# --- Glaive -----------------------------------------------------------------------------------------------------------


def _glaive_system(text: str, remarks: Remarks) -> tuple[list[Json], list[Json] | None]:
    """The system message, if it says more than which functions there are, and the functions."""
    said = text.strip().removeprefix("SYSTEM:").strip()
    at = said.find("{")
    if at < 0:
        return ([{"role": "system", "content": said}] if said else []), None
    tools = objects(said[at:])
    if tools is None:
        raise BadRow("tools are not a list", f"the system text has {said[at : at + 40]!r}, which is not JSON")
    remarks.add(SYSTEM_CUT)
    return [], tools


def _glaive_turn(who: str, text: str) -> Json:
    if who != "ASSISTANT":
        return {"role": "user" if who == "USER" else "tool", "content": text}
    if not (match := _GLAIVE_CALL.search(text)):
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text[: match.start()].strip(), "tool_calls": [_glaive_call(match[1])]}


def _glaive_call(written: str) -> Json:
    """``{"name": …, "arguments": '{…}'}``: JSON, but for the quotes around the arguments."""
    quoted = _QUOTED_ARGUMENTS.search(written)
    plain = written[: quoted.start()] + '"arguments": ' + quoted[1].replace("\\'", "'") + "}" if quoted else written
    try:
        call = json.loads(plain)
    except ValueError:
        raise BadRow("tool call is not JSON", f"<functioncall> with {written[:40]!r}") from None
    return call
