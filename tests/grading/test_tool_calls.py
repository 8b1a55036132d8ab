"""The grader ``tool-calls``: every form in which models write calls, and what counts as the same call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdft_cli.grading.named_rules import grader
from sdft_cli.grading.tool_call_formats import Unreadable, calls_in
from sdft_cli.types import Example
from tests.support import chat_families

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 1},
        "where": {"type": "object"},
        "code": {"type": "string"},
    },
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "look"}},
]
ARGUMENTS = {"city": "Paris", "days": 3}
GOLD = [{"name": "get_weather", "arguments": ARGUMENTS}]
W = '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}'
L = W.replace("arguments", "parameters")
A = '{"city": "Paris", "days": 3}'


def grade(completion: str, gold: Any = None, tools: Any = TOOLS):
    row = Example("x", [], answer=GOLD if gold is None else gold, tools=tools)
    return grader("tool-calls").score(completion, row)


FORMS = {
    "Hermes, Qwen": f"<tool_call>\n{W}\n</tool_call>",
    "Hermes, after words": f"Let me look.\n<tool_call>\n{W}\n</tool_call>",
    "Hermes, not closed": f"<think>{L}?</think>\n<tool_call>\n{W}",
    "Llama 3": L,
    "Llama 3, mark": f"<|python_tag|>{L}<|eom_id|>",
    "Llama 3.1": f"<function=get_weather>{A}</function>",
    "Llama 4, pythonic": '[get_weather(city="Paris", days=3)]',
    "Mistral": f'[TOOL_CALLS] [{W[:-1]}, "id": "abcdefghi"}}]',
    "Mistral, new": f"[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{A}",
    "Mistral, marks left out": f"get_weather{A}",
    "list": f"[{W}]",
    "list in a block": f"I'll call it:\n```json\n[{W}]\n```",
    "OpenAI": json.dumps([{"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": A}}]),
    "OpenAI message": json.dumps(
        {"content": None, "tool_calls": [{"function": {"name": "get_weather", "arguments": ARGUMENTS}}]}
    ),
    "prose": f"I will call {W} now.",
    "Qwen Coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
    "</parameter>\n</function>\n</tool_call>",
    "GLM": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
    "<arg_value>3</arg_value>\n</tool_call>",
    "invoke": '<function_calls>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
    '<parameter name="days">3</parameter>\n</invoke>\n</function_calls>',
    "MiniMax": f"<tool_calls>\n{W}\n</tool_calls>",
    "Olmo": "<function_calls>\nget_weather(city='Paris', days=3)\n</function_calls>",
    "Kimi": f"<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{A}"
    "<|tool_call_end|><|tool_calls_section_end|>",
    "DeepSeek V3": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{A}\n```"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "DeepSeek V3, marks left out": f"functionget_weather\n```json\n{A}\n```",
    "DeepSeek V3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{A}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>",
    "gpt-oss": f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{A}<|call|>",
    "gpt-oss, marks left out": f"commentary to=functions.get_weather json{A}",
    "Gemma, tool_code": "```tool_code\nget_weather(city='Paris', days=3)\n```",
    "FunctionGemma": "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>",
    "Granite": f"<|tool_call|>[{W}]",
    "Phi-4": f"<|tool_call|>[{W}]<|/tool_call|>",
    "Phi-4, old": f"functools[{W}]",
    "Nemotron": f"<TOOLCALL>[{W}]</TOOLCALL>",
    "LFM2": '<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>',
    "InternLM": f"I look it up.<|action_start|><|plugin|>\n{L}<|action_end|>",
    "ReAct": f"Thought: I look.\nAction: get_weather\nAction Input: {A}",
    "ReAct, in fences": f"Action: get_weather\nAction Input: ```json\n{A}\n```",
    "ReAct, with a reply made up": f"Action: get_weather\nAction Input: {A}\nObservation: sun\n"
    "Action: look\nAction Input: {}",
    "LangChain": '```json\n{"action": "get_weather", "action_input": {"city": "Paris", "days": 3}}\n```',
    "Cohere": 'Action: ```json\n[{"tool_name": "get_weather", "parameters": {"city": "Paris", "days": 3}}]\n```',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form):
    completion = FORMS[form]
    assert grade(completion).value == 1, grade(completion)
    needs_tools = form == "DeepSeek V3, marks left out"  # where nothing else tells the word before the name from it
    assert needs_tools or grade(completion, tools=None).value == 1, grade(completion, tools=None)
    wrong = completion.replace("Paris", "Rome")
    assert grade(wrong).value == 0 and grade(wrong).extra == {"names": 1.0}


TWICE = [{"name": "look", "arguments": {}}, *GOLD]
GRADED = [  # (completion, gold, value)
    (W.replace("3", "3.0"), GOLD, 1),
    (W.replace("3", '"3"'), GOLD, 0),
    (W.replace("3", "true"), GOLD, 0),
    (W.replace("Paris", "paris"), GOLD, 0),
    (W.replace("get_weather", "get"), GOLD, 0),
    ("I do not know.", GOLD, 0),
    (W.replace('"days": 3', '"days": 3, "code": null'), GOLD, 1),
    (W.replace('"days": 3', '"days": 3, "code": "x"'), GOLD, 0),
    ('{"name": "get_weather", "arguments": {"city": "Paris"}}', GOLD, 0),
    (
        'get_weather(city="Paris")',
        [{"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}],
        1,
    ),  # its default
    ("get_weather('Paris', 3)", GOLD, 1),  # by the order of the tool's parameters
    (f"<tool_call>{W}</tool_call>\n<tool_call>{W}</tool_call>", GOLD, 0),
    (f"{L}; {L}", GOLD * 2, 1),
    (f'[{W}, {{"name": "look", "arguments": {{}}}}]', TWICE, 1),
    ("look()\nget_weather(city='Paris', days=3)", TWICE, 1),
    ('<tool_call>\n{"name": "get_weather", "arguments": {</tool_call>', GOLD, 0),
    ("<tool_call>\n</tool_call>", GOLD, 0),
    ('{"name": "get_weather", "arguments": "Paris"}', GOLD, 0),
    (W, json.dumps(GOLD), 1),
    (W, W, 1),
    (W, GOLD[0], 1),
    (W, {"tool_calls": GOLD}, 1),
    (W, ["get_weather(city='Paris', days=3)"], 1),
    (W, [{"Action": "get_weather", "Action_Input": A}], 1),
    (W, f"<tool_call>{W}</tool_call>", 1),
    ("Which city?", "Please name a city.", 1),
    (W, "Please name a city.", 0),
    ("No tool fits.", "[]", 1),
    ("[]", "[]", 1),
    (W, "[]", 0),
    ("No tool fits.", {"tool_calls": []}, 1),
    ("I could use get_weather(city='Paris').", "[]", 1),
    ('The answer is {"name": "Ada"}.', "[]", 1),
    ("<tool_call>x</tool_call>", "[]", 0),
    ("<think>get_weather</think>look()", "look()", 1),
    (f"<think>{W}", GOLD, 0),
    ("look(", "[]", 1),
    ("print(1)", "[]", 1),
    (W, [{"arguments": {}}], None),
    (W, [3], None),
    (W, '[{"name": "f", "arguments": "{"}]', None),
]


@pytest.mark.parametrize(("completion", "gold", "value"), GRADED)
def test_what_counts_as_the_same_calls(completion, gold, value):
    score = grade(completion, gold)
    assert score.value == value, score
    assert score.why and (value is not None or score.why.startswith("unscored: "))


def test_text_without_types_is_what_the_schema_or_the_gold_answer_says():
    def xml(key: str, value: str) -> str:
        return f"<function=get_weather><parameter={key}>{value}</parameter></function>"

    def gold(key: str, value: Any) -> Any:
        return [{"name": "get_weather", "arguments": {key: value}}]

    assert grade(xml("code", "5"), gold("code", "5")).value == 1 and grade(xml("code", "5"), gold("code", 5)).value == 0
    assert grade(xml("days", "5"), gold("days", 5)).value == 1 and grade(xml("days", "5"), gold("days", "5")).value == 0
    assert grade(xml("where", '{"x": [1, null]}'), gold("where", {"x": [1.0, None]}), None).value == 1
    assert (
        grade(xml("days", "5"), gold("days", 5), None).value
        == grade(xml("days", "5"), gold("days", "5"), None).value
        == 1
    )
    assert grade(xml("code", "\na\n  b\n"), gold("code", "a\n  b")).value == 1  # inner white space belongs to it


def test_rows_without_an_answer_are_unscored():
    assert grader("tool-calls").score(W, Example("x", [])).value is None


names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
json_values = st.recursive(
    st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text("ab \"'\\\n{}<é北", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(st.tuples(names, st.dictionaries(names, json_values, max_size=3)), min_size=1, max_size=3)
WRITTEN = {
    "hermes": lambda call: f"<tool_call>\n{json.dumps({'name': call[0], 'arguments': call[1]})}\n</tool_call>",
    "json": lambda call: json.dumps({"name": call[0], "parameters": call[1]}, ensure_ascii=False),
    "pythonic": lambda call: f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})",
    "react": lambda call: f"Action: {call[0]}\nAction Input: {json.dumps(call[1])}",
    "mistral": lambda call: f"[TOOL_CALLS]{call[0]}[ARGS]{json.dumps(call[1])}",
}


@settings(max_examples=60, deadline=None)
@given(calls, st.sampled_from(sorted(WRITTEN)))
def test_whatever_is_written_is_read_again(of, form):
    if form == "pythonic" and any(key in {"as", "if", "in", "is", "or"} for _, given in of for key in given):
        return  # no name of an argument in Python
    text = "\n".join(map(WRITTEN[form], of))
    read = calls_in(text, {})
    assert [(name, arguments) for name, arguments in read] == of
    gold = [{"name": name, "arguments": arguments} for name, arguments in reversed(of)]
    assert grade(text, gold, None).value == 1
    rule = grader("tool-calls")
    assert rule.render and grade(rule.render(gold), gold, None).value == 1


@pytest.mark.parametrize("family", ["tools", "qwen3"])
def test_what_a_chat_template_writes_is_read(family):
    """The text that a model is trained on, decoded as samples are."""
    tokenizer = chat_families.tokenizer(family)
    called = [{"type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}]
    asked = [{"role": "user", "content": "how is the weather ?"}]
    turn = {"role": "assistant", "content": "the answer", "tool_calls": called}
    before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*asked, turn], tokenize=False)
    ids = tokenizer(whole.removeprefix(before), add_special_tokens=False)["input_ids"]
    assert grade(tokenizer.decode(ids, skip_special_tokens=True)).value == 1


def test_no_text_takes_long():
    for text in ("<tool_call>" * 5000, "[" * 50_000, '{"name": "x", ' * 5000, "f(" * 20_000, "Action: x\n" * 5000):
        try:
            calls_in(text, {})
        except Unreadable as error:
            assert str(error)
