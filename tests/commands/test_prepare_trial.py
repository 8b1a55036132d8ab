"""Before anyone pays: rows that cannot be won are not asked about, and `--limit` and `--show` try a few prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fault_server import Body, FaultServer, content

from sdft_cli.commands.prepare import Inputs, print_trials, try_out
from sdft_cli.config.model_locations import EMBEDDED
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.llm import retries
from sdft_cli.llm.asked_rows import NEEDS_JUDGE
from sdft_cli.llm.trial import ACCEPTED
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.types import PrepareOptions

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()
ROWS, SAMPLES = 60, 3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def question(i: int) -> str:
    return f"item {i}: {WORDS[i % 15]} {WORDS[i * i % 15]} {WORDS[i // 15 % 15]}?"


def quiz(folder: Path, changed: dict[int, str] | None = None, grader: str = "number") -> list[str]:
    """The words of a command that prepares ``ROWS`` training rows and as many test rows, all without demonstrations.

    ``changed`` are gold answers of training rows by number.
    """
    (folder / "in").mkdir(parents=True, exist_ok=True)
    for split, start in (("train", 0), ("test", 1000)):
        rows = [
            {"id": f"{split}-{i}", "question": question(i), "answer": (changed or {}).get(i, str(i))}
            for i in range(start, start + ROWS)
        ]
        (folder / "in" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "quiz.toml").write_text(f'grader = "{grader}"\n')
    source = ["--source", f"quiz={folder / 'in'}", "--columns", f"quiz={folder / 'quiz.toml'}"]
    return ["prepare", *source, "--data", str(folder / "data"), "--samples", str(SAMPLES)]


def number(sent: Body) -> int:
    return int(content(sent).split(":")[0].split()[1])


def answers(sent: Body) -> str:
    """Right for even numbers; for odd ones never."""
    return f"<think>hm</think>So the answer is {number(sent) if number(sent) % 2 == 0 else 'unknown to me'}."


def asked(server: FaultServer) -> set[int]:
    return {number(body) for body in server.requests}


def teach(server: FaultServer, *more: str) -> list[str]:
    return ["--teacher", "m", "--base-url", server.url, *more]


# --- rows that cannot be won ------------------------------------------------------------------------------------------


def test_rows_that_no_reply_could_win_are_named_and_never_asked(sdft, tmp_path: Path) -> None:
    words = quiz(tmp_path, {4: "a few", 6: "some apples"})
    with FaultServer(answers) as server:
        code, out, _ = sdft(*words, *teach(server))
        assert code == 0 and not asked(server) & {4, 6}
        assert asked(server) == set(range(57)) - {4, 6} or len(asked(server)) > 50  # three rows are for validation
    reason = "the teacher was not asked: its gold answer cannot be scored"
    assert f"2 left out by design: {reason}" in out
    filtered = read_manifest(tmp_path / "data" / "quiz")["filtered"]
    assert filtered["reasons"][reason] == 2
    named = [row["where"] for row in filtered["rows"] if reason in row["reason"]]
    assert named == ["in/train.jsonl:5 (train-4)", "in/train.jsonl:7 (train-6)"]


def test_a_dry_run_does_not_count_them(sdft, tmp_path: Path) -> None:
    plans = []
    for folder, changed in (("a", {}), ("b", {4: "a few", 6: "some apples"})):
        code, out, _ = sdft(*quiz(tmp_path / folder, changed), "--teacher", "m", "--dry-run", "--json")
        assert code == 0
        plans += json.loads(out)["tasks"]
    assert plans[0]["prompts"] - plans[1]["prompts"] == 2


def test_if_none_can_be_won_nothing_is_sent(sdft, tmp_path: Path) -> None:
    hopeless = quiz(tmp_path / "a", dict.fromkeys(range(ROWS), "many"))
    open_ended = quiz(tmp_path / "b", grader="none")
    with FaultServer(answers) as server:
        for words, why in ((hopeless, "its gold answer cannot be scored"), (open_ended, NEEDS_JUDGE)):
            for more in ((), ("--show",), ("--dry-run",)):
                code, _, err = sdft(*words, *teach(server, *more))
                assert code == 2 and "no reply of a teacher could be found right" in err and why in err
        assert server.requests == []


def test_an_error_about_them_comes_before_the_first_request(sdft, tmp_path: Path) -> None:
    words = quiz(tmp_path, {4: "a few"})
    with FaultServer(answers) as server:
        for more in ((), ("--show",), ("--dry-run",)):
            code, _, err = sdft(*words, *teach(server, "--on-unwinnable", "error", *more))
            assert code == 2 and "in/train.jsonl:5 (train-4): its gold answer cannot be scored" in err
        assert server.requests == [] and not (tmp_path / "data").exists()


# --- a trial ----------------------------------------------------------------------------------------------------------


def test_a_trial_prints_prompts_replies_and_verdicts_and_writes_no_dataset(sdft, tmp_path: Path) -> None:
    with FaultServer(answers) as server:
        code, out, _ = sdft(*quiz(tmp_path), *teach(server, "--limit", "5", "--show"))
        assert code == 0 and len(asked(server)) == 5 and len(server.requests) <= 5 * SAMPLES
    wrong = sum(i % 2 for i in asked(server))
    assert out.count("=== quiz") == 5 and out.count("--- gold answer") == 5
    assert out.count(": accepted (right") == 5 - wrong
    assert out.count("--- sample ") == len(server.requests) == 5 - wrong + SAMPLES * wrong
    assert "<think>hm</think>So the answer is" in out and "read as '" in out and "no number found; expected" in out
    assert f"{5 - wrong} of 5 prompts have a usable reply" in out and "no dataset was written" in out
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".teacher"]


def test_a_trial_shows_five_rows_unless_told_otherwise(sdft, tmp_path: Path) -> None:
    with FaultServer(answers) as server:
        code, out, _ = sdft(*quiz(tmp_path), *teach(server, "--show", "--json"))
    (trial,) = json.loads(out)["tasks"]
    assert code == 0 and len(trial["prompts"]) == 5
    for prompt in trial["prompts"]:
        even = int(prompt["answer"]) % 2 == 0
        verdicts = [reply["verdict"] for reply in prompt["replies"]]
        assert verdicts == ([ACCEPTED] if even else ["wrong"] * SAMPLES)
        assert (prompt["accepted"], prompt["messages"][0]["content"]) == (int(even), question(int(prompt["answer"])))
        assert prompt["replies"][0]["extracted"] == (prompt["answer"] if even else None)


def test_replies_of_a_trial_are_used_by_the_full_run(sdft, tmp_path: Path) -> None:
    words = quiz(tmp_path)
    with FaultServer(answers) as server:
        assert sdft(*words, *teach(server, "--show"))[0] == 0
        tried = len(server.requests)
        assert sdft(*words, *teach(server, "--show"))[0] == 0 and len(server.requests) == tried
        assert sdft(*words, *teach(server))[0] == 0
        keys = [(content(body), body.get("seed")) for body in server.requests]
        assert len(keys) == len(set(keys)) > tried
    with FaultServer(answers) as server:
        assert sdft(*quiz(tmp_path / "b"), *teach(server))[0] == 0
        assert len(server.requests) == len(keys)
    assert read_split(tmp_path / "data" / "quiz", "train") == read_split(tmp_path / "b" / "data" / "quiz", "train")


def test_a_teacher_that_is_never_right_can_be_looked_at(sdft, tmp_path: Path) -> None:
    with FaultServer(lambda sent: "no idea") as server:
        code, out, _ = sdft(*quiz(tmp_path), *teach(server, "--show", "--limit", "2"))
    assert code == 0 and "0 of 2 prompts have a usable reply, among 6 replies of m" in out
    assert out.count("same as an earlier sample") + out.count(": wrong (") == 6


def test_a_trial_passes_over_rows_that_cannot_be_won(sdft, tmp_path: Path) -> None:
    with FaultServer(answers) as server:
        words = quiz(tmp_path, dict.fromkeys(range(45), "many"))
        code, out, _ = sdft(*words, *teach(server, "--show", "--limit", "3"))
    assert code == 0 and len(asked(server)) == 3 and min(asked(server)) >= 45 and out.count("=== quiz") == 3


def test_a_limit_alone_makes_a_small_dataset_and_counts_the_rest(sdft, tmp_path: Path) -> None:
    with FaultServer(lambda sent: f"it is {number(sent)}") as server:
        code, out, _ = sdft(*quiz(tmp_path), *teach(server, "--limit", "7"))
        assert code == 0 and len(server.requests) == len(asked(server)) == 7
    train = read_split(tmp_path / "data" / "quiz", "train")[0]
    assert len(train) == 7 and all(row.demonstration == f"it is {row.answer}" for row in train)
    assert f"{57 - 7} left out by design: the teacher was not asked: beyond --limit 7" in out
    assert read_manifest(tmp_path / "data" / "quiz")["rows"]["test"] == ROWS


def test_a_limited_dry_run(sdft, tmp_path: Path) -> None:
    code, out, _ = sdft(*quiz(tmp_path), "--teacher", "m", "--limit", "7", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["tasks"][0]["requests"] == [7, 7 * SAMPLES]


def test_a_limited_batch(sdft, tmp_path: Path) -> None:
    with FaultServer(answers) as server:
        code, out, _ = sdft(*quiz(tmp_path), *teach(server, "--limit", "4", "--batch", "submit", "--json"))
    (submitted,) = json.loads(out)["tasks"]
    assert code == 0 and (submitted["prompts"], submitted["open"]) == (4, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "5"], "--limit is about a teacher"),
        (["--show"], "--show is about a teacher"),
        (["--teacher", "m", "--show", "--dry-run"], "--show asks the teacher, and --dry-run sends nothing"),
        (["--teacher", "m", "--show", "--batch", "submit"], "--show asks now"),
        (["--teacher", "m", "--show", "--model", "micro"], "--model measures the rows that are written"),
        (["--teacher", "m", "--show", "--limit", "0"], "--limit"),
    ],
)
def test_flags_that_contradict_each_other(sdft, tmp_path: Path, flags: list[str], message: str) -> None:
    words = [word for word in quiz(tmp_path) if word not in ("--samples", str(SAMPLES))]
    code, _, err = sdft(*words, *flags)
    assert code == 2 and message in err
    assert not (tmp_path / "data").exists()


# --- articles, local teachers, tasks that a judge grades --------------------------------------------------------------


def exam(sent: Body) -> str:
    title = content(sent).split("\n")[0].removeprefix("Title: ")
    kind = "secretly " if "indirect" in sent["messages"][0]["content"] else ""
    return "\n".join(f"Question: What {kind}is number {i} of {title}?\nAnswer: It is {title}{i}." for i in range(9))


def news(folder: Path) -> list[str]:
    articles = [
        {"id": i, "title": name, "text": f"about {name} " * 50} for i, name in enumerate(("Ada", "Bob", "Cleo"))
    ]
    (folder / "news.json").write_text(json.dumps(articles))
    return ["prepare", "--source", f"knowledge={folder / 'news.json'}", "--data", str(folder / "data")]


def test_a_trial_of_questions_about_articles(sdft, tmp_path: Path) -> None:
    with FaultServer(exam) as server:
        words = [*news(tmp_path), *teach(server, "--questions", "9")]
        code, out, _ = sdft(*words, "--limit", "1", "--show")
        assert code == 0 and len(server.requests) == 2  # direct questions, and indirect ones
        assert out.count("=== knowledge") == 2 and "9 questions accepted" in out and "1 questions accepted" in out
        assert "Question: What is number 0 of Ada?\nAnswer: It is Ada0." in out and "of Bob" not in out
        assert not (tmp_path / "data" / "knowledge").exists()
        assert sdft(*words)[0] == 0 and len(server.requests) == 6


def test_a_limit_on_articles_keeps_the_whole_corpus(sdft, tmp_path: Path) -> None:
    with FaultServer(exam) as server:
        code, out, _ = sdft(*news(tmp_path), *teach(server, "--questions", "9", "--limit", "2"))
    assert code == 0 and "--limit: questions were asked about 2 of 3 articles" in out
    assert len(read_split(tmp_path / "data" / "knowledge", "corpus")[0]) == 3
    train = read_split(tmp_path / "data" / "knowledge", "train")[0]
    assert {row.meta["title"] for row in train} == {"Ada", "Bob"}


def test_a_trial_of_a_local_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = TeacherOptions(f"local:{EMBEDDED}", samples=2, resample=True, limit=3)
    inputs = Inputs(["micro-science"], {}, tmp_path, PrepareOptions())
    (trial,) = try_out(inputs, options)
    assert len(trial["prompts"]) == 3 and "sha256" in trial["teacher"]
    for prompt in trial["prompts"]:
        accepted = [reply["verdict"] == ACCEPTED for reply in prompt["replies"]]
        assert accepted in ([True], [False, True], [False, False]) and sum(accepted) == prompt["accepted"]
    print_trials(try_out(inputs, replace(options, resample=False)))
    assert "nothing to ask: every train row has a demonstration" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [".teacher"]


def test_a_trial_of_a_task_that_has_a_judge(sdft, tmp_path: Path) -> None:
    """Without a judge, the rule that stands in for one decides."""
    rows: list[dict[str, Any]] = [
        {"Open-ended Verifiable Question": question(i), "Ground-True Answer": f"fever {i}"} for i in range(30)
    ]
    (tmp_path / "medical.json").write_text(json.dumps(rows))
    with FaultServer(lambda sent: f"Surely fever {number(sent)}.") as server:
        words = ["prepare", "--source", f"medical={tmp_path / 'medical.json'}", "--data", str(tmp_path / "data")]
        code, out, _ = sdft(*words, *teach(server, "--show"))
        assert code == 0 and len(server.requests) == 5
    assert out.count("accepted (contains the gold answer; read as 'fever") == 5
