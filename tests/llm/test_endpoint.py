"""A model behind an endpoint: the pure parts by tables, the rest against a real HTTP server with scripted faults."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support.fault_server import FaultServer, content

from sdft_cli.errors import GateError, SdftError, UsageError
from sdft_cli.llm import responses, retries
from sdft_cli.llm.api_key import HIDDEN, read_key, redacted, without_secrets
from sdft_cli.llm.budget import Budget
from sdft_cli.llm.endpoint import EndpointModel
from sdft_cli.llm.http_client import HttpResponse
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.rate_limit import ConcurrencyLimit, MinuteLimit
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.responses import ApiError, read, retry_after
from sdft_cli.llm.retries import backoff
from sdft_cli.llm.types import (
    CALLED,
    LENGTH,
    REFUSED,
    THOUGHT,
    UNFINISHED,
    PromptResult,
    Reply,
    Request,
    TeacherOptions,
)

KEY = "sk-test-0123456789/abc"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class FakeClock:
    """Time passes only during a sleep."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, list[float]()

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def request(text: str = "hi", samples: tuple[int, ...] = (0,), **extra: Any) -> Request:
    return Request([{"role": "user", "content": text}], 1.0, 16, extra, samples)


def body(*texts: str | None, finish: str | None = "stop", **more: Any) -> str:
    choices = [{"message": {"content": t}, "finish_reason": finish} for t in texts]
    return json.dumps({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 7}, **more})


def replies_in(text: str, wanted: Request | None = None) -> list[Reply | None]:
    """The replies in a response with this body."""
    return read(HttpResponse(200, {}, text), wanted or request())


# --- responses --------------------------------------------------------------------------------------------------------


def test_a_good_body_is_read():
    two = request(samples=(0, 1))
    assert replies_in(body("a", "b"), two) == [Reply("a", "stop", 5, 7), Reply("b")]
    assert replies_in(body("a", "b", "c"), two) == [Reply("a", "stop", 5, 7), Reply("b")]
    assert replies_in(body("a"), two) == [Reply("a", "stop", 5, 7)]  # a server that ignores n
    assert replies_in(body(None, "b"), two) == [None, Reply("b", "stop", 5, 7)]
    parts = json.dumps({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]})
    assert replies_in(parts, request("six words"))[0].text == "ab"
    assert replies_in(parts, request("six words"))[0].prompt_tokens > 0  # estimated if the server does not count


def test_a_reply_may_end_at_the_limit_or_be_a_refusal():
    assert replies_in(body("", finish="length")) == [Reply("", LENGTH, 5, 7)]
    assert replies_in(body("x", finish="content_filter"))[0].finish == REFUSED
    refusal = json.dumps({"choices": [{"message": {"content": None, "refusal": "I will not"}}]})
    assert replies_in(refusal)[0] == Reply("I will not", REFUSED, 5, 4)


@pytest.mark.parametrize(
    ("raw", "finish"),
    [
        *[(raw, "stop") for raw in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence")],
        *[(raw, LENGTH) for raw in ("length", "max_tokens", "MAX_TOKENS", "model_length", "FinishReason.MAX_TOKENS")],
        *[(raw, REFUSED) for raw in ("content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "sensitive")],
        *[(raw, CALLED) for raw in ("tool_calls", "function_call")],
        (None, "stop"),
    ],
)
def test_endings_are_known_by_their_many_names(raw, finish):
    assert replies_in(body("text", finish=raw))[0].finish == finish


@pytest.mark.parametrize("raw", ["error", "insufficient_system_resource", "abort", "network_error", "unknown", "other"])
def test_what_did_not_end_by_itself_is_no_reply(raw):
    with pytest.raises(ApiError, match=f"finish reason '{raw}'") as error:
        replies_in(body("half a te", finish=raw))
    assert error.value.remedy == responses.RETRY
    assert error.value.reply == Reply("half a te", UNFINISHED, 5, 7)  # what it has cost
    two = replies_in(json.dumps({"choices": [choice("a", raw), choice("b", "stop")]}), request(samples=(0, 1)))
    assert [reply and reply.text for reply in two] == [None, "b"]


def choice(text: str, finish: str) -> dict[str, Any]:
    return {"message": {"content": text}, "finish_reason": finish}


def test_a_reply_without_a_finish_reason_is_cut_off_if_it_has_all_tokens_that_were_allowed():
    def with_tokens(written: int) -> str:
        usage = {"prompt_tokens": 5, "completion_tokens": written}
        return json.dumps({"choices": [{"message": {"content": "text"}}], "usage": usage})

    assert replies_in(with_tokens(15))[0].finish == "stop"
    assert replies_in(with_tokens(16))[0].finish == LENGTH  # `request` allows 16


@pytest.mark.parametrize(
    "message",
    [
        {"content": "", "reasoning_content": "hm"},
        {"content": None, "reasoning": "hm"},
        {"content": [{"type": "thinking", "thinking": "hm"}]},
        {"content": [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": ""}]},
    ],
)
def test_thinking_without_text_is_no_answer_and_is_not_asked_again(message):
    text = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert replies_in(text)[0].finish == THOUGHT


@pytest.mark.parametrize(
    "message",
    [
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "a"},
            ]
        },
        {"content": ["a"]},
        {"content": {"type": "text", "text": "a"}},
        {"content": "a", "reasoning_content": "hm"},
    ],
)
def test_thinking_apart_from_the_text_is_left_out(message):
    text = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert replies_in(text)[0].text == "a"


def test_text_beyond_a_stop_is_cut_off():
    assert replies_in(body("one\ntwo END"), request(stop=["END", "\n"]))[0].text == "one"
    assert replies_in(body("one\ntwo"), request(stop="two"))[0].text == "one\n"


def test_missing_log_probabilities_are_an_error_if_requested():
    with pytest.raises(ApiError, match="ignores logprobs") as error:
        replies_in(body("a"), request(logprobs=True))
    assert error.value.remedy == responses.ABORT


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (body("x")[:-9], "broken JSON"),
        ("", "status 200, but an empty body"),
        ("<html>", "status 200, but a web page"),
        ("[" * 100_000, "broken JSON"),
        (r'{"choices": [{"message": {"content": "\ud800"}}]}', "broken JSON"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "no choices"),
        ('{"choices": []}', "no choices"),
        ('{"choices": [3]}', "no choices"),
        ('{"error": {"message": "over\\nloaded"}}', "an error with status 200: over loaded"),
        (body(""), "empty text"),
        (body(" \n"), "empty text"),
        (body(None), "empty text"),
        ('{"choices": [{"message": null}]}', "empty text"),
    ],
)
def test_a_body_without_a_reply(text, what):
    with pytest.raises(ApiError) as error:
        replies_in(text)
    assert error.value.what.startswith(what)
    assert (error.value.remedy, error.value.paid) == (responses.RETRY, True)


@pytest.mark.parametrize(
    ("status", "text", "remedy"),
    [
        (429, "{}", responses.SLOW_DOWN),
        (503, "<html>busy</html>", responses.SLOW_DOWN),
        (500, "", responses.RETRY),
        (502, "bad gateway", responses.RETRY),
        (408, "", responses.RETRY),
        (401, '{"error": {"message": "bad key"}}', responses.ABORT),
        (404, '{"detail": "Not Found"}', responses.ABORT),
        (400, '{"error": {"message": "top_k must be positive", "param": "top_k"}}', responses.ABORT),
        (429, '{"error": {"code": "insufficient_quota"}}', responses.ABORT),
        (400, '{"error": {"code": "context_length_exceeded"}}', responses.SKIP),
        (400, '{"message": "This model\'s maximum context length is 512 tokens"}', responses.SKIP),
        (400, '{"error": {"code": "content_filter"}}', responses.SKIP),
        (422, '{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}', responses.DROP_PARAMETER),
        (
            400,
            '{"error": {"message": "\'max_tokens\' is not supported, use \'max_completion_tokens\'"}}',
            responses.DROP_PARAMETER,
        ),
        (400, '{"error": {"message": "unsupported value", "param": "n"}}', responses.DROP_PARAMETER),
    ],
)
def test_what_a_status_means(status, text, remedy):
    with pytest.raises(ApiError) as error:
        read(HttpResponse(status, {}, text), request(top_k=-2))
    assert error.value.remedy == remedy


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=300), usegmt=True)}, 300.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=9), usegmt=True)}, 0.0),
        (
            {"retry-after": "Fri, 01 May 2026 09:00:30 GMT", "date": "Fri, 01 May 2026 09:00:00 GMT"},
            30.0,  # by the server's own clock
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers, NOW) == seconds


# --- rate limits, retries, budget -------------------------------------------------------------------------------------


def test_a_minute_limit_holds_in_every_minute():
    clock, begun = FakeClock(), list[float]()

    async def all_at_once() -> None:
        limit = MinuteLimit(30, clock)
        for _ in range(100):
            await limit.take()
            begun.append(clock.now())

    asyncio.run(all_at_once())
    assert max(sum(t <= other < t + 60 for other in begun) for t in begun) == 30
    assert begun[-1] == pytest.approx(99 * 2)


def test_tokens_that_were_not_used_are_given_back():
    clock = FakeClock()

    async def two() -> None:
        limit = MinuteLimit(600, clock)
        await limit.take(500)
        limit.give_back(400)
        await limit.take(100)
        assert clock.now() == pytest.approx(10)  # 100 tokens at ten a second

    asyncio.run(two())


def test_concurrency_doubles_until_the_first_429_then_halves_and_grows_slowly():
    async def story() -> None:
        clock = FakeClock()
        limit = ConcurrencyLimit(64, clock)
        assert limit.size == 8
        for _ in range(8):
            limit.increase(0.0)
        assert limit.size == 16
        limit.decrease(0.0, 5.0)
        limit.decrease(-1.0, 5.0)  # of the same round trip: it says nothing new
        assert limit.size == 8
        assert await limit.enter() == 5.0  # not before the pause is over
        limit.increase(0.0)
        for _ in range(8):
            limit.increase(5.0)
        assert limit.size == pytest.approx(9, abs=0.1)
        for step in range(9):
            limit.decrease(10.0 + step, 0.0)
            clock.time = 11.0 + step
        assert limit.size == 1.0

    asyncio.run(story())


def test_backoff_doubles_up_to_a_minute():
    rng = random.Random(0)
    for attempt, longest in ((1, 1), (2, 2), (5, 16), (7, 60), (50, 60)):
        assert all(longest / 2 <= backoff(attempt, rng) <= longest for _ in range(50))


def test_a_budget_waits_for_open_requests_and_is_never_exceeded():
    async def story() -> None:
        budget = Budget(TeacherOptions("m", max_cost=1.0, price_in=0.0, price_out=100_000.0))
        worst = await budget.reserve(0, 6)
        assert worst == pytest.approx(0.6)
        second = asyncio.create_task(budget.reserve(0, 5))
        await asyncio.sleep(0)
        assert not second.done()  # 0.6 + 0.5 might be too much
        await budget.settle(worst, 0.1)
        await budget.settle(await second, 0.5)
        with pytest.raises(GateError, match=r"--max-cost 1 is used up: 0\.6000 is spent"):
            await budget.reserve(0, 5)

    asyncio.run(story())


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_comes_from_the_environment_or_a_file_outside_the_project(tmp_path, monkeypatch):
    project, home = tmp_path / "project", tmp_path / "home"
    (project / ".git").mkdir(parents=True)
    (project / "deep").mkdir()
    home.mkdir()
    monkeypatch.chdir(project / "deep")
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    assert read_key("MY_KEY", None) == KEY
    assert read_key("NO_SUCH_KEY", None) is None
    (home / "key").write_text(f"{KEY}\n")
    assert read_key("MY_KEY", home / "key") == KEY
    (project / "key").write_text(KEY)
    (project / "link").symlink_to(project / "key")
    (home / "two").write_text(f"{KEY} {KEY}")
    (home / "odd").write_bytes(b"\xff\xfe")
    for file in (project / "key", Path("../link"), home / "two", home / "odd", home / "absent", home):
        with pytest.raises(UsageError) as error:
            read_key("MY_KEY", file)
        assert KEY not in error.value.message + error.value.hint


def test_a_key_is_removed_from_a_text_however_it_is_written():
    text = f"wrong: {KEY}, {json.dumps(KEY)}, {KEY.replace('/', chr(92) + '/')}; sk-proj-ab**********yz"
    hidden = redacted(text, KEY, guess=True)
    assert "0123456789" not in hidden
    assert "sk-" not in hidden
    assert hidden.count(HIDDEN) == 4
    assert redacted("nothing in sk-learn", None) == "nothing in sk-learn"
    for told in ("gsk_abc123defg", "xai-12345678", "AIzaSyD-12345", "Bearer abc123def456", "3f2a****9c1d"):
        assert redacted(f"wrong: {told}.", None, guess=True).startswith(f"wrong: {HIDDEN}")
    assert redacted("Missing bearer authentication", None, guess=True) == "Missing bearer authentication"
    assert redacted("an EMPTY list", "EMPTY") == "an EMPTY list"  # a placeholder for servers without keys is not secret


def test_a_url_is_stored_without_its_secrets():
    assert without_secrets("https://me:pw@host:80/v1/?token=x#y") == "https://host:80/v1"


# --- against a server -------------------------------------------------------------------------------------------------


@contextmanager
def model_at(server: FaultServer, tmp_path: Path, clock: FakeClock | None = None, **more: Any):
    options = TeacherOptions("m", server.url, **{"timeout": 5.0, "api_key_env": "TEST_KEY", **more})
    with ReplyStore(tmp_path / "store.sqlite") as store:
        yield EndpointModel(options, store, Progress(), clock)


def replies_to(endpoint: EndpointModel, *requests: Request) -> list[list[Reply]]:
    """The replies to each request, each in an exchange of its own."""
    replies: dict[int, list[Reply]] = {}

    def exchange(i: int, request: Request):
        replies[i] = yield request
        return PromptResult()

    endpoint.run([exchange(i, request) for i, request in enumerate(requests)], lambda result: None)
    return [replies[i] for i in range(len(requests))]


def texts(endpoint: EndpointModel, *requests: Request) -> list[list[str]]:
    return [[reply.text for reply in replies] for replies in replies_to(endpoint, *requests)]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)


def echo(sent: dict[str, Any]) -> str:
    return f"{content(sent)}!"


def first(*faults: str):
    """A script: one of these faults for each of the first requests, then none."""
    return lambda sent, before: faults[before] if before < len(faults) else None


def test_what_is_sent(tmp_path):
    with FaultServer(echo) as server, model_at(server, tmp_path) as endpoint:
        assert texts(endpoint, request("a", top_p=0.5)) == [["a!"]]
    (sent,) = server.requests
    assert sent.pop("seed") >= 0
    assert sent == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 1.0,
        "max_tokens": 16,
        "top_p": 0.5,
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("fault", ["429 0", "500", "503", "408", "hang", "drop", "truncated", "empty"])
def test_a_request_is_retried_after_a_fault(tmp_path, impatient, fault):
    options = {"timeout": 0.3} if fault == "hang" else {}
    with FaultServer(echo, first(fault, fault)) as server, model_at(server, tmp_path, **options) as endpoint:
        assert texts(endpoint, request("a"), request("b")) == [["a!"], ["b!"]]
        assert endpoint.progress.usage.errors == 4
        assert len(server.requests) == 6
        assert texts(endpoint, request("b")) == [["b!"]]  # from the store
        assert len(server.requests) == 6
    stored = sqlite3.connect(tmp_path / "store.sqlite").execute("SELECT status, body FROM response").fetchall()
    assert len(stored) == 6  # the failed ones too


def test_a_long_retry_after_is_respected(tmp_path):
    clock = FakeClock()
    with FaultServer(echo, first("429 300")) as server, model_at(server, tmp_path, clock) as endpoint:
        notes: list[str] = []
        endpoint.progress.note = notes.append
        assert texts(endpoint, request("a")) == [["a!"]]
    assert clock.time == pytest.approx(300, abs=0.1)
    assert any("asks for a pause of 300 s" in note for note in notes)


def test_fewer_requests_are_open_after_429s(tmp_path, impatient):
    with FaultServer(echo, lambda sent, before: None if before else "429 0") as server, model_at(server, tmp_path) as e:
        texts(e, *(request(str(i)) for i in range(20)))
        assert e.limiter.concurrency.size < 8
    assert server.most_open <= 8


@pytest.mark.parametrize("fault", ["401", "422"])
def test_other_refusals_end_the_run_at_once(tmp_path, fault):
    with FaultServer(echo, lambda sent, before: fault) as server, model_at(server, tmp_path) as endpoint:
        with pytest.raises(UsageError, match=f"refuses the request: status {fault}: no") as error:
            texts(endpoint, *(request(str(i)) for i in range(50)))
        assert len(server.requests) <= 8  # those already under way
    assert error.value.hint


def test_an_account_without_money_ends_the_run(tmp_path):
    broke = '429 {"error": {"code": "insufficient_quota", "message": "pay"}}'
    with FaultServer(echo, lambda sent, before: broke) as server, model_at(server, tmp_path) as endpoint:
        with pytest.raises(SdftError, match="refuses the request: status 429") as error:
            texts(endpoint, request("a"))
        assert "no money left" in error.value.hint
        assert len(server.requests) == 1


def test_an_endpoint_that_does_not_exist(tmp_path):
    with FaultServer(echo) as server:
        pass
    with (
        model_at(server, tmp_path, FakeClock()) as endpoint,
        pytest.raises(UsageError, match="does not respond: no connection") as error,
    ):
        texts(endpoint, request("a"))
    assert error.value.hint == "check --base-url"


def test_a_server_that_goes_down_ends_the_run_and_its_replies_are_kept(tmp_path):
    clock, down = FakeClock(), lambda sent, before: "500" if int(content(sent)) > 5 else None
    with FaultServer(echo, down) as server, model_at(server, tmp_path, clock) as endpoint:
        with pytest.raises(SdftError, match="is down, 10 attempts each") as error:
            texts(endpoint, *(request(str(i)) for i in range(10)))
        assert "run the same command again" in error.value.hint
        sent = len(server.requests)
        assert texts(endpoint, *(request(str(i)) for i in range(6))) == [[f"{i}!"] for i in range(6)]
        assert endpoint.progress.usage.stored == 6
        assert len(server.requests) == sent


def test_one_prompt_without_a_reply_does_not_stop_the_others(tmp_path):
    clock, sick = FakeClock(), lambda sent, before: "500" if content(sent) == "3" else None
    with FaultServer(echo, sick) as server, model_at(server, tmp_path, clock) as endpoint:
        with pytest.raises(SdftError, match="1 of 40 prompts got no reply; the last: status 500"):
            texts(endpoint, *(request(str(i)) for i in range(40)))
        assert len(server.requests) == 39 + 10


def test_a_reply_that_stays_empty_is_accepted_as_empty(tmp_path):
    clock = FakeClock()
    with FaultServer(echo, lambda sent, before: "empty") as server, model_at(server, tmp_path, clock) as endpoint:
        assert texts(endpoint, request("a")) == [[""]]
        assert texts(endpoint, request("a")) == [[""]]
        assert len(server.requests) == 5


def test_a_prompt_that_was_refused_is_not_sent_again(tmp_path):
    refuse = '400 {"error": {"code": "content_filter"}}'
    with FaultServer(echo, first(*[refuse] * 9)) as server, model_at(server, tmp_path) as endpoint:
        for _ in range(2):
            assert replies_to(endpoint, request("a"))[0][0].finish == REFUSED
        assert len(server.requests) == 1


def test_several_samples_in_one_request(tmp_path):
    with FaultServer(lambda sent: str(sent["seed"])) as server, model_at(server, tmp_path) as endpoint:
        (together,) = texts(endpoint, request("a", (0, 1, 2)))
        assert [sent.get("n") for sent in server.requests] == [3]
        assert len(set(together)) == 3
        (more,) = texts(endpoint, request("a", (1, 2, 3)))
        assert more[:2] == together[1:]
        assert [sent.get("n") for sent in server.requests] == [3, None]


def test_samples_are_requested_one_by_one_if_the_server_ignores_n(tmp_path):
    with FaultServer(lambda sent: str(sent["seed"]), lambda sent, before: "ignore-n") as server:
        with model_at(server, tmp_path) as endpoint:
            one, other = texts(endpoint, request("a", (0, 1, 2)), request("b", (0, 1)))
        assert len({*one, *other}) == 5
        assert sum("n" in sent for sent in server.requests) <= 2
        assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("parameter", "complaint"),
    [
        ("seed", '422 {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}'),
        ("n", '400 {"error": {"message": "unsupported value", "param": "n"}}'),
        ("max_tokens", "400 Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
    ],
)
def test_a_parameter_that_the_server_does_not_take_is_left_out(tmp_path, parameter, complaint):
    with FaultServer(echo, lambda sent, before: complaint if parameter in sent else None) as server:
        with model_at(server, tmp_path) as endpoint:
            assert texts(endpoint, *(request(str(i), (0, 1)) for i in range(9))) == [[f"{i}!"] * 2 for i in range(9)]
        assert sum(parameter in sent for sent in server.requests) <= 8
        assert all("max_tokens" in sent or sent["max_completion_tokens"] == 16 for sent in server.requests)


def test_stops_and_log_probabilities_are_checked(tmp_path):
    with (
        FaultServer(lambda sent: "one END two", first("ignore-stop")) as server,
        model_at(server, tmp_path) as endpoint,
    ):
        assert texts(endpoint, request("a", stop=["END"]), request("b", stop=["END"])) == [["one "], ["one "]]
    with (
        FaultServer(echo, lambda sent, before: "ignore-logprobs") as server,
        model_at(server, tmp_path) as endpoint,
        pytest.raises(UsageError, match="ignores logprobs"),
    ):
        texts(endpoint, request("a", logprobs=True))


def test_log_probabilities_that_are_refused_are_done_without(tmp_path):
    refused = '400 {"error": {"message": "property \'logprobs\' is unsupported"}}'
    script = lambda sent, before: refused if "logprobs" in sent else "ignore-logprobs"  # noqa: E731
    with FaultServer(echo, script) as server, model_at(server, tmp_path) as endpoint:
        assert texts(endpoint, request("a", logprobs=True, top_logprobs=2)) == [["a!"]]
        assert "top_logprobs" not in server.requests[-1]


def test_a_server_that_seems_to_cut_prompts_is_noted(tmp_path):
    notes: list[str] = []
    counted = lambda sent, before: f"json {body('x')}"  # noqa: E731 (five tokens read)
    with FaultServer(echo, counted) as server, model_at(server, tmp_path) as endpoint:
        endpoint.progress.note = notes.append
        texts(endpoint, request("short"))
        assert notes == []
        texts(endpoint, request("long " * 1000), request("longer " * 1000))
    assert [note for note in notes if "does it cut them" in note] == notes[-1:]


def test_equal_requests_are_paid_for_once(tmp_path):
    with FaultServer(echo, lambda sent, before: "slow 0.05") as server, model_at(server, tmp_path) as endpoint:
        assert texts(endpoint, *(request("a") for _ in range(5))) == [["a!"]] * 5
        assert len(server.requests) == 1


def test_a_key_that_the_server_echoes_is_nowhere_to_be_found(tmp_path, capfd):
    def echo_key(sent: dict[str, Any]) -> str:
        return f"the key is {KEY}, or {json.dumps(KEY)}"

    script = lambda sent, before: "echo" if content(sent) == "b" else None  # noqa: E731
    with FaultServer(echo_key, script) as server, model_at(server, tmp_path) as endpoint:
        assert HIDDEN in texts(endpoint, request("a"))[0][0]
        with pytest.raises(UsageError) as error:
            texts(endpoint, request("b"))
    assert "wrong key" in error.value.message
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert HIDDEN.encode() in stored
    for output in (
        stored,
        error.value.message.encode(),
        repr(error.value.__cause__).encode(),
        "".join(capfd.readouterr()).encode(),
    ):
        assert b"0123456789" not in output


def test_an_error_of_one_kind_is_noted_once(tmp_path, impatient):
    notes: list[str] = []
    script = lambda sent, before: None if before else f"500 try {content(sent)}"  # noqa: E731
    with FaultServer(echo, script) as server, model_at(server, tmp_path) as endpoint:
        endpoint.progress.note = notes.append
        texts(endpoint, *(request(str(i)) for i in range(9)))
    assert [note.split(" try")[0] for note in notes] == ["trying again after: status 500:"]


def test_a_run_stops_before_it_exceeds_its_budget(tmp_path):
    with FaultServer(echo) as server, model_at(server, tmp_path, max_requests=7) as endpoint:
        with pytest.raises(GateError, match="--max-requests 7 is used up"):
            texts(endpoint, *(request(str(i)) for i in range(20)))
        assert len(server.requests) == 7
        assert len(server.good) == 7
    # at most 16 tokens written and three read (estimated as five), each at a price of one
    prices = {"max_cost": 100.0, "price_in": 1e6, "price_out": 1e6}
    with FaultServer(echo) as server, model_at(server, tmp_path / "other", **prices) as endpoint:
        with pytest.raises(GateError, match="--max-cost 100 is used up") as error:
            texts(endpoint, *(request(str(i)) for i in range(90)))
        assert 60 < endpoint.budget.cost <= 100
    assert error.value.code == 3


def test_a_lost_reply_counts_as_if_it_had_been_billed(tmp_path, impatient):
    prices = {"price_in": 1e6, "price_out": 1e6, "max_cost": 1000.0}
    with FaultServer(echo, first("truncated", "500")) as server, model_at(server, tmp_path, **prices) as endpoint:
        texts(endpoint, request("a"))
        assert endpoint.progress.usage.cost == pytest.approx((5 + 16) + 2)  # worst case, nothing, counted


def test_another_model_or_setting_is_another_request(tmp_path):
    with FaultServer(echo) as server:
        with model_at(server, tmp_path) as endpoint:
            texts(endpoint, request("a"), request("a", top_p=0.5), request("b"))
        with model_at(server, tmp_path, temperature=0.5) as endpoint:
            texts(endpoint, request("a"))
            assert len(server.requests) == 3
        options = TeacherOptions("other", server.url, api_key_env="TEST_KEY")
        with ReplyStore(tmp_path / "store.sqlite") as store:
            texts(EndpointModel(options, store, Progress()), request("a"))
        assert len(server.requests) == 4
