"""One record of a user's file as a `Reading`: what it asks, and what it says of the answer, before all rows together
decide how indices are counted, which labels there are, and how the prompts end (`rows.finished_rows`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sdft_cli.messages import Message
from sdft_cli.rows.answers import Gold, gold_answer
from sdft_cli.rows.columns import slots
from sdft_cli.rows.conversations import conversation_of
from sdft_cli.rows.formats import BadRow, LeftOut, Record
from sdft_cli.rows.layout_table import Kind
from sdft_cli.rows.layouts import Plan, grader_columns
from sdft_cli.rows.message_formats import Remarks
from sdft_cli.rows.options import Options, drawn, gold_of, options_of
from sdft_cli.rows.passages import passage_text
from sdft_cli.rows.special_records import READERS, Values
from sdft_cli.rows.values import as_text, is_missing
from sdft_cli.types import Json

UNWANTED = "its label says that the response is not wanted"
#: Stands in a prompt for the lines of its options, where a template names their column.
OPTIONS_HERE = "\0options\0"
_SQL = re.compile(r"\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_PICTURES = ("image", "images", "img", "picture", "audio", "video")


@dataclass(slots=True)
class Reading:
    """What one record says. ``options`` are there in multiple choice, ``label`` in a classification; ``liked`` is the
    label beside a response, which says whether that is wanted; ``kind`` is that of the answer."""

    prompt: list[Message]
    demonstration: str | list[Message] | None
    tools: list[Json] | None
    gold: Gold
    context: str | None
    plan: Plan
    options: Options | None = None
    liked: Json = None
    meta: dict[str, Json] = field(default_factory=dict)
    kind: Kind = "text"
    own_id: str | None = None
    number: int = 0
    file: str = ""


def reading_of(data: Record, plan: Plan, remarks: Remarks) -> Reading:
    """The reading of a record of a known layout; raises `BadRow`."""
    if shown := next((name for name in data if name.lower() in _PICTURES and not _is_nothing(data[name])), None):
        raise LeftOut("it shows what is not text", f"field {shown!r}")
    names = _names(plan)
    values = {role: field_of(data, column) for role, column in names.items()}
    if isinstance(plan.columns.passage, tuple):
        values["passage"] = "\n\n".join(filter(None, map(str, _passages(data, plan.columns.passage))))
    if plan.layout.reads:
        values = READERS[plan.layout.reads](values, names, remarks)
    if is_missing(values.get("passage")) and _is_schema(values.get("schema")):
        values = {**values, "passage": values["schema"]}
    options = _options(data, values, plan, names)
    values = _with_prompt(values, data, plan, names)
    if options is not None:
        values.pop("answer", None)
    conversation = conversation_of(values | ({"answer": "A"} if options else {}), names, remarks)
    gold = gold_answer(values.get("answer"), names.get("answer", "answer"), plan)
    kind = "sql" if _is_sql(gold.value) and _is_schema(values.get("passage")) else plan.layout.kind
    return Reading(
        prompt=_with_passage(conversation.prompt, data, values, plan),
        demonstration=conversation.demonstration,
        tools=conversation.tools,
        gold=gold,
        context=_context(values, names),
        plan=plan,
        options=options,
        liked=values.get("label"),
        meta=_meta(
            values | {role: field_of(data, column) for role, column in plan.columns.further.items()}, plan, kind
        ),
        kind=kind,
    )


def _meta(values: Values, plan: Plan, kind: Kind) -> dict[str, Json]:
    """What graders read of the row beside its gold answer: their own columns, and the tables in its prompt."""
    given = {role: values.get(role) for role in grader_columns(plan.columns)}
    if kind == "sql" and not given.get("schema"):
        passage = values.get("passage")
        given["schema"] = passage if _is_schema(passage) else values.get("schema")
    return {role: _kept(value, role) for role, value in given.items() if not is_missing(value)}


def _is_schema(value: Json) -> bool:
    return isinstance(value, str) and "create table" in value.lower()


def _is_sql(value: Json) -> bool:
    return isinstance(value, str) and _SQL.match(value) is not None


def field_of(data: Record, column: str) -> Json:
    """The value of a column, or of a field within it (``translation.de``)."""
    if column in data or "." not in column:
        return data.get(column)
    outer, _, inner = column.partition(".")
    value = data.get(outer)
    return field_of(value, inner) if isinstance(value, dict) else None


def _names(plan: Plan) -> dict[str, str]:
    """The column of every role that has one alone, and of every part of the layout's template."""
    single = {role: column for role, column in plan.columns.named.items() if isinstance(column, str)}
    return {**single, **plan.parts}


def _is_nothing(value: Json) -> bool:
    return is_missing(value) or value in ([], {})


def _kept(value: Json, role: str) -> Json:
    """A grader's column as it is kept in ``meta``."""
    return value if isinstance(value, list | dict) else as_text(value, role, role)


def _context(values: Values, names: Mapping[str, str]) -> str | None:
    value = values.get("context")
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise BadRow("context is not text", f"field {names.get('context', 'context')!r}")
    return value


def _with_prompt(values: Values, data: Record, plan: Plan, names: Mapping[str, str]) -> Values:
    """The values with a prompt made by the template, where there is one."""
    if plan.columns.template:
        filled = {column: _slot(field_of(data, column), column) for column in slots(plan.columns.template)}
        filled |= {column: OPTIONS_HERE for column in filled if column == plan.columns.choices}
        return {**values, "prompt": fill(plan.columns.template, filled)}
    if not plan.layout.template or "prompt" in values:
        return values
    said = {part: values.get(part) for part in slots(plan.layout.template)}
    said |= {"subject": ""} if is_missing(said.get("subject")) and "subject" in said else {}  # some messages have none
    filled = {
        part: value if value == "" else as_text(value, part, names.get(part, part)) for part, value in said.items()
    }
    return {**values, "prompt": fill(plan.layout.template, filled)}


def _slot(value: Json, column: str) -> str:
    if isinstance(value, list | dict):
        return passage_text(value, column) or json.dumps(value, ensure_ascii=False)
    return "" if is_missing(value) else as_text(value, "prompt", column)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with the value of each slot; braces in a value stay what they are."""
    return re.sub(r"\{([^{}]+)\}", lambda match: values.get(match[1], match[0]), template).strip()


def _with_passage(prompt: list[Message], data: Record, values: Values, plan: Plan) -> list[Message]:
    """The passage before the last user's turn, unless that has it already."""
    named = plan.columns.passage
    columns = [named] if isinstance(named, str) else list(named or ())
    parts = _passages(data, columns)
    if not columns and isinstance(values.get("passage"), str):
        parts = [values["passage"].strip()]
    return preceded(prompt, *parts)


def _passages(data: Record, columns: Sequence[str]) -> list[str]:
    return [(passage_text(field_of(data, column), column) or "").strip() for column in columns]


def preceded(prompt: list[Message], *parts: str) -> list[Message]:
    """The prompt with ``parts`` before its last user's text, but for those that this has already."""
    at = max((i for i, m in enumerate(prompt) if m["role"] == "user"), default=None)
    if at is None:
        return prompt
    asked = prompt[at]["content"]
    new = [part for part in parts if part and part not in asked]
    return [*prompt[:at], {**prompt[at], "content": "\n\n".join([*new, asked])}, *prompt[at + 1 :]] if new else prompt


def _options(data: Record, values: Values, plan: Plan, names: Mapping[str, str]) -> Options | None:
    """The options of a question, in a drawn order where the right one always comes first."""
    named = plan.columns.choices or ("choices" if "choices" in values else None)
    if named is None:
        return None
    if isinstance(named, str):
        listed, labels, marked = options_of(values.get("choices"), named)
    else:
        every = [field_of(data, column) for column in named]
        flat = [each for value in every for each in (value if isinstance(value, list) else [value])]
        letters = [column.strip().upper() for column in named]
        listed, labels, marked = options_of(flat, ", ".join(named))
        labels = letters[: len(listed)] if all(len(letter) == 1 and letter.isalpha() for letter in letters) else []
    column = plan.columns.answer
    if marked is not None and (column is None or (isinstance(named, str) and column == named)):
        if sum(marked) != 1:
            raise BadRow("not one right option", f"field {named!r} marks {sum(marked)}")
        return drawn(listed, marked.index(1), str(values.get("prompt")))
    if column is None:
        raise BadRow("no answer", "no column says which option is right; --columns answer=COLUMN names it")
    if not isinstance(named, str) and column in named:
        return drawn(listed, named.index(column), str(values.get("prompt")))
    answer = field_of(data, column)
    gold = gold_of(answer, listed, labels, column)
    return Options(tuple(listed), gold, str(answer))
