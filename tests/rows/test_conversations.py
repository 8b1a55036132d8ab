"""Messages of a user's rows, in every form in which they are stored: what becomes of them, and what is said of the
rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.errors import UsageError
from sdft_cli.messages import merged_system
from sdft_cli.rows.columns import Columns
from sdft_cli.rows.conversations import Conversation
from sdft_cli.rows.formats import BadRow
from sdft_cli.rows.layouts import plan
from sdft_cli.rows.readings import reading_of
from sdft_cli.types import PrepareOptions

USER, REPLY = {"role": "user", "content": "where ?"}, {"role": "assistant", "content": "there"}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"at": "map"}}}
RESULT = {"role": "tool", "content": "7", "tool_call_id": "1"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def read(row: dict[str, Any]) -> Conversation:
    known, remarks = plan(Columns(), row), set[str]()
    assert known is not None
    reading = reading_of(row, known, remarks)
    return Conversation(reading.prompt, reading.demonstration, reading.tools, remarks)


def chat(*turns: dict[str, Any], **more: Any) -> Conversation:
    return read({"messages": [USER, *turns], **more})


#: how a turn is stored -> the turn as ours
STORED = {
    "OpenAI's": ({"role": "assistant", "content": None, "tool_calls": [CALL]}, CALLING),
    "arguments as text": (
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "look", "arguments": '{"at": "map"}'}}]},
        CALLING,
    ),
    "calls as text": ({"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}, CALLING),
    "without null values": (
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**CALL, "function": {"name": "look", "arguments": {"at": "map", "of": None}}}],
            "weight": None,
        },
        CALLING,
    ),
    "the older function_call": (
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"at": "map"}'}},
        {**CALLING, "tool_calls": [{k: v for k, v in CALL.items() if k != "id"}]},
    ),
    "ShareGPT's": (
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "map"}}'},
        {**CALLING, "tool_calls": [{k: v for k, v in CALL.items() if k != "id"}]},
    ),
    "reasoning": ({**REPLY, "reasoning": "hm"}, {**REPLY, "reasoning_content": "hm"}),
    "thinking": ({**REPLY, "thinking": "hm"}, {**REPLY, "reasoning_content": "hm"}),
    "named": ({**REPLY, "reasoning_content": "hm", "name": "bob"}, {**REPLY, "reasoning_content": "hm", "name": "bob"}),
}


@pytest.mark.parametrize("form", STORED)
def test_a_turn_is_read_in_every_form(form: str) -> None:
    stored, ours = STORED[form]
    assert chat(stored).demonstration == [ours]


def test_a_turn_that_is_nothing_but_text_stays_text() -> None:
    assert chat(REPLY).demonstration == chat({**REPLY, "weight": 1}).demonstration == "there"


@pytest.mark.parametrize("role", ["function", "observation", "ipython", "tool"])
def test_a_trace_keeps_its_tools_results(role: str) -> None:
    result = {**RESULT, "role": role, "name": "look"}
    assert chat(CALLING, result, REPLY).demonstration == [CALLING, {**RESULT, "name": "look"}, REPLY]


def test_roles_by_other_names_and_an_empty_system_message() -> None:
    for role in ("developer", "system"):
        row = {
            "conversations": [
                {"from": role, "value": ""},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
            ]
        }
        assert read(row).prompt == [{"role": "system", "content": ""}, {"role": "user", "content": "q"}]


def test_a_prompt_may_end_with_a_tools_result() -> None:
    asked = [USER, CALLING, RESULT]
    assert read({"prompt": asked, "completion": [REPLY]}) == (asked, "there", None, set())
    assert read({"messages": asked, "answer": "7"})[:2] == (asked, None)


@pytest.mark.parametrize("column", ["tools", "functions", "Tools"])
@pytest.mark.parametrize(
    "stored",
    [[TOOL], json.dumps([TOOL]), [TOOL["function"]], [json.dumps(TOOL)]],
    ids=["list", "text", "bare", "texts"],
)
def test_tools_are_read_from_their_column(column: str, stored: Any) -> None:
    assert chat(REPLY, **{column: stored}).tools == [TOOL]


def test_no_tools_are_none() -> None:
    assert [chat(REPLY, tools=nothing).tools for nothing in ([], None, "", "[]")] == [None] * 4


def test_a_system_column_and_a_system_message_are_one() -> None:
    kind = {"role": "system", "content": "be kind"}
    for own in ([], [kind], [{**kind, "content": ""}]):
        assert read({"messages": [*own, USER, REPLY], "system": "be kind"}).prompt == [kind, USER]
    with pytest.raises(BadRow, match="two system messages"):
        read({"messages": [kind, USER, REPLY], "system": "be terse"})


def test_what_is_not_used_is_remarked() -> None:
    asked = [{**REPLY, "weight": 1, "mood": "good"}, {**USER, "tool_calls": [CALL], "tool_call_id": "1"}]
    read_row = chat(*asked, {**REPLY, "weight": 1})
    assert sorted(remark.partition(":")[0] for remark in read_row.remarks) == [
        *["a key of messages is not used"] * 3,
        "weights of turns before the last question have no effect",
    ]
    assert read_row.prompt[1] == REPLY
    nulls = chat(REPLY, tools=[{**TOOL, "strict": None}])
    assert nulls.tools == [TOOL] and len(nulls.remarks) == 1


BAD = {
    "weight is neither 0 nor 1": ({**REPLY, "weight": 2},),
    "nothing to train on": ({**REPLY, "weight": 0},),
    "content is not text": ({"role": "assistant", "content": None},),
    "empty content": ({"role": "assistant", "content": " "},),
    "unknown role": ({"role": "narrator", "content": "x"},),
    "arguments of a tool call are not JSON": (
        {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{at"}}]},
    ),
    "arguments of a tool call are not an object": (
        {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": [1]}}]},
    ),
    "tool call without a function's name": ({"role": "assistant", "tool_calls": [{"id": "1"}]},),
    "tool calls are not a list": ({"role": "assistant", "tool_calls": "look"},),
    "demonstration does not begin with the assistant's turn": (RESULT, REPLY),
    "reasoning is not text": ({**REPLY, "reasoning_content": 7},),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_turn_is_a_bad_row_with_its_place(reason: str) -> None:
    with pytest.raises(BadRow) as bad:
        chat(*BAD[reason])
    assert bad.value.reason == reason and bad.value.detail


def test_bad_tools_are_a_bad_row() -> None:
    for tools in ("hammer", {"name": "look"}, [{"type": "function"}], ["hammer"]):
        with pytest.raises(BadRow):
            chat(REPLY, tools=tools)


def made(folder: Path, rows: list[dict[str, Any]], **options: Any):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"mine": [folder / "rows.jsonl"]}
    (summary,) = prepare(["mine"], sources, folder / "data", PrepareOptions(**options))
    return summary, read_split(folder / "data" / "mine", "train")[0]


def trace(i: int, **more: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": f"where is number {i} of {i * i} and {i * 7} ?"}
    return {"messages": [{"role": "system", "content": "be kind"}, asked, CALLING, RESULT, REPLY], **more}


def test_a_prepared_dataset_keeps_all_of_it_and_its_notes_count_the_rest(tmp_path: Path) -> None:
    rows = [trace(i, tools=json.dumps([TOOL])) for i in range(20)]
    rows[0]["messages"][1]["mood"] = "good"
    summary, train = made(tmp_path, rows)
    assert all(e.tools == [TOOL] and e.demonstration == [CALLING, RESULT, REPLY] for e in train)
    assert "a key of messages is not used: mood (1 rows)" in summary["notes"]
    assert not any("unused columns" in note for note in summary["notes"])


def test_merge_system_puts_the_system_text_before_the_users(tmp_path: Path) -> None:
    summary, train = made(tmp_path, [trace(i) for i in range(20)], merge_system=True)
    assert all([m["role"] for m in e.prompt] == ["user"] for e in train)
    assert train[0].prompt[0]["content"].startswith("be kind\n\nwhere is number")
    assert "--merge-system: in 20 prompts the system text was put before the user's" in summary["notes"]


def test_system_texts_are_merged_wherever_they_stand() -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    several = [
        turn("system", "a"),
        turn("system", ""),
        turn("user", "b"),
        REPLY,
        turn("system", "c"),
        turn("user", "d"),
    ]
    assert merged_system(several) == [turn("user", "a\n\nb"), REPLY, turn("user", "c\n\nd")]
    last = [turn("user", "b"), turn("system", "c")]
    assert merged_system(last) == last


def test_rows_written_by_hand_are_checked_when_they_are_read(tmp_path: Path) -> None:
    made(tmp_path, [trace(i) for i in range(20)])
    file = tmp_path / "data" / "mine" / "train.jsonl"
    first, *others = file.read_text().splitlines()
    wrong = json.dumps({**json.loads(first), "tools": [{"name": "look"}]})
    file.write_text("\n".join([wrong, *others]))
    with pytest.raises(UsageError, match=r"train\.jsonl:1: wrong field \('tools': every tool needs a 'function'"):
        read_split(tmp_path / "data" / "mine", "train")


def test_messages_in_a_csv_file_are_json_text() -> None:
    asked = [USER, CALLING, RESULT]
    assert read({"messages": json.dumps([*asked, REPLY])}) == read({"messages": [*asked, REPLY]})
    with pytest.raises(BadRow, match="no messages"):
        read({"messages": "[where ?"})
