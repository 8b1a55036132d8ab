"""The grader ``json``: equality by value against values that are written in every way, and schemas."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdft_cli.grading.json_values import is_json, json_value
from sdft_cli.grading.named_rules import grader
from sdft_cli.types import Example

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def grade(completion: str, gold: Any = None, schema: Any = None):
    meta = {} if schema is None else {"schema": schema}
    return json_value(completion, Example("x", [], answer=gold, meta=meta))


GRADED = [  # (completion, gold, value)
    ('{"b": 1.0, "a": [true]}', {"a": [True], "b": 1}, 1), ('{"a": 1}', '{"a": 1.0}', 1), ('{"a": 10e-1}', {"a": 1}, 1),
    ('{"a": true}', {"a": 1}, 0), ('{"a": "1"}', {"a": 1}, 0), ('{"a": null}', {}, 0), ('{"a": null}', {"a": None}, 1),
    ('{"a": 0.1}', {"a": 0.1}, 1), ('{"a": 0.30000000000000004}', {"a": 0.3}, 0), ("[2, 1]", [1, 2], 0),
    ("[1, 2]", "[1, 2]", 1), ('{"a": {"b": []}}', {"a": {"b": []}}, 1), ("[1, 2, 3]", [1, 2], 0),
    ('{"ort": "Zu\u0308rich"}', {"ort": "Z\u00fcrich"}, 1), ('{"a": 9007199254740993}', {"a": 9007199254740992}, 0),
    ('Here it is:\n```json\n{"a": 1}\n```\nAnything else?', {"a": 1}, 1), ('```\n{"a": 1}\n```', {"a": 1}, 1),
    ('First ```json\n{"a": 2}\n``` no:\n```json\n{"a": 1}\n```', {"a": 1}, 1), ('The result is {"a": 1}.', {"a": 1}, 1),
    ('The result is {"a": 1}, as in [1].', {"a": 1}, 1), ('~~~json\n{"a": 1}\n~~~', {"a": 1}, 1),
    ('<think>{"a": 2}</think>{"a": 1}', {"a": 1}, 1), ('<think>{"a": 1}', {"a": 1}, 0),
    ('{"a": {"b": 1}, "c": ', {"b": 1}, 0), ('{"a": 1, "a": 1}', {"a": 1}, 0), ('{"a": NaN}', {"a": 1}, 0),
    ("{'a': 1}", {"a": 1}, 0), ("no idea", {"a": 1}, 0), ("", {"a": 1}, 0), ("42", "42.0", 1), ('"yes"', '"yes"', 1),
    ('{"a": 1', {"a": 1}, 0), ("[" * 100_000, [1], 0), ('{"a": 1e999999999999999999999}', {"a": 1}, 0),
    ('{"a": 1}', "not JSON", None), ("{}", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "gold", "value"), GRADED)
def test_values(completion, gold, value):
    score = grade(completion, gold)
    assert score.value == value, score
    assert score.why and (value is not None or score.why.startswith("unscored: "))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
containers = st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=4), values, max_size=4)


def other_form(value: Any, draw: random.Random) -> Any:
    """The same value with its keys in another order and whole numbers as floats, or the other way round."""
    if isinstance(value, dict):
        keys = draw.sample(list(value), len(value))
        return {key: other_form(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [other_form(each, draw) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def naively_equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(naively_equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(naively_equal, a, b))
    return a == b


@settings(max_examples=150, deadline=None)
@given(containers, st.integers(0, 99), st.sampled_from(["{}", "Sure:\n```json\n{}\n```", "```\n{}\n```\nDone."]))
def test_a_value_in_another_form_is_right(value, seed, around):
    text = json.dumps(other_form(value, random.Random(seed)), indent=seed % 3 or None, ensure_ascii=seed % 2 == 0)
    assert grade(around.replace("{}", text, 1), value).value == 1
    assert grade(text, json.dumps(value)).value == 1


@settings(max_examples=150, deadline=None)
@given(containers, containers)
def test_equal_means_equal(one, other):
    assert grade(json.dumps(one), other).value == float(naively_equal(one, other))


def test_a_schema_is_checked_as_well():
    assert grade('{"age": 3}', {"age": 3}, AGE).extra == {"parses": 1.0, "valid": 1.0}
    broken = grade('{"age": "3"}', {"age": 3}, AGE)
    assert (broken.value, broken.extra) == (0.0, {"parses": 1.0, "valid": 0.0})
    assert broken.why == "breaks the schema: age: '3' is not of type 'integer'"
    assert grade('{"age": 4}', {"age": 3}, AGE).extra == {"parses": 1.0, "valid": 1.0}  # valid, and wrong all the same
    assert grade("no", {"age": 3}, AGE).extra == {"parses": 0.0, "valid": 0.0}
    assert grade('{"age": 3.0}', {"age": 3}, json.dumps(AGE)).value == 1  # a schema as text; 3.0 is an integer
    assert grade('{"age": 7}', None, AGE).value == 1 and grade("{}", None, AGE).value == 0  # the schema alone decides


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "objekt"}, "the schema is no JSON Schema"),
        ("{", "the schema is not JSON"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "the schema cannot be applied"),  # and is not fetched
        ({"additionalProperties": {"pattern": "^(a|aa)+$"}}, "the schema cannot be applied"),
        ({"required": ["b"]}, "the gold answer breaks the schema"),
    ],
)
def test_what_a_schema_cannot_decide_is_unscored(schema, why):
    text = json.dumps({"a": "a" * 60 + "!"})
    score = grade(text, text, schema)
    assert score.value is None and score.why.startswith(f"unscored: {why}")


def test_it_is_chosen_for_objects_and_lists():
    assert is_json({"a": 1}) and is_json([{"a": 1}]) and is_json('{"a": 1}') and is_json("[1, 2]")
    assert not is_json("[0, 1)") and not is_json(["one", "two"]) and not is_json("7") and not is_json("text")
    rule = grader("json")
    assert rule.render and rule.render({"a": "ü"}) == '{"a": "ü"}' and rule.render("{}") == "{}"
