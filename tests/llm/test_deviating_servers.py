"""Deviating servers x teacher and judge: the right rows at the right cost, or one clear line after at most two
requests; and a second run asks nothing again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import sums_task as sums
from support.deviating_servers import (
    CURED,
    HOPELESS,
    READ,
    REFUSALS,
    WRITTEN,
    Answer,
    DeviatingServer,
    Received,
    Script,
    completion,
    refusing,
)
from support.fault_server import content, response_of

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import SdftError
from sdft_cli.evaluation.judge import Judge, Judgement
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.llm import retries
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.types import PrepareOptions, Score

ROWS = 6
RESPONSES = {f"answer {i}": float(i % 2) for i in range(ROWS)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(retries, "LONGEST_BACKOFF", 0.04)
    monkeypatch.setenv("SUMS", str(ROWS))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-0123456789")
    monkeypatch.setitem(plugins.TASKS.own, "sums", sums.TASK)


def options(url: str, **more) -> TeacherOptions:
    """Prices at which the cost is the number of tokens."""
    return TeacherOptions("m", url, timeout=5.0, **{"price_in": 1e6, "price_out": 1e6, "max_tokens": 64, **more})


def right(body: dict) -> str:
    """What teacher and judge are to write."""
    if "===" not in content(body):
        return f"it is {content(body).split()[2]}"
    text = content(body)
    judging = {"messages": [{"content": text[text.index("=== question") :]}]}  # a system text may stand before it
    return "CORRECT" if RESPONSES[response_of(judging)] else "INCORRECT"


def taught(server: DeviatingServer, data: Path, **more) -> list[str]:
    """The rows that `prepare` writes, by their demonstrations."""
    prepare(["sums"], {}, data, PrepareOptions(), teacher=options(server.url, **more))
    return [str(row.demonstration) for row in read_split(data / "sums", "train")[0]]


def judged(server: DeviatingServer, folder: Path, **more) -> list[Score]:
    """The judge's scores of all responses."""
    answers = [Judgement("Which?", "one", response) for response in RESPONSES]
    judge = Judge(options(server.url, samples=1, temperature=0.0, **more), folder)
    return judge.scores("m", KNOWLEDGE, answers)


def cost(output: str) -> float:
    """The last cost that a run has shown."""
    return float(re.findall(r"cost at most ([\d.]+)", output)[-1])


ALL = [f"it is {i}" for i in range(ROWS)]
#: What cannot be known about the cost of these counts as if it were the most.
UNCOUNTED = ("no_usage", "reset_once", "error_as_reply", "stream_that_breaks_off")


@pytest.mark.parametrize("script", CURED, ids=lambda script: script.__name__)
def test_a_teacher_gets_all_rows_at_their_cost(script: Script, tmp_path, capsys):
    with DeviatingServer(script, right) as server:
        assert taught(server, tmp_path, samples=4, at_once=2) == ALL
        paid, sent = cost(capsys.readouterr().err), len(server.requests)
        assert taught(server, tmp_path, samples=4, at_once=2) == ALL
        assert len(server.requests) == sent
    assert paid >= server.billed


@pytest.mark.parametrize("script", CURED, ids=lambda script: script.__name__)
def test_a_judge_gives_all_scores_at_their_cost(script: Script, tmp_path, capsys):
    with DeviatingServer(script, right) as server:
        assert [score.value for score in judged(server, tmp_path)] == list(RESPONSES.values())
        paid, sent = cost(capsys.readouterr().err), len(server.requests)
        judged(server, tmp_path)
        assert len(server.requests) == sent
    assert paid >= server.billed


@pytest.mark.parametrize("script", [script for script in CURED if script.__name__ not in UNCOUNTED])
def test_the_cost_of_a_server_that_counts_is_exact(script: Script, tmp_path, capsys):
    with DeviatingServer(script, right) as server:
        judged(server, tmp_path)
    assert cost(capsys.readouterr().err) == pytest.approx(server.billed)


def test_what_is_left_out_is_said_once_and_recorded(tmp_path, capsys):
    script = next(script for script in CURED if script.__name__ == "reasoning_model")
    with DeviatingServer(script, right) as server:
        taught(server, tmp_path)
        said = capsys.readouterr().err
        refused = [received for received in server.requests if "temperature" in received.body]
        assert len(refused) == 2  # one for max_tokens, one for temperature
    assert said.count("does not take temperature; going on without it") == 1
    assert said.count("going on with max_completion_tokens") == 1
    assert read_manifest(tmp_path / "sums")["teacher"]["left_out"] == ["temperature"]


def test_a_judge_without_its_temperature_is_another_judge(tmp_path):
    script = next(script for script in CURED if script.__name__ == "reasoning_model")
    with DeviatingServer(script, right) as server:
        judge = Judge(options(server.url, samples=1, temperature=0.0), tmp_path)
        before = judge.settings(KNOWLEDGE)
        judge.scores("m", KNOWLEDGE, [Judgement("Which?", "one", "answer 1")])
        assert judge.settings(KNOWLEDGE) != before
        assert "temperature" in judge.note([])


# --- one prompt -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", REFUSALS)
@pytest.mark.parametrize("refused", ["0", "3"])  # the first that is asked, too
def test_a_row_that_is_refused_is_left_out_and_named(words: str, refused: str, tmp_path, capsys):
    status, body = REFUSALS[words]
    with DeviatingServer(refusing(f"what is {refused} ?", status, body), right) as server:
        assert taught(server, tmp_path) == [text for text in ALL if text != f"it is {refused}"]
        sent = len(server.requests)
        assert sent == ROWS
        taught(server, tmp_path)
        assert len(server.requests) == sent
    (row,) = read_manifest(tmp_path / "sums")["filtered"]["rows"]
    assert row["where"] == f"sums-{refused}"
    assert row["reason"].endswith("the endpoint refuses to answer it")
    assert row["detail"].startswith("1 refused by the endpoint: ") and len(row["detail"]) > 40  # its words
    assert "a prompt is left out" in capsys.readouterr().err or status == 200


@pytest.mark.parametrize("words", REFUSALS)
def test_an_answer_that_the_judge_refuses_is_unscored(words: str, tmp_path):
    status, body = REFUSALS[words]
    with DeviatingServer(refusing("answer 2", status, body), right) as server:
        values = [score.value for score in judged(server, tmp_path)]
        assert values == [0.0, 1.0, None, 1.0, 0.0, 1.0]
        judged(server, tmp_path)
        assert len(server.requests) == ROWS


def test_a_prompt_put_off_by_a_run_that_was_interrupted_is_asked_once_more(tmp_path):
    """Nobody knows yet whether the words are about the prompt."""
    script = refusing("what is 0 ?", 400, {"message": "strange"})
    with DeviatingServer(script, right) as server:
        with pytest.raises(SdftError, match="max-requests"):
            taught(server, tmp_path, max_requests=3, concurrency=1)
        assert taught(server, tmp_path) == ALL[1:]
        taught(server, tmp_path)
        assert len(server.requests) == 3 + (ROWS - 2)


def test_a_prompt_that_is_asked_about_alone_is_left_out_in_the_end(tmp_path):
    """Its words might still be about the endpoint: only the third run takes them for its own."""
    script = refusing("what is 5 ?", 400, {"message": "strange"})
    with DeviatingServer(script, right) as server:
        with pytest.raises(SdftError, match="max-requests"):
            taught(server, tmp_path, max_requests=5, concurrency=1)
        for _ in range(2):
            with pytest.raises(SdftError, match="strange"):
                taught(server, tmp_path)
        assert taught(server, tmp_path) == ALL[:5]
        taught(server, tmp_path)
        assert len(server.requests) == 5 + 3


def test_three_unknown_refusals_in_a_row_end_a_run_and_settle_nothing(tmp_path):
    """Such as those of a firewall that has had enough of us."""
    shut = [True]

    def script(received: Received, text: str) -> Answer:
        return Answer(403, "<html>Attention required</html>") if received.before and shut[0] else completion(text)

    with DeviatingServer(script, right) as server:
        with pytest.raises(SdftError, match="refuses the request: status 403"):
            taught(server, tmp_path, concurrency=1)
        assert len(server.requests) == 4
        shut[0] = False
        assert taught(server, tmp_path) == ALL


def test_a_prompt_that_crashes_the_server_is_left_out_by_the_second_run(tmp_path):
    with DeviatingServer(refusing("what is 1 ?", 500, {"error": "segmentation fault"}), right) as server:
        with pytest.raises(SdftError, match="1 of 6 prompts got no reply"):
            taught(server, tmp_path)
        assert taught(server, tmp_path) == [text for text in ALL if text != "it is 1"]
        sent = len(server.requests)
        taught(server, tmp_path)
        assert len(server.requests) == sent


# --- the endpoint -----------------------------------------------------------------------------------------------------


def one_line(error: SdftError, words: str) -> None:
    text = f"{error.message}; hint: {error.hint}"
    assert words in text
    assert "\n" not in text
    assert len(text) < 600
    assert error.hint


@pytest.mark.parametrize("name", HOPELESS)
def test_a_teacher_that_cannot_be_used_is_found_by_two_requests(name: str, tmp_path):
    script, words = HOPELESS[name]
    with DeviatingServer(script, right) as server:
        with pytest.raises(SdftError) as error:
            taught(server, tmp_path)
        assert len(server.requests) <= 2
    one_line(error.value, words)
    assert not (tmp_path / "sums").exists()


@pytest.mark.parametrize("name", HOPELESS)
def test_a_judge_that_cannot_be_used_is_found_by_two_requests(name: str, tmp_path):
    script, words = HOPELESS[name]
    with DeviatingServer(script, right) as server:
        with pytest.raises(SdftError) as error:
            judged(server, tmp_path)
        assert len(server.requests) <= 2
    one_line(error.value, words.replace("--api-key-env", "--judge-key-env").replace("raise --max-tokens", "think less"))


# --- addresses and keys -----------------------------------------------------------------------------------------------

KEY = "sk-other-9876543210"
DEPLOYMENT = "/openai/deployments/D"


def test_a_key_does_not_follow_a_redirect(tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", KEY)
    with DeviatingServer(lambda received, text: completion(text), right) as elsewhere:
        away = Answer(307, "", {"Location": f"{elsewhere.url}/chat/completions?x=1"})
        with DeviatingServer(lambda received, text: away, right) as server:
            with pytest.raises(SdftError, match="redirects to") as error:
                taught(server, tmp_path, api_key_env="OTHER_KEY")
            assert len(server.requests) == 1
        assert elsewhere.requests == []
    assert error.value.hint.endswith(f"--base-url {elsewhere.url}")


def test_openais_key_goes_to_no_other_host_unless_it_is_named(tmp_path):
    def demanding(received: Received, text: str) -> Answer:
        return completion(text) if "authorization" in received.headers else Answer(401, '{"error": "who are you?"}')

    with DeviatingServer(demanding, right) as server:
        with pytest.raises(SdftError, match="status 401") as error:
            taught(server, tmp_path)
        assert "OPENAI_API_KEY" in error.value.hint and "--api-key-env" in error.value.hint
        assert len(server.requests) == 1
        assert taught(server, tmp_path, api_key_env="OPENAI_API_KEY") == ALL
    assert {r.headers.get("authorization") for r in server.requests} == {None, "Bearer sk-openai-0123456789"}


def test_a_key_that_was_named_and_is_not_there_is_said(tmp_path, capsys):
    """A server of one's own may need none."""
    with DeviatingServer(lambda received, text: completion(text), right) as server:
        assert taught(server, tmp_path, api_key_env="NO_SUCH_KEY") == ALL
        assert not any("authorization" in received.headers for received in server.requests)
    assert "NO_SUCH_KEY is not set: requests go out without a key" in capsys.readouterr().err
    with DeviatingServer(HOPELESS["a wrong key"][0], right) as server:
        with pytest.raises(SdftError) as error:
            taught(server, tmp_path / "other", api_key_env="NO_SUCH_KEY")
        assert error.value.hint == "NO_SUCH_KEY, which --api-key-env names, is not set: export it"


def test_teacher_and_judge_have_their_own_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-teacher-0123456789")
    monkeypatch.setenv("JUDGE_KEY", "sk-judge-0123456789")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-openai-0123456789")
    with DeviatingServer(lambda received, text: completion(text), right) as server:
        taught(server, tmp_path, api_key_env="TEACHER_KEY")
        asked = len(server.requests)
        judged(server, tmp_path, api_key_env="JUDGE_KEY")
        sent = [received.headers["authorization"] for received in server.requests]
        assert set(sent[:asked]) == {"Bearer sk-teacher-0123456789"}
        assert set(sent[asked:]) == {"Bearer sk-judge-0123456789"}
        assert not any("org-mine" in value for received in server.requests for value in received.headers.values())
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"0123456789" not in stored


@pytest.mark.parametrize(
    ("written", "path", "query"),
    [
        ("/openai/deployments/D?api-version=1", f"{DEPLOYMENT}/chat/completions", "api-version=1"),
        (f"{DEPLOYMENT}/chat/completions?api-version=1", f"{DEPLOYMENT}/chat/completions", "api-version=1"),
        ("/openai/v1/", "/openai/v1/chat/completions", ""),
        ("/v1/chat/completions", "/v1/chat/completions", ""),
        ("/gateway/acct/v1//", "/gateway/acct/v1/chat/completions", ""),
        ("/v1?tenant=secret-tenant", "/v1/chat/completions", "tenant=secret-tenant"),
        ("", "/chat/completions", ""),
    ],
)  # fmt: skip
def test_base_urls_as_they_are_pasted(written: str, path: str, query: str, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_KEY", KEY)
    with DeviatingServer(lambda received, text: completion(text), right) as server:
        teacher = options(server.root + written, api_key_env="AZURE_KEY")
        teacher.check()
        prepare(["sums"], {}, tmp_path, PrepareOptions(), teacher=teacher)
        received = server.requests[0]
        assert (received.path, received.query) == (path, query)
        assert received.headers["authorization"] == f"Bearer {KEY}"
        assert ("api-key" in received.headers) == ("api-version" in query)
    manifest = read_manifest(tmp_path / "sums")["teacher"]
    assert "?" not in manifest["base_url"] and "chat" not in manifest["base_url"]
    assert b"secret-tenant" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_proxy_of_the_environment_is_used(tmp_path, monkeypatch):
    with DeviatingServer(lambda received, text: completion(text), right) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.root)
        monkeypatch.setenv("http_proxy", proxy.root)
        prepare(["sums"], {}, tmp_path, PrepareOptions(), teacher=options("http://far.example/v1"))
        assert proxy.requests[0].headers["host"] == "far.example"


def test_a_bound_learns_that_thinking_is_billed_beyond_max_tokens(tmp_path):
    """A request that may cost 74 tokens costs 4015: after the first, no further one goes out that might exceed 5000."""
    script = next(script for script in CURED if script.__name__ == "thinking_beside_the_count")
    with DeviatingServer(script, right) as server:
        with pytest.raises(SdftError, match="--max-cost 5000 is used up"):
            taught(server, tmp_path, max_cost=5000.0, concurrency=1)
        assert len(server.requests) == 1
    assert READ + WRITTEN < 64
