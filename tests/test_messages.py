"""Messages as rows have them: what may be in one, and one line for what is wrong."""

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.messages import for_endpoint
from sdft_cli.models import digests
from sdft_cli.types import Example

USER = {"role": "user", "content": "q"}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "map"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def row(*demonstration: dict, **more) -> dict:
    return {"id": "x", "prompt": [USER], "demonstration": list(demonstration), **more}


def test_everything_of_an_agents_trace_is_kept() -> None:
    turns = [
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "content": "7", "tool_call_id": "1", "name": "look"},
        {"role": "assistant", "content": "seven"},
    ]
    stored = row(*turns, tools=[TOOL])
    assert Example.from_dict(stored, "f:1").to_dict() == stored


def test_null_is_no_value() -> None:
    """Files of columns write null for every key that a message of another row has."""
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": None, "name": None}
    example = Example.from_dict({**row(turn), "tools": None}, "f:1")
    assert example.demonstration == [{"role": "assistant", "content": "", "tool_calls": [CALL]}] and not example.tools


def said(**changes) -> dict:
    return row({"role": "assistant", "content": "a", **changes})


WRONG = {
    "unknown key 'mood'": said(mood="good"),
    "content'": said(content=None),
    "tool_calls' must be a list": said(tool_calls="look"),
    "needs a 'function' with a 'name'": said(tool_calls=[{"name": "look"}]),
    "must be an object, or the JSON text of one": said(tool_calls=[{"function": {"name": "x", "arguments": "{at"}}]),
    "neither 0 nor 1": said(weight=0.5),
    "weight True is neither": said(weight=True),
    "every turn of the assistant has weight 0": said(weight=0),
    "'reasoning_content' must be text": said(reasoning_content=["hm"]),
    "begin with the assistant's turn": row({"role": "tool", "content": "7"}, {"role": "assistant", "content": "a"}),
    "belongs to role 'assistant', not to 'user'": {"id": "x", "prompt": [{**USER, "tool_calls": [CALL]}]},
    "role 'user' cannot be trained on": {"id": "x", "prompt": [{**USER, "weight": 1}]},
    "'tools' must be a list": {"id": "x", "prompt": [USER], "tools": "look"},
    "every tool needs a 'function'": {"id": "x", "prompt": [USER], "tools": ["look"]},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_its_place(message: str) -> None:
    with pytest.raises(UsageError) as error:
        Example.from_dict(WRONG[message], "train.jsonl:7")
    assert message in error.value.message and error.value.message.startswith("train.jsonl:7: ")
    assert "\n" not in error.value.message


def test_a_row_without_tools_keeps_the_digest_under_which_its_scores_are_stored() -> None:
    plain = Example("a", [USER], "d", answer="4", meta={"row": "f:1", "api": "x"})
    assert digests.of_examples([plain]) == digests.of([["a", [USER], None, "4", {"api": "x"}]])
    tools = Example("a", [USER], "d", answer="4", meta={"api": "x"}, tools=[TOOL])
    assert digests.of_examples([tools]) != digests.of_examples([plain])


def test_an_endpoint_gets_calls_with_ids_and_arguments_as_text() -> None:
    two = {"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "id": "own"}]}
    turns = [USER, two, {"role": "tool", "content": "7", "tool_call_id": "own"}, {"role": "tool", "content": "8"}]
    sent = for_endpoint(turns)
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["call_1_0", "own"]
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == ['{"at": "map"}'] * 2
    assert [turn["tool_call_id"] for turn in sent[2:]] == ["own", "call_1_0"]
    assert turns[1] == two and for_endpoint([USER]) == [USER]
