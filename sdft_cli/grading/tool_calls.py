"""The grader ``tool-calls``: the completion calls the same functions with the same arguments as the gold answer.

Calls are compared as a multiset, as BFCL compares parallel calls (Patil et al. 2025): their order does not matter,
their number does. Names must be equal; arguments are equal by value, as JSON has it (1 is 1.0, but not true and not
"1"). Texts must be equal: unlike BFCL's checker, case and punctuation count. An argument that is null counts as absent,
and one that is absent has the default that the row's ``tools`` state for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from sdft_cli.grading import json_values
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.grading.tool_call_formats import Call, Schemas, Unreadable, Untyped, calls_in, from_json, literal
from sdft_cli.types import Example, Json, Score


def tool_calls(completion: str, row: Example, folder: Path | None = None) -> Score:
    """Right if the completion's calls are the gold ones; if the gold answer calls nothing, right if nothing is called.

    ``extra["names"]`` tells whether at least the names are right.
    """
    schemas = schemas_of(row.tools)
    try:
        gold = gold_calls(row.answer, schemas)
    except Unreadable as error:
        return Score(None, None, f"unscored: the gold answer: {error}")
    if gold is None:
        return Score(None, None, "unscored: the row has no gold answer")
    try:
        given = calls_in(strip_thinking(completion), schemas)
    except Unreadable as error:
        return Score(0.0, None, str(error), {"names": 0.0})
    names = Counter(call.name for call in given) == Counter(call.name for call in gold)
    right = names and same_calls([_full(c, schemas) for c in given], [_full(c, schemas) for c in gold])
    why = "right" if right else f"{'arguments' if names else 'calls'} differ: expected {_shown(gold)}"
    return Score(float(right), _shown(given), why, {"names": float(names)})


def gold_calls(answer: Json, schemas: Schemas) -> list[Call] | None:
    """The calls of a gold answer; None without an answer. Raises `Unreadable`.

    It is a list of calls, an object with ``tool_calls``, the JSON text of one, or a text in any form that a completion
    may have (of which a list means that all are to be made); a text without a call means that nothing is to be called.
    """
    if answer is None:
        return None
    if isinstance(answer, list) and all(isinstance(each, str) for each in answer):
        return [call for each in answer for call in calls_in(each, schemas)]
    if not isinstance(answer, str):
        return from_json(answer)
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return calls_in(strip_thinking(answer), schemas)
    return from_json(value) if isinstance(value, dict | list) else []


def schemas_of(tools: Sequence[Json] | None) -> dict[str, Json]:
    """The JSON Schemas of the tools' parameters, by the tools' names."""
    functions = [tool["function"] for tool in tools or []]
    return {function["name"]: function.get("parameters") for function in functions}


def same_calls(given: Sequence[Call], gold: Sequence[Call]) -> bool:
    """Whether the calls are the same, each as often, in any order."""
    left = list(gold)
    for call in given:
        found = next((i for i, other in enumerate(left) if _same_call(call, other)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _same_call(given: Call, gold: Call) -> bool:
    arguments = given.arguments, gold.arguments
    if given.name != gold.name or set(arguments[0]) != set(arguments[1]):
        return False
    return all(_same(arguments[0][key], arguments[1][key]) for key in arguments[0])


def _same(given: Json, gold: Json) -> bool:
    """Whether two arguments are equal; text without a type is taken for what the other side is."""
    if isinstance(gold, Untyped) and not isinstance(given, Untyped):
        given, gold = gold, given
    if isinstance(given, Untyped) and not isinstance(gold, str):
        given = literal(given)
    return json_values.equal(_exact(given), _exact(gold))


def _exact(value: Json) -> Json:
    """Numbers as they are written: 0.1 is 1e-1."""
    if isinstance(value, dict):
        return {key: _exact(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_exact(each) for each in value]
    return Decimal(repr(value)) if isinstance(value, float) else value


def _full(call: Call, schemas: Schemas) -> Call:
    """The call with the defaults that its tool states, and without nulls."""
    schema = schemas.get(call.name)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    stated = properties.items() if isinstance(properties, dict) else ()
    defaults = {key: each["default"] for key, each in stated if isinstance(each, dict) and "default" in each}
    arguments = {key: value for key, value in call.arguments.items() if value is not None}
    return Call(call.name, {key: v for key, v in {**defaults, **arguments}.items() if v is not None})


def _shown(calls: Sequence[Call]) -> str:
    texts = (f"{name}({json.dumps(arguments, ensure_ascii=False)})" for name, arguments in calls)
    return "; ".join(texts)[:1000] or "no call"


def rendered(answer: Json) -> str:
    """Gold calls as Hermes and Qwen write them."""
    calls = gold_calls(answer, {}) or []
    forms = (json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False) for name, arguments in calls)
    text = answer if isinstance(answer, str) and not json_values.is_json(answer) else "no call"
    return "\n".join(f"<tool_call>\n{form}\n</tool_call>" for form in forms) or text


def calls_of(row: Example) -> bool:
    """Whether a row's gold answer, or the first turn of its demonstration, is tool calls."""
    if row.answer is None:
        return isinstance(row.demonstration, list) and bool(row.demonstration[0].get("tool_calls"))
    try:
        return json_values.is_json(row.answer) and bool(from_json(json_values.read_gold(row.answer)))
    except ValueError:
        return False


def suits(rows: Sequence[Example]) -> bool:
    """Most rows' gold answers are calls, and the others have tools that are not called."""
    others = [row for row in rows if not calls_of(row)]
    return 2 * len(others) <= len(rows) and all(row.tools and isinstance(row.answer, str | None) for row in others)


TOOL_CALLS = Grader(
    "tool-calls",
    "the completion calls the gold answer's functions with the same arguments, in any order and in any of the usual "
    "forms; where the gold answer calls nothing, it calls nothing",
    "the same meaning in another spelling is wrong (Paris, FR); order does not matter even where one call needs "
    "another's result; of several turns only the first is compared; what is said beside the calls is not read",
    score_row=tool_calls,
    suits_rows=suits,
    gold="json",
    render=rendered,
)
