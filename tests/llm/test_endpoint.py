"""The client of an endpoint: its pure parts by tables, the rest against a real HTTP server with scripted faults."""

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
from sdft_cli.llm import rate_limit, responses
from sdft_cli.llm.api_key import HIDDEN, read_key, redacted, without_secrets
from sdft_cli.llm.budget import Budget
from sdft_cli.llm.endpoint import Endpoint
from sdft_cli.llm.rate_limit import Pace, Window, backoff
from sdft_cli.llm.reply_store import Store
from sdft_cli.llm.responses import Fault, fault_of, read, retry_after
from sdft_cli.llm.types import LENGTH, REFUSED, Outcome, Reply, Request, TeacherOptions
from sdft_cli.llm.usage import Tally

KEY = "sk-test-0123456789/abc"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class FakeClock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, list[float]()

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def request(text: str = "hi", samples: tuple[int, ...] = (0,), **more: Any) -> Request:
    return Request([{"role": "user", "content": text}], 1.0, 16, more, samples)


def body(*texts: str | None, finish: str = "stop", **more: Any) -> str:
    choices = [{"message": {"content": t}, "finish_reason": finish} for t in texts]
    return json.dumps({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 7}, **more})


# --- what an answer is worth ------------------------------------------------------------------------------------------


def test_a_good_body_is_read():
    assert read(body("a", "b"), request(), 2) == [Reply("a", "stop", 5, 7), Reply("b")]
    assert read(body("a", "b", "c"), request(), 2) == [Reply("a", "stop", 5, 7), Reply("b")]
    assert read(body("a"), request(), 2) == [Reply("a", "stop", 5, 7)]  # a server that ignores n
    assert read(body(None, "b"), request(), 2) == [None, Reply("b", "stop", 5, 7)]
    parts = json.dumps({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]})
    assert read(parts, request("six words"), 1)[0].text == "ab"
    assert read(parts, request("six words"), 1)[0].prompt_tokens > 0  # estimated where the server does not count


def test_an_answer_may_end_at_the_limit_or_be_a_refusal():
    assert read(body("", finish="length"), request(), 1) == [Reply("", LENGTH, 5, 7)]
    assert read(body("x", finish="content_filter"), request(), 1)[0].finish == REFUSED
    refusal = json.dumps({"choices": [{"message": {"content": None, "refusal": "I will not"}}]})
    assert read(refusal, request(), 1)[0] == Reply("I will not", REFUSED, 5, 4)


def test_text_beyond_a_stop_is_cut():
    assert read(body("one\ntwo END"), request(stop=["END", "\n"]), 1)[0].text == "one"
    assert read(body("one\ntwo"), request(stop="two"), 1)[0].text == "one\n"


def test_log_probabilities_are_demanded_if_asked_for():
    with pytest.raises(Fault, match="ignores logprobs") as fault:
        read(body("a"), request(logprobs=True), 1)
    assert fault.value.todo == responses.FATAL


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (body("x")[:-9], "broken JSON"),
        ("", "broken JSON"),
        ("<html>", "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        (r'{"choices": [{"message": {"content": "\ud800"}}]}', "broken JSON"),
        ("[1]", "no JSON object"),
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
def test_a_body_that_is_no_reply(text, what):
    with pytest.raises(Fault) as fault:
        read(text, request(), 1)
    assert fault.value.what.startswith(what)
    assert (fault.value.todo, fault.value.paid) == (responses.AGAIN, True)


@pytest.mark.parametrize(
    ("status", "text", "todo"),
    [
        (429, "{}", responses.SLOWER),
        (503, "<html>busy</html>", responses.SLOWER),
        (500, "", responses.AGAIN),
        (502, "bad gateway", responses.AGAIN),
        (408, "", responses.AGAIN),
        (401, '{"error": {"message": "bad key"}}', responses.FATAL),
        (404, '{"detail": "Not Found"}', responses.FATAL),
        (400, '{"error": {"message": "temperature must be positive", "param": "temperature"}}', responses.FATAL),
        (429, '{"error": {"code": "insufficient_quota"}}', responses.FATAL),
        (400, '{"error": {"code": "context_length_exceeded"}}', responses.NEVER),
        (400, '{"message": "This model\'s maximum context length is 512 tokens"}', responses.NEVER),
        (400, '{"error": {"code": "content_filter"}}', responses.NEVER),
        (422, '{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}', responses.WITHOUT),
        (
            400,
            '{"error": {"message": "\'max_tokens\' is not supported, use \'max_completion_tokens\'"}}',
            responses.WITHOUT,
        ),
        (400, '{"error": {"message": "unsupported value", "param": "n"}}', responses.WITHOUT),
    ],
)
def test_what_a_status_means(status, text, todo):
    assert fault_of(status, {}, text).todo == todo


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
            30.0,  # by the server's own clock, whatever ours says
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


# --- pace, window, budget ---------------------------------------------------------------------------------------------


def test_a_pace_keeps_its_limit_in_every_minute():
    clock, begun = FakeClock(), list[float]()

    async def all_at_once() -> None:
        pace = Pace(30, clock)
        for _ in range(100):
            await pace.take()
            begun.append(clock.now())

    asyncio.run(all_at_once())
    assert max(sum(t <= other < t + 60 for other in begun) for t in begun) == 30
    assert begun[-1] == pytest.approx(99 * 2)


def test_a_pace_of_tokens_gets_back_what_was_not_written():
    clock = FakeClock()

    async def two() -> None:
        pace = Pace(600, clock)
        await pace.take(500)
        pace.give_back(400)
        await pace.take(100)
        assert clock.now() == pytest.approx(10)  # 100 tokens at ten a second

    asyncio.run(two())


def test_a_window_doubles_until_the_first_429_then_halves_and_grows_slowly():
    async def story() -> None:
        clock = FakeClock()
        window = Window(64, clock)
        assert window.size == 8
        for _ in range(8):
            window.bore(0.0)
        assert window.size == 16
        window.overloaded(0.0, 5.0)
        window.overloaded(-1.0, 5.0)  # of the same round trip: it says nothing new
        assert window.size == 8
        assert await window.enter() == 5.0  # nobody before the pause is over
        window.bore(0.0)
        for _ in range(8):
            window.bore(5.0)
        assert window.size == pytest.approx(9, abs=0.1)
        for step in range(9):
            window.overloaded(10.0 + step, 0.0)
            clock.time = 11.0 + step
        assert window.size == 1.0

    asyncio.run(story())


def test_backoff_doubles_up_to_a_minute():
    draw = random.Random(0)
    for attempt, whole in ((1, 1), (2, 2), (5, 16), (7, 60), (50, 60)):
        assert all(whole / 2 <= backoff(attempt, draw) <= whole for _ in range(50))


def test_a_budget_waits_for_what_is_open_and_is_never_passed():
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


def test_a_key_is_taken_out_of_a_text_however_it_is_written():
    said = f"wrong: {KEY}, {json.dumps(KEY)}, {KEY.replace('/', chr(92) + '/')}; sk-proj-ab**********yz"
    hidden = redacted(said, KEY, guess=True)
    assert "0123456789" not in hidden
    assert "sk-" not in hidden
    assert hidden.count(HIDDEN) == 4
    assert redacted("nothing in sk-learn", None) == "nothing in sk-learn"
    assert redacted("an EMPTY list", "EMPTY") == "an EMPTY list"  # what servers without keys are given is no secret


def test_a_url_is_stored_without_its_secrets():
    assert without_secrets("https://me:pw@host:80/v1/?token=x#y") == "https://host:80/v1"


# --- against a server -------------------------------------------------------------------------------------------------


@contextmanager
def teacher(server: FaultServer, tmp_path: Path, clock: FakeClock | None = None, **options: Any):
    asked = TeacherOptions("m", server.url, **{"timeout": 5.0, "api_key_env": "TEST_KEY", **options})
    with Store(tmp_path / "store.sqlite") as store:
        yield Endpoint(asked, store, Tally(), clock)


def replies_to(endpoint: Endpoint, *requests: Request) -> list[list[Reply]]:
    """The replies to each request, by way of a pursuit each."""
    found: dict[int, list[Reply]] = {}

    def pursue(i: int, asked: Request):
        found[i] = yield asked
        return Outcome()

    endpoint.run([pursue(i, asked) for i, asked in enumerate(requests)], lambda outcome: None)
    return [found[i] for i in range(len(requests))]


def texts(endpoint: Endpoint, *requests: Request) -> list[list[str]]:
    return [[reply.text for reply in replies] for replies in replies_to(endpoint, *requests)]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(rate_limit, "FIRST_BACKOFF", 0.01)


def say(asked: dict[str, Any]) -> str:
    return f"{content(asked)}!"


def first(*faults: str):
    """A script: these faults for the first requests, one each, then none."""
    return lambda asked, before: faults[before] if before < len(faults) else None


def test_what_goes_over_the_wire(tmp_path):
    with FaultServer(say) as server, teacher(server, tmp_path) as endpoint:
        assert texts(endpoint, request("a", top_p=0.5)) == [["a!"]]
    (asked,) = server.requests
    assert asked.pop("seed") >= 0
    assert asked == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 1.0,
        "max_tokens": 16,
        "top_p": 0.5,
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("fault", ["429 0", "500", "503", "408", "hang", "drop", "truncated", "empty", "json {}"])
def test_a_fault_is_answered_by_asking_again(tmp_path, impatient, fault):
    options = {"timeout": 0.3} if fault == "hang" else {}
    with FaultServer(say, first(fault, fault)) as server, teacher(server, tmp_path, **options) as endpoint:
        assert texts(endpoint, request("a"), request("b")) == [["a!"], ["b!"]]
        assert endpoint.tally.faults == 4
        assert len(server.requests) == 6
        assert texts(endpoint, request("b")) == [["b!"]]  # from the store
        assert len(server.requests) == 6
    stored = sqlite3.connect(tmp_path / "store.sqlite").execute("SELECT status, body FROM response").fetchall()
    assert len(stored) == 6  # the failed ones, too


def test_a_long_retry_after_is_kept(tmp_path):
    clock = FakeClock()
    with FaultServer(say, first("429 300")) as server, teacher(server, tmp_path, clock) as endpoint:
        said: list[str] = []
        endpoint.tally.say = said.append
        assert texts(endpoint, request("a")) == [["a!"]]
    assert clock.time == pytest.approx(300, abs=0.1)
    assert any("wants a pause of 300 s" in line for line in said)


def test_fewer_requests_are_open_after_429s(tmp_path, impatient):
    with FaultServer(say, lambda asked, before: None if before else "429 0") as server, teacher(server, tmp_path) as e:
        texts(e, *(request(str(i)) for i in range(40)))
        assert e.window.size < 8
    assert server.most_open <= 8


@pytest.mark.parametrize("fault", ["401", "422"])
def test_other_refusals_end_the_run_at_once(tmp_path, fault):
    with FaultServer(say, lambda asked, before: fault) as server, teacher(server, tmp_path) as endpoint:
        with pytest.raises(UsageError, match=f"refuses the request: status {fault}: no") as error:
            texts(endpoint, *(request(str(i)) for i in range(50)))
        assert len(server.requests) <= 8  # those that were on their way
    assert error.value.hint


def test_an_account_without_money_is_no_reason_to_wait(tmp_path):
    broke = '429 {"error": {"code": "insufficient_quota", "message": "pay"}}'
    with FaultServer(say, lambda asked, before: broke) as server, teacher(server, tmp_path) as endpoint:
        with pytest.raises(SdftError, match="refuses the request: status 429") as error:
            texts(endpoint, request("a"))
        assert "no money left" in error.value.hint
        assert len(server.requests) == 1


def test_an_endpoint_that_is_not_there(tmp_path):
    with FaultServer(say) as server:
        pass
    with (
        teacher(server, tmp_path, FakeClock()) as endpoint,
        pytest.raises(UsageError, match="does not answer: no connection") as error,
    ):
        texts(endpoint, request("a"))
    assert error.value.hint == "check --base-url"


def test_a_server_that_goes_down_ends_the_run_and_what_was_answered_is_kept(tmp_path):
    clock, down = FakeClock(), lambda asked, before: "500" if int(content(asked)) > 5 else None
    with FaultServer(say, down) as server, teacher(server, tmp_path, clock) as endpoint:
        with pytest.raises(SdftError, match="is down, 10 attempts each") as error:
            texts(endpoint, *(request(str(i)) for i in range(10)))
        assert "the same command goes on" in error.value.hint
        asked = len(server.requests)
        assert texts(endpoint, *(request(str(i)) for i in range(6))) == [[f"{i}!"] for i in range(6)]
        assert endpoint.tally.stored == 6
        assert len(server.requests) == asked


def test_one_prompt_that_gets_no_reply_does_not_keep_the_others_from_theirs(tmp_path):
    clock, sick = FakeClock(), lambda asked, before: "500" if content(asked) == "3" else None
    with FaultServer(say, sick) as server, teacher(server, tmp_path, clock) as endpoint:
        with pytest.raises(SdftError, match="1 of 40 prompts got no reply; the last: status 500"):
            texts(endpoint, *(request(str(i)) for i in range(40)))
        assert len(server.requests) == 39 + 10


def test_a_model_that_never_says_anything_has_said_so(tmp_path):
    clock = FakeClock()
    with FaultServer(say, lambda asked, before: "empty") as server, teacher(server, tmp_path, clock) as endpoint:
        assert texts(endpoint, request("a")) == [[""]]
        assert texts(endpoint, request("a")) == [[""]]
        assert len(server.requests) == 10


def test_a_prompt_that_is_refused_is_not_asked_again(tmp_path):
    refuse = '400 {"error": {"code": "content_filter"}}'
    with FaultServer(say, first(*[refuse] * 9)) as server, teacher(server, tmp_path) as endpoint:
        for _ in range(2):
            assert replies_to(endpoint, request("a"))[0][0].finish == REFUSED
        assert len(server.requests) == 1


def test_several_samples_in_one_request(tmp_path):
    with FaultServer(lambda asked: str(asked["seed"])) as server, teacher(server, tmp_path) as endpoint:
        (together,) = texts(endpoint, request("a", (0, 1, 2)))
        assert [asked.get("n") for asked in server.requests] == [3]
        assert len(set(together)) == 3
        (more,) = texts(endpoint, request("a", (1, 2, 3)))
        assert more[:2] == together[1:]
        assert [asked.get("n") for asked in server.requests] == [3, None]


def test_a_server_that_ignores_n_is_asked_one_by_one(tmp_path):
    with FaultServer(lambda asked: str(asked["seed"]), lambda asked, before: "ignore-n") as server:
        with teacher(server, tmp_path) as endpoint:
            one, other = texts(endpoint, request("a", (0, 1, 2)), request("b", (0, 1)))
        assert len({*one, *other}) == 5
        assert sum("n" in asked for asked in server.requests) <= 2
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
    with FaultServer(say, lambda asked, before: complaint if parameter in asked else None) as server:
        with teacher(server, tmp_path) as endpoint:
            assert texts(endpoint, *(request(str(i), (0, 1)) for i in range(9))) == [[f"{i}!"] * 2 for i in range(9)]
        assert sum(parameter in asked for asked in server.requests) <= 8
        assert all("max_tokens" in asked or asked["max_completion_tokens"] == 16 for asked in server.requests)


def test_stops_and_log_probabilities_are_checked(tmp_path):
    with (
        FaultServer(lambda asked: "one END two", first("ignore-stop")) as server,
        teacher(server, tmp_path) as endpoint,
    ):
        assert texts(endpoint, request("a", stop=["END"]), request("b", stop=["END"])) == [["one "], ["one "]]
    with (
        FaultServer(say, lambda asked, before: "ignore-logprobs") as server,
        teacher(server, tmp_path) as endpoint,
        pytest.raises(UsageError, match="ignores logprobs"),
    ):
        texts(endpoint, request("a", logprobs=True))


def test_rows_that_ask_the_same_pay_once(tmp_path):
    with FaultServer(say, lambda asked, before: "slow 0.05") as server, teacher(server, tmp_path) as endpoint:
        assert texts(endpoint, *(request("a") for _ in range(5))) == [["a!"]] * 5
        assert len(server.requests) == 1


def test_a_key_that_is_echoed_is_nowhere_to_be_found(tmp_path, capfd):
    def echo(asked: dict[str, Any]) -> str:
        return f"the key is {KEY}, or {json.dumps(KEY)}"

    script = lambda asked, before: "echo" if content(asked) == "b" else None  # noqa: E731
    with FaultServer(echo, script) as server, teacher(server, tmp_path) as endpoint:
        assert HIDDEN in texts(endpoint, request("a"))[0][0]
        with pytest.raises(UsageError) as error:
            texts(endpoint, request("b"))
    assert "wrong key" in error.value.message
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert HIDDEN.encode() in stored
    for seen in (
        stored,
        error.value.message.encode(),
        repr(error.value.__cause__).encode(),
        "".join(capfd.readouterr()).encode(),
    ):
        assert b"0123456789" not in seen


def test_a_fault_is_mentioned_once(tmp_path, impatient):
    said: list[str] = []
    script = lambda asked, before: None if before else f"500 try {content(asked)}"  # noqa: E731
    with FaultServer(say, script) as server, teacher(server, tmp_path) as endpoint:
        endpoint.tally.say = said.append
        texts(endpoint, *(request(str(i)) for i in range(9)))
    assert [line.split(" try")[0] for line in said] == ["asking again after: status 500:"]


def test_budgets_stop_a_run_before_it_goes_beyond(tmp_path):
    with FaultServer(say) as server, teacher(server, tmp_path, max_requests=7) as endpoint:
        with pytest.raises(GateError, match="--max-requests 7 is used up"):
            texts(endpoint, *(request(str(i)) for i in range(20)))
        assert len(server.requests) == 7
        assert len(server.good) == 7
    # 16 written tokens at most, and three read (a rough count is five), at a unit of money each
    prices = {"max_cost": 100.0, "price_in": 1e6, "price_out": 1e6}
    with FaultServer(say) as server, teacher(server, tmp_path / "other", **prices) as endpoint:
        with pytest.raises(GateError, match="--max-cost 100 is used up") as error:
            texts(endpoint, *(request(str(i)) for i in range(90)))
        assert 60 < endpoint.budget.cost <= 100
    assert error.value.code == 3


def test_a_reply_that_was_lost_counts_as_if_it_had_been_billed(tmp_path, impatient):
    prices = {"price_in": 1e6, "price_out": 1e6, "max_cost": 1000.0}
    with FaultServer(say, first("truncated", "500")) as server, teacher(server, tmp_path, **prices) as endpoint:
        texts(endpoint, request("a"))
        assert endpoint.tally.cost == pytest.approx((5 + 16) + 2)  # the worst case, nothing, what was counted


def test_another_model_or_setting_is_another_question(tmp_path):
    with FaultServer(say) as server:
        with teacher(server, tmp_path) as endpoint:
            texts(endpoint, request("a"), request("a", top_p=0.5), request("b"))
        with teacher(server, tmp_path, temperature=0.5) as endpoint:
            texts(endpoint, request("a"))
            assert len(server.requests) == 3
        asked = TeacherOptions("other", server.url, api_key_env="TEST_KEY")
        with Store(tmp_path / "store.sqlite") as store:
            texts(Endpoint(asked, store, Tally()), request("a"))
        assert len(server.requests) == 4
