"""One message of a user's record, in any of the forms in which they are stored, as ours; tools likewise.

OpenAI's form (also its older ``function_call`` and ``functions``), ShareGPT's (``from`` and ``value``), reasoning under
the names that datasets give it, and tools also with their parameters listed by name. What is not used is a remark,
which the manifest counts.
"""

from __future__ import annotations

import json
from typing import Any

from sdft_cli.messages import ROLES, Message
from sdft_cli.rows.formats import BadRow
from sdft_cli.types import Json

#: Names of roles besides our own.
_ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "function_call": "assistant",
}
_REASONING = ("reasoning_content", "reasoning", "thinking")
_OF_ASSISTANT = (*_REASONING, "tool_calls", "function_call")
_USED = ("role", "from", "content", "value", *_OF_ASSISTANT, "tool_call_id", "name", "weight")

#: Remarks on a row: what was not used of it.
Remarks = set[str]
NULLS = "null values in tools and tool calls are left out"
PROMPT_WEIGHTS = "weights of turns before the last question have no effect: such turns are context, never trained on"
UNUSED_KEY = "a key of messages is not used: "


def message_of(value: Json, where: str, remarks: Remarks) -> Message:
    """The message at ``where`` of its row; raises `BadRow`."""
    if not isinstance(value, dict):
        raise BadRow("message is not an object", f"{where} is {type(value).__name__}")
    given = {key: each for key, each in value.items() if each is not None}  # null in files of columns: there is none
    named = given.get("role", given.get("from"))
    role = _ROLE_NAMES.get(named, named) if isinstance(named, str) else named
    if role not in ROLES:
        raise BadRow("unknown role", f"{where} has {named!r}; roles: {', '.join(ROLES)}")
    calls = _calls(given, named, where, remarks)
    content = "" if named == "function_call" else _content(given, role, calls, where)
    message: Message = {"role": role, "content": content}
    if role == "assistant":
        reasoning = next((given[key] for key in _REASONING if given.get(key)), "")
        if not isinstance(reasoning, str):
            raise BadRow("reasoning is not text", f"{where} is {type(reasoning).__name__}")
        if reasoning.strip():
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = calls
    _add_further(message, given, where)
    unused = [key for key in given if key not in _USED]
    unused += [key for key in _OF_ASSISTANT if given.get(key) and role != "assistant"]
    unused += ["tool_call_id"] if given.get("tool_call_id") and role != "tool" else []
    remarks |= {f"{UNUSED_KEY}{key}" for key in unused}
    return message


def tools_of(value: Json, column: str, remarks: Remarks) -> list[Json] | None:
    """Tools in OpenAI's form from a list, or from the JSON text of one; None if there are none; raises `BadRow`."""
    tools = _parsed(value, column, "tools are not a list", "JSON text of a list")
    if not tools:
        return None
    if not isinstance(tools, list):
        raise BadRow("tools are not a list", f"field {column!r} is {type(tools).__name__}")
    return [_tool(tool, f"{column}[{i}]", remarks) for i, tool in enumerate(tools)]


def _content(given: dict[str, Json], role: str, calls: list[Json], where: str) -> str:
    content = given.get("content", given.get("value"))
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "\n".join(p["text"] for p in content)
    if content is None and calls:
        return ""
    if not isinstance(content, str):
        raise BadRow("content is not text", f"{where} is {'null' if content is None else type(content).__name__}")
    # an empty system message switches off a template's own; a tool may have nothing to say
    if not content.strip() and not calls and role in ("user", "assistant"):
        raise BadRow("empty content", f"{where} of role {role!r}")
    return content


def _add_further(message: Message, given: dict[str, Json], where: str) -> None:
    if message["role"] == "tool" and (answered := given.get("tool_call_id")):
        message["tool_call_id"] = str(answered)
    if name := given.get("name"):
        message["name"] = str(name)
    if (weight := given.get("weight")) is not None:
        if isinstance(weight, bool) or weight not in (0, 1):
            raise BadRow("weight is neither 0 nor 1", f"{where} has {weight!r}")
        if weight == 1 and message["role"] != "assistant":
            raise BadRow("only the assistant's turns can be trained on", f"{where} of role {message['role']!r}")
        message["weight"] = int(weight)


def _calls(given: dict[str, Json], named: Json, where: str, remarks: Remarks) -> list[Json]:
    """The tool calls of a message, by any of their names."""
    if named == "function_call":  # ShareGPT: a turn that is nothing but calls
        calls = _parsed(given.get("value", given.get("content")), where, "tool call is not JSON", "JSON text of a call")
    elif given.get("tool_calls"):
        calls = _parsed(given["tool_calls"], where, "tool calls are not a list", "JSON text of a list")
    else:
        calls = given.get("function_call") or []
    calls = calls if isinstance(calls, list) else [calls]
    return [_call(call, f"{where}.tool_calls[{i}]", remarks) for i, call in enumerate(calls)]


def _call(call: Json, where: str, remarks: Remarks) -> Json:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRow("tool call without a function's name", where)
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parsed(arguments, where, "arguments of a tool call are not JSON", "JSON text of an object")
    elif isinstance(arguments, dict):
        arguments = _without_nulls(arguments, remarks)
    if not isinstance(arguments := {} if arguments is None else arguments, dict):
        raise BadRow("arguments of a tool call are not an object", f"{where} is {type(arguments).__name__}")
    own = {"id": str(call["id"])} if function is not call and call.get("id") else {}
    return {**own, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tool(tool: Json, where: str, remarks: Remarks) -> Json:
    tool = _without_nulls(_parsed(tool, where, "a tool is not an object", "JSON text of an object"), remarks)
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRow("tool without a function's name", where)
    function = _with_schema(function)
    return {**tool, "function": function} if "function" in tool else {"type": "function", "function": function}


#: Types of parameters as Python calls them, as JSON schema does.
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object"}


def _with_schema(function: Json) -> Json:
    """The function with a JSON schema for its parameters, where they are listed by name as in xLAM's data:
    ``{"city": {"type": "str, optional", "description": …, "default": …}}``."""
    listed = function.get("parameters")
    if not isinstance(listed, dict) or not listed or {"type", "properties", "$ref"} & set(listed):
        return function
    if not all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in listed.values()):
        return function
    required = [name for name, each in listed.items() if "default" not in each and "optional" not in each["type"]]
    properties = {name: {**each, "type": _schema_type(each["type"])} for name, each in listed.items()}
    schema = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    return {**function, "parameters": schema}


def _schema_type(written: str) -> str:
    name = written.partition(",")[0].strip()
    if name.lower().startswith(("list", "tuple", "set")):
        return "array"
    return _TYPES.get(name.lower(), "object" if name.lower().startswith("dict") else name)


def _parsed(value: Json, where: str, reason: str, wanted: str) -> Json:
    """``value``, read from JSON where it is text; None for blank text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        raise BadRow(reason, f"{where} is {value[:40]!r}, which is not the {wanted}") from None


def _without_nulls(value: Any, remarks: Remarks) -> Any:
    """``value`` without keys of value null: files of columns write them for whatever another row has."""
    if isinstance(value, dict):
        if any(each is None for each in value.values()):
            remarks.add(NULLS)
        return {key: _without_nulls(each, remarks) for key, each in value.items() if each is not None}
    return [_without_nulls(each, remarks) for each in value] if isinstance(value, list) else value
