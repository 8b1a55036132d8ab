"""Streams: the completion in one is what an unstreamed response would have been, however the server writes events."""

from __future__ import annotations

import json

import pytest

from sdft_cli.llm.event_stream import BROKEN, assembled, is_event_stream
from sdft_cli.llm.http_client import HttpResponse
from sdft_cli.llm.responses import RETRY, ApiError, read
from sdft_cli.llm.types import LENGTH, Reply, Request

REQUEST = Request([{"role": "user", "content": "Hi"}], 1.0, 16)


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more) -> str:
    delta = {"content": text} if text is not None else {}
    return json.dumps({"choices": [{"index": index, "delta": {**delta, **more}, "finish_reason": finish}]})


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


def read_stream(body: str) -> list[Reply | None]:
    assert is_event_stream(body)
    return read(HttpResponse(200, {}, body), REQUEST)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n", "\r\r"])
def test_chunks_are_put_together(end):
    events = [
        f"data: {chunk('a ')}",
        f"data:{chunk('b')}",
        f"data: {chunk(finish='stop')}",
        f"data: {USAGE}",
        "data: [DONE]",
    ]
    assert read_stream(end.join(events) + end) == [Reply("a b", "stop", 3, 2)]


def test_comments_names_and_ids_of_events_are_skipped():
    body = f": OPENROUTER PROCESSING\n\nevent: message\nid: 1\ndata: {chunk('a', 'length')}\n\nretry: 5\n\n"
    assert read_stream(body)[0].finish == LENGTH


def test_choices_are_kept_apart():
    body = "\n\n".join(
        f"data: {c}" for c in (chunk("b", index=1), chunk("a"), chunk(finish="stop"), chunk("b", "stop", 1))
    )
    assert [choice["message"]["content"] for choice in assembled(body)["choices"]] == ["a", "bb"]


def test_thinking_and_log_probabilities_are_collected():
    logprobs = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]}
    body = f"data: {chunk(reasoning_content='hm')}\n\ndata: {json.dumps(logprobs)}\n\ndata: {chunk(finish='stop')}\n\n"
    (choice,) = assembled(body)["choices"]
    assert choice["message"] == {"reasoning_content": "hm", "content": "a"}
    assert choice["logprobs"] == {"content": [{"token": "a"}]}


@pytest.mark.parametrize(
    "body",
    [
        f"data: {chunk('half a')}\n\n",
        f"data: {chunk('half a')}\n\ndata: {chunk('te')[:-9]}",
        f"data: {chunk('a')}\n\ndata: " + '{"error": {"message": "the engine died", "code": 500}}\n\n',
    ],
)
def test_a_stream_that_breaks_off_is_no_reply(body):
    with pytest.raises(ApiError) as error:
        read_stream(body)
    assert (error.value.remedy, error.value.paid) == (RETRY, True)


def test_a_stream_that_is_declared_done_may_lack_a_finish_reason():
    assert read_stream(f"data: {chunk('a')}\n\ndata: [DONE]\n\n")[0].text == "a"
    assert assembled(f"data: {chunk('a')}\n\n")["choices"][0]["finish_reason"] == BROKEN


def test_an_error_in_a_stream_is_read_like_any_other():
    body = 'data: {"error": {"message": "This model\'s maximum context length is 9 tokens", "code": 400}}\n\n'
    with pytest.raises(ApiError) as error:
        read_stream(body)
    assert error.value.remedy == "skip"
