"""Tool use as datasets write it into text: Hermes's tags, Glaive's chats, xLAM's lists, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.user_rows import read

from sdft_cli.errors import UsageError
from sdft_cli.rows.tool_texts import SYSTEM_CUT, objects

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}


def call(name: str = "weather", **arguments: Any) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [made]}


HERMES = (
    "You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML tags. "
    "You may call one or more functions to assist with the user query. Don't make assumptions about what values to "
    f"plug into functions.\n<tools>\n{[TOOL]}\n</tools>\nFor each function call return a json object with function "
    "name and arguments within <tool_call> </tool_call> tags with the following schema:\n<tool_call>\n"
    "{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>\n"
)
CONVERSATION = [
    {"from": "system", "value": HERMES},
    {"from": "human", "value": "Rain in Bern?"},
    {"from": "gpt", "value": "<tool_call>\n{'arguments': {'city': 'Bern'}, 'name': 'weather'}\n</tool_call>\n"},
    {"from": "tool", "value": "<tool_response>\n{'rain': true}\n</tool_response>\n"},
    {"from": "gpt", "value": "Yes."},
]


@pytest.mark.parametrize("column", [None, json.dumps([TOOL])], ids=["in the system text", "also in a column"])
def test_hermes(column: str | None, tmp_path: Path) -> None:
    row = {"conversations": CONVERSATION, **({"tools": column} if column else {})}
    made = read(tmp_path, [row])
    example = made.rows[0]
    assert example.prompt == [{"role": "user", "content": "Rain in Bern?"}]
    assert example.demonstration == [
        call(city="Bern"),
        {"role": "tool", "content": "{'rain': true}"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert example.tools == [TOOL]
    assert f"{SYSTEM_CUT} (1 rows)" in made.notes


def test_hermes_text_around_a_call_and_several_calls(tmp_path: Path) -> None:
    said = 'Let me look.<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>\n' * 2
    row = {"conversations": [*CONVERSATION[:2], {"from": "gpt", "value": said}]}
    turn = read(tmp_path, [row]).rows[0].demonstration[0]
    assert turn["content"] == "Let me look.\nLet me look." and len(turn["tool_calls"]) == 2
    broken = {"conversations": [*CONVERSATION[:2], {"from": "gpt", "value": "<tool_call>weather(</tool_call>"}]}
    with pytest.raises(UsageError, match="tool call is not JSON"):
        read(tmp_path, [broken])


def test_tags_are_text_where_there_are_no_tools(tmp_path: Path) -> None:
    said = '<tool_call>{"name": "weather"}</tool_call>'
    assert (
        read(tmp_path, [{"messages": [CONVERSATION[1], {"from": "gpt", "value": said}]}]).rows[0].demonstration == said
    )


def test_glaive(tmp_path: Path) -> None:
    function = json.dumps(TOOL["function"], indent=4)
    row = {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
        f"{function}\n{function.replace('weather', 'news')}\n",
        "chat": "USER: Rain in Bern?\n\n\nASSISTANT: <functioncall> "
        '{"name": "weather", "arguments": \'{"city": "Bern"}\'} <|endoftext|>\n\n\n'
        'FUNCTION RESPONSE: {"rain": true}\n\n\nASSISTANT: Yes. <|endoftext|>\n\n\n',
    }
    example = read(tmp_path, [row]).rows[0]
    assert example.prompt == [{"role": "user", "content": "Rain in Bern?"}]
    assert example.demonstration[0] == call(city="Bern")
    assert [turn["role"] for turn in example.demonstration] == ["assistant", "tool", "assistant"]
    assert [tool["function"]["name"] for tool in example.tools] == ["weather", "news"]
    plain = {
        "system": "SYSTEM: You are helpful, with no access to external functions.",
        "chat": "USER: Hi\n\n\nASSISTANT: Ho",
    }
    example = read(tmp_path, [plain]).rows[0]
    assert (example.prompt[0]["role"], example.demonstration, example.tools) == ("system", "Ho", None)


def test_xlam(tmp_path: Path) -> None:
    parameters = {
        "city": {"description": "Where", "type": "str"},
        "days": {"description": "How long", "type": "int, optional", "default": "1"},
        "kinds": {"description": "What", "type": "List[str], optional"},
    }
    row = {
        "id": 0,
        "query": "Rain in Bern?",
        "answers": json.dumps([{"name": "weather", "arguments": {"city": "Bern", "days": 2}}]),
        "tools": json.dumps([{"name": "weather", "description": "d", "parameters": parameters}]),
    }
    example = read(tmp_path, [row]).rows[0]
    assert example.demonstration == [call(city="Bern", days=2)]
    schema = example.tools[0]["function"]["parameters"]
    assert (schema["type"], schema["required"]) == ("object", ["city"])
    assert [each["type"] for each in schema["properties"].values()] == ["string", "integer", "array"]


def test_openai_and_sharegpt_are_one(tmp_path: Path) -> None:
    tools = json.dumps([TOOL["function"]])
    openai = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Bern"}'}}]},
    ]
    sharegpt = [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bern"}}'},
    ]
    rows = [{"messages": openai, "tools": tools}, {"conversations": sharegpt, "tools": tools}]
    for row in rows:
        example = read(tmp_path, [row]).rows[0]
        assert (example.demonstration, example.tools) == ([call(city="Bern")], [TOOL])


def test_messages_stored_by_columns_or_as_text_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "it's so?"}, {"role": "assistant", "content": "so"}]
    by_column = {"role": ["user", "assistant"], "content": ["it's so?", "so"]}
    for stored in (turns, by_column, json.dumps(turns), str(turns)):
        example = read(tmp_path, [{"messages": stored}]).rows[0]
        assert (example.prompt, example.demonstration) == ([turns[0]], "so")


def test_a_turn_of_the_user_at_the_end_is_left_out_with_a_remark(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "so?"},
        {"role": "assistant", "content": "so"},
        {"role": "user", "content": "thanks"},
    ]
    made = read(tmp_path, [{"messages": turns}])
    assert (made.asked, made.rows[0].demonstration) == (["so?"], "so")
    assert "turns of the user at the end, which nobody answers, are left out (1 rows)" in made.notes
    answered = read(tmp_path, [{"messages": turns, "answer": "bye"}])  # then that is what is asked
    assert (answered.rows[0].prompt[-1]["content"], answered.rows[0].answer) == ("thanks", "bye")
    with pytest.raises(UsageError, match="no demonstration and no answer"):
        read(tmp_path, [{"messages": turns[:1]}])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[1, 2]", [1, 2]), ('{"a": 1}\n{"b": 2}', [{"a": 1}, {"b": 2}]), ("{'a': True}", [{"a": True}]), ("none", None)],
)
def test_objects_in_a_text(text: str, expected: list[Any] | None) -> None:
    assert objects(text) == expected
