"""Tool calls read out of a completion, in any of the forms in which models write them.

=====================================  =============================================================================
JSON in a mark                         ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` (Hermes, Qwen),
                                       ``[TOOL_CALLS][…]`` (Mistral), ``<|python_tag|>`` (Llama), ``<|tool_call|>`` …
JSON by itself                         an object or list of calls: ``{"name", "parameters"}`` (Llama 3),
                                       ``{"tool_calls": [{"function": …}]}`` (OpenAI), also in a block of code
a name, then JSON                      ``name[ARGS]{…}`` (Mistral), ``functions.name:0`` (Kimi), ``to=functions.name``
                                       (gpt-oss), ``function<｜tool▁sep｜>name`` (DeepSeek)
XML                                    ``<function=name><parameter=key>…`` (Qwen Coder), ``<function=name>{…}``
                                       (Llama 3.1), ``<invoke name=…>``, ``<arg_key>…<arg_value>…`` (GLM)
Python                                 ``[f(a=1), g(b="x")]`` (Llama 4, LFM2, Gemma's ``tool_code``)
lines                                  ``Action: f`` and ``Action Input: {…}`` (ReAct)
=====================================  =============================================================================

Special tokens may be missing: decoding leaves them out. A call that is mentioned within prose is none, unless it is
JSON with a name and arguments.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sdft_cli.grading.fences import fenced
from sdft_cli.grading.json_values import in_prose
from sdft_cli.grading.task_rules import parse_calls
from sdft_cli.types import Json


class Call(NamedTuple):
    """A call of the function ``name``; values of the class `Untyped` were written in a form without types."""

    name: str
    arguments: dict[str, Json]


class Untyped(str):
    """An argument as the text between two XML tags: whether ``5`` is a number there, only the tool's schema tells."""


class Unreadable(ValueError):
    """Something is meant as a call and cannot be read as one."""


#: Tools by name: the JSON Schemas of their parameters.
Schemas = Mapping[str, Json]
_NAME = r"[A-Za-z_][\w.\-/]*"
#: What encloses calls, and what closes it.
_MARKS = {
    r"<tool_calls?>": r"</tool_calls?>",
    r"<function_calls?>": r"</function_calls?>",
    r"<TOOLCALL>": r"</TOOLCALL>",
    r"<\|tool_call\|>": r"<\|/tool_call\|>|<\|tool_call\|>",
    r"<\|tool_call_start\|>": r"<\|tool_call_end\|>",
    r"<\|tool_calls_section_begin\|>": r"<\|tool_calls_section_end\|>",
    r"<｜tool▁calls▁begin｜>": r"<｜tool▁calls▁end｜>",
    r"<start_function_call>": r"<end_function_call>",
    r"<\|action_start\|>(?:<\|plugin\|>)?": r"<\|action_end\|>",
    r"<\|python_tag\|>": r"<\|eom_id\|>|<\|eot_id\|>",
    r"\[TOOL_CALLS\]": r"(?=\[TOOL_CALLS\])|</s>",
    r"\bfunctools(?=\[)": r"\Z",
}
_MARKED = re.compile("|".join(f"(?:{start})(.*?)(?:{end}|\\Z)" for start, end in _MARKS.items()), re.DOTALL)
_XML = re.compile(
    rf"<function=[\"']?(?P<f>{_NAME})[\"']?>(?P<body>.*?)(?:</function>|\Z)"
    rf"|<(?:\w+:)?invoke\s+name=[\"'](?P<i>{_NAME})[\"']\s*>(?P<inside>.*?)(?:</(?:\w+:)?invoke>|\Z)",
    re.DOTALL,
)
_PARAMETER = re.compile(
    r"<(?:\w+:)?parameter(?:=|\s+name=)[\"']?([^\"'>]+)[\"']?[^>]*>(.*?)</(?:\w+:)?parameter>"
    r"|<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>",
    re.DOTALL,
)
_KEYED = re.compile(rf"\s*({_NAME})\s*(?=<arg_key>|\Z)")
_NAMED_JSON = re.compile(
    rf"(?:<｜tool▁call▁begin｜>|function(?=<｜)|<｜tool▁sep｜>|<\|tool_call_begin\|>|<\|channel\|>|commentary )*"
    rf"\s*(?:to=)?(?P<name>{_NAME})(?::\d+)?\s*(?:<｜tool▁sep｜>)?"
    r"(?:<\|tool_call_argument_begin\|>|\[CALL_ID\][\w-]*|\[ARGS\]|<\|constrain\|>|<\|message\|>|\s*json\b|\s|```(?:json)?)*"
    r"(?=\{)"
)
_BETWEEN = re.compile(
    r"(?:\s|[,;]|```|<\|?/?tool_call(?:_end|_begin)?\|?>|<｜tool▁call▁end｜>|<\|call\|>|<\|start\|>assistant|\[TOOL_CALLS\])*"
)
_GEMMA = re.compile(rf"call:({_NAME})(\{{.*\}})", re.DOTALL)
_ESCAPED = re.compile(r"<escape>(.*?)<escape>", re.DOTALL)
_BARE_KEY = re.compile(r"([{,]\s*)([A-Za-z_]\w*)(\s*:)")
_REACT = re.compile(r"^[ \t]*Action(?: Input)?:", re.MULTILINE)
_OBSERVED = re.compile(r"^[ \t]*Observation:", re.MULTILINE)
_INPUT_IN_FENCES = re.compile(r"(Action Input:\s*)```(?:json)?\s*(.*?)```", re.DOTALL)
_DECODER = json.JSONDecoder()


def calls_in(text: str, schemas: Schemas) -> list[Call]:
    """The calls in a completion, in order; none is an empty list. Raises `Unreadable`."""
    marked = [next(part for part in match.groups() if part is not None) for match in _MARKED.finditer(text)]
    if marked:
        return [call for part in marked for call in _meant(part, schemas)]
    if _XML.search(text):
        return _from_xml(text, schemas)
    if (calls := _read(text, schemas)) is not None:
        return calls
    for block in reversed(fenced(text)):
        if block.language in ("", "json", "tool_code", "tool_call", "python") and (calls := _read(block.text, schemas)):
            return calls
    if _REACT.search(text):
        return _from_lines(text)
    in_text = [value for value in in_prose(text) if _is_call(value)]
    return [call for value in in_text for call in from_json(value)]


def _from_lines(text: str) -> list[Call]:
    """ReAct's lines, up to what the model takes for the tool's reply."""
    calls, problem = parse_calls(_INPUT_IN_FENCES.sub(r"\1\2", _OBSERVED.split(text)[0]))
    if problem:
        raise Unreadable(problem)
    return [Call(name, arguments) for name, arguments in calls]


def from_json(value: Json) -> list[Call]:
    """Calls from a JSON value: a call, a list of calls, or an object with ``tool_calls``. Raises `Unreadable`."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    if isinstance(value, list):
        return [call for each in value for call in from_json(each)]
    function = value.get("function") if isinstance(value, dict) else None
    function = function if isinstance(function, dict) else value
    if not isinstance(function, dict):
        raise Unreadable("a call is not an object")
    name = next((function[key] for key in _NAMES if isinstance(function.get(key), str)), None)
    arguments: Json = next((function[key] for key in _ARGUMENTS if key in function), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise Unreadable("the arguments of a call are not JSON") from None
    if not name or not isinstance(arguments := {} if arguments is None else arguments, dict):
        raise Unreadable("a call has no name" if not name else "the arguments of a call are not an object")
    return [Call(_plain(name), arguments)]


_NAMES = ("name", "tool_name", "function", "function_name", "tool", "action", "Action")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "Action_Input", "tool_input")


def _plain(name: str) -> str:
    return name.strip().removeprefix("functions.")


def _is_call(value: Json) -> bool:
    """Whether a JSON value is meant as a call, or as several; an empty list is not."""
    if isinstance(value, list):
        return bool(value) and all(_is_call(each) for each in value)
    if not isinstance(value, dict):
        return False
    function = value.get("function")
    if isinstance(value.get("tool_calls"), list) or (isinstance(function, dict) and "name" in function):
        return True
    named = any(isinstance(value.get(key), str) for key in _NAMES)
    return named and any(isinstance(value.get(key, 0), dict | str) for key in _ARGUMENTS)


# --- one form after another -------------------------------------------------------------------------------------------


def _meant(part: str, schemas: Schemas) -> list[Call]:
    """What stands in a mark, which must be calls."""
    if (calls := _read(part, schemas, meant=True)) is None:
        raise Unreadable(f"a call cannot be read: {' '.join(part.split())[:60]!r}")
    return calls


def _read(text: str, schemas: Schemas, meant: bool = False) -> list[Call] | None:
    """All of ``text`` as calls; None if it is none. ``meant``: it is surely meant as one."""
    text = text.strip()
    readers: tuple[Callable[[], list[Call] | None], ...] = (
        lambda: _from_values(text, meant),
        lambda: _from_xml(text, schemas) if _XML.search(text) else None,
        lambda: _from_pairs(text, schemas),
        lambda: _from_gemma(text),
        lambda: _from_named_json(text, schemas),
        lambda: _from_python(text, schemas),
    )
    return next((calls for read in readers if (calls := read()) is not None), None)


def _from_values(text: str, meant: bool) -> list[Call] | None:
    """JSON values one after another, each a call or a list of calls."""
    blocks = fenced(text) if text.startswith("```") and text.endswith("```") else []
    text = blocks[0].text.strip() if len(blocks) == 1 else text
    values, position = [], 0
    while position < len(text):
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        values.append(value)
        position = matched.end() if (matched := _BETWEEN.match(text, position)) else position
    if not values or not (values == [[]] or all(map(_is_call, values)) or (meant and isinstance(values[0], dict))):
        return None
    return [call for value in values for call in from_json(value)]


def _known(name: str, schemas: Schemas) -> str:
    """The name without DeepSeek's word before it, whose marks may be missing."""
    return name.removeprefix("function") if name not in schemas and name.removeprefix("function") in schemas else name


def _from_named_json(text: str, schemas: Schemas) -> list[Call] | None:
    """``name{…}``, with the marks of several families between or without them."""
    calls, position = list[Call](), 0
    while position < len(text):
        matched = _NAMED_JSON.match(text, position)
        if not matched:
            return None
        try:
            arguments, position = _DECODER.raw_decode(text, matched.end())
        except (ValueError, RecursionError):
            return None
        calls.append(Call(_known(_plain(matched["name"]), schemas), arguments))
        position = between.end() if (between := _BETWEEN.match(text, position)) else position
    return calls or None


def _from_xml(text: str, schemas: Schemas) -> list[Call]:
    calls = []
    for match in _XML.finditer(text):
        name, body = _plain(match["f"] or match["i"]), (match["body"] or match["inside"] or "").strip()
        if body.startswith("{"):
            calls += from_json({"name": name, "arguments": body})
        else:
            calls.append(Call(name, _parameters(body, schemas.get(name))))
    return calls


def _from_pairs(text: str, schemas: Schemas) -> list[Call] | None:
    """GLM's: the name, and pairs of ``<arg_key>`` and ``<arg_value>``."""
    matched = _KEYED.match(text)
    if not matched or (matched.end() == len(text) and matched[1] not in schemas):
        return None
    return [Call(_plain(matched[1]), _parameters(text[matched.end() :], schemas.get(matched[1])))]


def _parameters(body: str, schema: Json) -> dict[str, Json]:
    found = {}
    for match in _PARAMETER.finditer(body):
        key, value = (match[1] or match[3]).strip(), match[2] if match[1] else match[4]
        value = value.removeprefix("\n").removesuffix("\n")
        found[key] = typed(value, _property(schema, key))
    return found


def _property(schema: Json, key: str) -> Json:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties.get(key) if isinstance(properties, dict) else None


def typed(text: str, schema: Json) -> Json:
    """The text of an argument as its schema has it; `Untyped` where the schema does not tell."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "string":
        return text
    return Untyped(text) if not isinstance(kind, str) else literal(text)


def literal(text: str) -> Json:
    """JSON, or a literal of Python's (``True``, ``'x'``), else the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _from_gemma(text: str) -> list[Call] | None:
    """``call:name{key:<escape>text<escape>,other:5}``: JSON but for bare keys and the quotes."""
    matched = _GEMMA.fullmatch(text)
    if not matched:
        return None
    quoted: list[str] = []

    def aside(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f'"\ufffc{len(quoted) - 1}"'

    plain = _BARE_KEY.sub(r'\1"\2"\3', _ESCAPED.sub(aside, matched[2]))
    restored = re.sub('"\ufffc(\\d+)"', lambda match: json.dumps(quoted[int(match[1])]), plain)
    return from_json({"name": matched[1], "arguments": restored})


# --- Python -----------------------------------------------------------------------------------------------------------


def _from_python(text: str, schemas: Schemas) -> list[Call] | None:
    """``f(a=1)``, or a list of such calls, whose arguments are literals."""
    try:
        body = ast.parse(text).body
        nodes = [each.value for each in body if isinstance(each, ast.Expr)]
        if len(nodes) == 1 and isinstance(nodes[0], ast.List):
            nodes = list(nodes[0].elts)
        if not nodes or len(body) > len(nodes) or not all(isinstance(node, ast.Call) for node in nodes):
            return None
        return [_python_call(node, schemas) for node in nodes if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _python_call(node: ast.Call, schemas: Schemas) -> Call:
    name = ast.unparse(node.func)
    if not re.fullmatch(_NAME, name) or (schemas and _plain(name) not in schemas):
        raise ValueError("the name of no tool")
    arguments = dict(zip(_order(schemas.get(_plain(name)), len(node.args)), map(_value, node.args), strict=True))
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("not an argument by its name")
        arguments[keyword.arg] = _value(keyword.value)
    return Call(_plain(name), arguments)


def _order(schema: Json, count: int) -> Sequence[str]:
    """The names of the first ``count`` parameters; ValueError if nothing tells them."""
    names = list(_properties(schema))
    if len(names) < count:
        raise ValueError("arguments without names")
    return names[:count]


def _properties(schema: Json) -> Iterator[str]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return iter(properties if isinstance(properties, dict) else ())


_WORDS = {"true": True, "false": False, "null": None}


def _value(node: ast.expr) -> Json:
    """A literal of Python's, in which JSON's words are allowed; tuples are lists."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_value(key) if key is not None else None for key in node.keys]
        return {str(key): _value(value) for key, value in zip(keys, node.values, strict=True)}
    return ast.literal_eval(node)
