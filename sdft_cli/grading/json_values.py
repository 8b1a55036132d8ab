"""The grader ``json``: the completion's JSON equals the gold one by value, and satisfies a JSON Schema if there is one.

Values are equal as JSON has them: the order of keys does not matter, that of a list does; numbers are equal by value
(1, 1.0 and 10e-1), but true is not 1, and "1" is not 1; texts are compared after canonical composition (NFC). There is
no tolerance. A key that occurs twice makes a completion wrong: nobody knows which value a reader would get.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, DecimalException
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.errors import UsageError
from sdft_cli.grading.fences import fenced
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.types import Example, Json, Score

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

#: Seconds that a pattern of a schema may take on one text.
SECONDS = 1.0


def json_value(completion: str, row: Example, folder: Path | None = None) -> Score:
    """Right if the completion's JSON equals the gold value, and is valid where the row has a ``schema`` in ``meta``.

    ``extra["parses"]`` says whether there is any JSON, ``extra["valid"]`` whether it satisfies the schema. Where the
    row has no gold answer, the schema alone decides.
    """
    try:
        gold = None if row.answer is None else read_gold(row.answer)
        validator = validator_of(row.meta.get("schema"))
    except ValueError as error:
        return Score(None, None, f"unscored: {error}")
    if row.answer is None and validator is None:
        return Score(None, None, "unscored: the row has neither a gold answer nor a schema")
    try:
        value = find_value(strip_thinking(completion), type(gold) if row.answer is not None else None)
    except ValueError as error:
        return Score(0.0, None, str(error), {"parses": 0.0} | ({"valid": 0.0} if validator else {}))
    extra, fault = {"parses": 1.0}, ""
    if validator:
        try:
            fault = violation(validator, value)
            if row.answer is not None and (gold_fault := violation(validator, gold)):
                return Score(None, written(value), f"unscored: the gold answer breaks the schema: {gold_fault}")
        except (ValueError, TimeoutError) as error:
            return Score(None, written(value), f"unscored: the schema cannot be applied: {error}")
        extra["valid"] = float(not fault)
    if fault:
        return Score(0.0, written(value), f"breaks the schema: {fault}", extra)
    difference = "" if row.answer is None else differs(value, gold)
    return Score(float(not difference), written(value), difference or "right", extra)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(text: str) -> Json:
    """The JSON value that all of ``text`` is; numbers with a point or exponent as `Decimal`. Raises ValueError."""
    return _guarded(_DECODER.decode, text.strip())


def read_gold(gold: Json) -> Json:
    """A gold answer as a value like `read`'s: text is read as JSON, alone or in a block of code; anything else is JSON
    already."""
    try:
        return read(_bare(gold)) if isinstance(gold, str) else read(json.dumps(gold))
    except ValueError as error:
        raise ValueError(f"the gold answer is not JSON ({error})") from None


def _bare(gold: str) -> str:
    """A gold text without its thinking, and without fences around all of it."""
    text = strip_thinking(gold).strip()
    blocks = fenced(text) if text.startswith(("```", "~~~")) and text.endswith(("```", "~~~")) else []
    return blocks[0].text if len(blocks) == 1 and blocks[0].language in ("", "json") else text


def find_value(text: str, kind: type | None = None) -> Json:
    """The JSON value in a completion: all of it, else the last block of code that is JSON, else the last object or list
    in its prose (of the gold answer's ``kind``, if any is). Raises ValueError, which says what is wrong."""
    try:
        return read(text)
    except ValueError as error:
        problem = error
    blocks = [block for block in fenced(text) if block.language in ("", "json", "jsonc", "json5", "javascript", "js")]
    values = []
    for block in reversed(blocks):
        try:
            values.append(read(block.text))
        except ValueError as error:
            problem = error
    values = values or list(reversed(list(in_prose(text))))
    if not values:
        twice = isinstance(problem, DuplicateKey)
        raise ValueError(str(problem) if twice else f"no JSON found ({problem})" if text.strip() else "no JSON found")
    return next((value for value in values if isinstance(value, kind or object)), values[0])


def in_prose(text: str) -> Iterator[Json]:
    """Every object or list in ``text`` that is no part of another, in order."""
    position = tries = 0
    while tries < 1000:  # a text of nothing but brackets would take quadratic time
        starts = [at for bracket in "{[" if (at := text.find(bracket, position)) >= 0]
        if not starts:
            return
        try:
            value, position = _guarded(_DECODER.raw_decode, text, min(starts))
            yield value
        except ValueError:
            position, tries = _behind(text, min(starts)), tries + 1


#: What begins like an object or a list of them, unlike a bracket of prose ("[see above]").
_BEGINS = re.compile(r'\{\s*["}]|\[\s*[\[{"\]]')
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _behind(text: str, start: int) -> int:
    """Where to look on behind a bracket at which no JSON begins: behind all of a malformed object, so that no part of
    it is taken for the answer."""
    if not _BEGINS.match(text, start):
        return start + 1
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(bracket[0], 0)
        if depth == 0 and bracket[0] in "}]":
            return bracket.end()
    return len(text)


class DuplicateKey(ValueError):
    """An object has a key twice."""


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKey(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except DecimalException:
        raise ValueError(f"the number {text[:40]} is too large") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_number, parse_constant=_no_constant)


def _guarded(decode: Any, *arguments: Any) -> Any:
    try:
        return decode(*arguments)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def written(value: Json) -> str:
    """A value of `read` as JSON text, for people."""
    return json.dumps(value, ensure_ascii=False, default=float)[:1000]


# --- equality ---------------------------------------------------------------------------------------------------------


def differs(value: Json, gold: Json, where: str = "") -> str:
    """Where and how ``value`` differs from ``gold``; "" if they are equal."""
    kind, wanted = _kind(value), _kind(gold)
    place = f"at {where}: " if where else ""
    if kind != wanted:
        return f"{place}{kind}, expected {wanted}"
    if kind == "an object":
        mine, theirs = ({unicodedata.normalize("NFC", k): v for k, v in each.items()} for each in (value, gold))
        if missing := [key for key in theirs if key not in mine]:
            return f"{place}no key {missing[0]!r}"
        if added := [key for key in mine if key not in theirs]:
            return f"{place}the key {added[0]!r} is not expected"
        pairs = ((mine[key], theirs[key], f"{where}.{key}" if where else key) for key in theirs)
        return next((found for pair in pairs if (found := differs(*pair))), "")
    if kind == "a list":
        if len(value) != len(gold):
            return f"{place}{len(value)} entries, expected {len(gold)}"
        places = ((mine, theirs, f"{where}[{i}]") for i, (mine, theirs) in enumerate(zip(value, gold, strict=True)))
        return next((found for each in places if (found := differs(*each))), "")
    same = (
        unicodedata.normalize("NFC", value) == unicodedata.normalize("NFC", gold) if kind == "text" else value == gold
    )
    return "" if same else f"{place}{written(value)[:60]}, expected {written(gold)[:60]}"


def equal(value: Json, gold: Json) -> bool:
    """Whether two values are the same JSON, whichever Python numbers they hold."""
    return not differs(value, gold)


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    kinds = ((str, "text"), (dict, "an object"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "a number")


# --- schemas ----------------------------------------------------------------------------------------------------------


def validator_of(schema: Json) -> Validator | None:
    """A validator for a schema given as an object, or the JSON text of one; None without any. Raises ValueError."""
    if schema is None or (isinstance(schema, str) and not schema.strip()):
        return None
    return _validator(schema if isinstance(schema, str) else json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=64)
def _validator(text: str) -> Validator:
    import jsonschema
    import regex
    from referencing import Registry

    def pattern(validator: Any, expression: str, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        if isinstance(instance, str) and not regex.search(expression, instance, timeout=SECONDS):
            yield jsonschema.ValidationError(f"{instance[:60]!r} does not match {expression!r}")

    try:
        schema = json.loads(text)
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the schema is not JSON ({error})") from None
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is no JSON Schema: {error.message}") from None
    # an empty registry: a reference to another document is an error and is never fetched
    limited: Validator = jsonschema.validators.extend(kind, {"pattern": pattern})(schema, registry=Registry())
    return limited


def violation(validator: Validator, value: Json) -> str:
    """The first thing in which ``value`` breaks the schema; "" if it is valid. Raises ValueError if that cannot be
    told, as where the schema refers to another document, and TimeoutError for a pattern that takes too long."""
    from referencing.exceptions import Unresolvable

    try:
        errors = validator.iter_errors(_plain(value))
        error = min(errors, key=lambda each: [str(part) for part in each.absolute_path], default=None)
    except (Unresolvable, RecursionError) as unresolved:
        raise ValueError(f"{type(unresolved).__name__}: {unresolved}") from None
    except Exception as wrapped:  # jsonschema wraps what a registry raises in a private class
        if "Unresolvable" in repr(type(wrapped).__mro__):
            raise ValueError(f"{type(wrapped).__name__}: {wrapped}") from None
        raise
    where = ".".join(str(part) for part in error.absolute_path) if error else ""
    return "" if error is None else f"{f'{where}: ' if where else ''}{error.message[:200]}"


def _plain(value: Json) -> Json:
    """With floats in place of decimals, and whole ones as integers: a schema's types know no `Decimal`."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


# --- the grader -------------------------------------------------------------------------------------------------------


def is_json(gold: Json) -> bool:
    """Whether a gold answer is an object or a list, or the JSON text of one; a list of texts is several answers."""
    if isinstance(gold, str):
        try:
            text = _bare(gold)
            return text[:1] in ("{", "[") and isinstance(read(text), dict | list)
        except ValueError:
            return False
    return isinstance(gold, dict) or (isinstance(gold, list) and not all(isinstance(each, str) for each in gold))


def check_schema(schema: Json) -> None:
    """Raise `UsageError` unless ``schema`` is a JSON Schema."""
    try:
        validator_of(schema)
    except ValueError as error:
        raise UsageError(str(error), "see https://json-schema.org") from None


JSON_VALUE = Grader(
    "json",
    "the completion's JSON (all of it, a block of code, or within prose) equals the gold value, whatever the order of "
    "keys; it must satisfy the JSON Schema in column schema, if there is one",
    "lists are compared in order, texts and numbers without tolerance; of several values in a completion the last one "
    "counts; null is a value, so a missing key is not null",
    score_row=json_value,
    suits_rows=lambda rows: all(is_json(row.answer) for row in rows),
    render=lambda answer: answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
    columns=("schema",),
    gold="json",
)
