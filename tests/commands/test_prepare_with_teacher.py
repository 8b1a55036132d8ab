"""Data from a teacher: rejection sampling and questions about articles; with faults, kills and real models."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import sums_task as sums
from support.fault_server import Body, FaultServer, chance, content, one_in_five
from support.real_server import SERVERS, serving, teach

from sdft_cli import plugins
from sdft_cli.commands.prepare import Inputs, dry_run, prepare, print_dry_runs, submit
from sdft_cli.config.model_locations import EMBEDDED
from sdft_cli.config.recipe import Runtime
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import GateError, SdftError, UsageError
from sdft_cli.llm import question_prompts, retries
from sdft_cli.llm.article_questions import questions_about
from sdft_cli.llm.batch_generation import Submission
from sdft_cli.llm.batch_store import BatchStore
from sdft_cli.llm.http_client import HttpClient, HttpResponse
from sdft_cli.llm.local_model import LocalModel, local_model_id
from sdft_cli.llm.progress import Progress, ProgressDisplay
from sdft_cli.llm.rejection_sampling import first_right
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import LENGTH, REFUSED, Exchange, PromptResult, Reply, Request, TeacherOptions, advance
from sdft_cli.models import pretrained
from sdft_cli.types import Example, Prepared, PrepareOptions, Score, Task

SUPPORT = Path(__file__).parents[1] / "support"
OPTIONS = TeacherOptions("m")


def finish(exchange: Exchange, *replies: list[Reply]) -> tuple[list[Request], PromptResult]:
    """Answer an exchange with the given replies: its requests, and its result."""
    requests, state = [], advance(exchange, None)
    for reply in replies:
        assert isinstance(state, Request)
        requests.append(state)
        state = advance(exchange, reply)
    assert isinstance(state, PromptResult), "it has another request"
    return requests, state


# --- demonstrations ---------------------------------------------------------------------------------------------------

ROW = sums.row(7, meta={"row": "x:1"})
WRONG, RIGHT = Reply("it is 8", "stop", 5, 3), Reply("<think>7?</think>it is 7", "stop", 5, 9)


def test_the_first_right_sample_becomes_the_demonstration():
    requests, result = finish(first_right(ROW, sums.TASK, OPTIONS, 32), [WRONG], [WRONG], [RIGHT])
    assert [request.samples for request in requests] == [(0,), (1,), (2,)]
    assert requests[0].messages == ROW.prompt
    assert result.examples == [replace(ROW, demonstration="it is 7", meta={"row": "x:1", "sample": 2})]
    assert (result.accepted_at, result.rejected) == (2, {"wrong": 1, "same as an earlier sample": 1})
    assert (result.prompt_tokens, result.completion_tokens) == (15, 15)


def test_one_request_may_be_for_several_samples():
    options = replace(OPTIONS, samples=5, at_once=2)
    requests, result = finish(first_right(ROW, sums.TASK, options, 32), [WRONG] * 2, [WRONG] * 2, [RIGHT])
    assert [request.samples for request in requests] == [(0, 1), (2, 3), (4,)]
    assert result.accepted_at == 4


def test_rejected_samples_are_counted_by_reason():
    cut, empty = replace(RIGHT, finish=LENGTH), Reply("<think>7</think> ")
    options = replace(OPTIONS, samples=3)
    _, result = finish(first_right(ROW, sums.TASK, options, 32), [cut], [empty], [WRONG])
    assert (result.examples, result.rejected) == (
        [],
        {"cut off at max_tokens": 1, "empty": 1, "wrong": 1},
    )
    _, result = finish(first_right(ROW, sums.TASK, options, 32), [Reply("no", REFUSED)])
    assert result.rejected == {"refused by the endpoint": 1}
    unscored = replace(sums.TASK, grade=lambda completion, example: Score(None))
    _, result = finish(first_right(ROW, unscored, options, 32), [RIGHT])
    assert result.rejected == {"cannot be graded": 1}


def test_a_teacher_that_repeats_itself_is_noted(tmp_path, task):
    with FaultServer(lambda sent: "it is 7") as server:
        prepared(tmp_path, options_for(server))
    (note,) = read_manifest(tmp_path / "sums")["notes"]
    assert note == "133 of 152 wrong samples repeat an earlier one: does the endpoint ignore the temperature?"


# --- questions --------------------------------------------------------------------------------------------------------

TIDY = "Question: Who came?\nAnswer: Ann and Bo.\n\nQuestion: Where to?\nAnswer: Rome."
PAIRS = [("Who came?", "Ann and Bo."), ("Where to?", "Rome.")]


@pytest.mark.parametrize(
    "text",
    [
        TIDY,
        TIDY.replace("\n\n", "\n"),
        TIDY.replace("\n", "\r\n"),
        f"Here are two questions:\n\n{TIDY}\n\nI hope they help!",
        "1. **Question:** Who came?\n   **Answer:** Ann and Bo.\n2. **Question:** Where to?\n   **Answer:** Rome.",
        "### Question 1\nWho came?\n\n### Answer 1\n\nAnn\nand Bo.\n\n### Question 2\nWhere to?\n\n### Answer 2\nRome.",
        "Q1: Who came?\nA1: Ann and Bo.\nQ2: Where to?\nA2: Rome.",
        "- QUESTION : Who\ncame?\n- answer：Ann and\nBo.\n- Question 2) : Where to?\n- Answer: Rome.",
        "Question: Who came?\nAnswer: Ann\n\nand Bo.\n\nQuestion: Where to?\nAnswer: Rome.",
        "Question: Who came?\n\nAnswer: Ann and Bo.\n\n---\n\nQuestion: Where to?\n\nAnswer: Rome.\n\n---",
        "Q1. Who came?\nA1. Ann and Bo.\n\nQ2. Where to?\nA2. Rome.",
        "**Question 1:** Who came?  \n**Answer:** Ann and Bo.\n\n**Question 2:** Where to?  \n**Answer:** Rome.",
        "**Q1: Who came?**\n**A1:** Ann and Bo.\n\n**Q2: Where to?**\n**A2:** Rome.",
        "Question 1. Who came?\nAnswer 1. Ann and Bo.\nQuestion 2. Where to?\nAnswer 2. Rome.",
        "Question 1 - Who came?\nAnswer: Ann and Bo.\nQuestion 2 - Where to?\nAnswer: Rome.",
        "Question: Who came? Answer: Ann and Bo.\nQuestion: Where to? **Answer:** Rome.",
        "1. Who came?\n   Ann and Bo.\n\n2. Where to?\n   Rome.",
        "1. **Who came?**\n   - Answer: Ann and Bo.\n2. **Where to?**\n   - Answer: Rome.",
        "1) Who came?\n\n- Ann and Bo.\n\n2) Where to?\n\n- Rome.\n\nLet me know if you need more!",
        "Sure!\n\n| # | Question | Answer |\n|---|---|---|\n| 1 | Who came? | Ann and Bo. |\n| 2 | Where to? | Rome. |",
        '[{"question": "Who came?", "answer": "Ann and Bo."}, {"question": "Where to?", "answer": "Rome."}]',
        '```json\n{"x": [{"Question": "Who came?", "Answer": "Ann\nand Bo."}]}\n```\n{"q": "Where to?", "a": "Rome."}',
        '{"question": "Who came?", "answer": "Ann and Bo."}\n{"question": "Where to?", "answer": "Rome."}\n',
        'Here you are:\n[["Who came?", "Ann and Bo."], ["Where to?", "Rome."]]',
        '{"1": {"question": "Who came?", "answer": "Ann and Bo."}, "2": {"question": "Where to?", "answer": "Rome."}}',
        "问题：Who came?\n答案：Ann and Bo.\n问题：Where to?\n答案：Rome.",
    ],
)
def test_questions_are_parsed_as_models_write_them(text):
    assert question_prompts.parse(text).pairs == PAIRS


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Question: Who spoke?\nAnswer: First\nA: then\nB: at last", "First A: then B: at last"),
        ("Question: Who spoke?\nAnswer: Three did:\n\nQ: asked\n\nA: answered", "Three did: Q: asked A: answered"),
        ("Q: Who spoke?\nA: It says\nA: hello\n\nQ: x?\nA: y", "It says A: hello"),
        ("Question: Why?\nAnswer: For two reasons.\n\n1. Rain.\n\n2. Snow.", "For two reasons. 1. Rain. 2. Snow."),
        ("Question: Why?\nAnswer: Rain.\n\nIn the end, snow.\n\nI hope this helps!", "Rain. In the end, snow."),
        ("Question: Why?\nAnswer: Rain.\n\nThese rains lasted.\n\nThen, sun.", "Rain. These rains lasted. Then, sun."),
        ("Question: Why?\nAnswer: See [1] and {x}: rain.\n", "See [1] and {x}: rain."),
    ],
)  # fmt: skip
def test_an_answer_is_never_cut(text, answer):
    assert question_prompts.parse(text).pairs[0][1] == answer


def test_of_json_that_is_cut_off_the_whole_pairs_are_read():
    parsed = question_prompts.parse('[{"question": "a?", "answer": "b"}, {"question": "c?", "ans', whole=False)
    assert parsed.pairs == [("a?", "b")]
    assert parsed.rejected == {question_prompts.CUT_OFF: 1}


def test_a_reply_in_another_form_is_counted():
    parsed = question_prompts.parse("I would ask who came, and where to.\n\nThat is all.")
    assert parsed.pairs == []
    assert parsed.rejected == {question_prompts.UNREAD: 1, question_prompts.OUTSIDE: 2}


def test_what_cannot_be_parsed_is_counted():
    text = (
        "Sure!\n\nQuestion: a?\nQuestion: b?\nAnswer: c\nAnswer: d\n\nBye.\n"
        "Question: What does the article say?\nAnswer: e\nQuestion: f?\nAnswer:\nQuestion: g?"
    )
    parsed = question_prompts.parse(text)
    assert parsed.pairs == [("b?", "c")]
    assert parsed.rejected == {
        question_prompts.NO_ANSWER: 3,
        question_prompts.NO_QUESTION: 1,
        question_prompts.OUTSIDE: 2,
        question_prompts.MENTIONS_ARTICLE: 1,
    }
    assert question_prompts.parse("").rejected == {}


def test_the_last_question_of_a_reply_that_was_cut_off_is_left_out():
    assert question_prompts.parse(TIDY, whole=False).pairs == PAIRS[:1]
    assert question_prompts.parse(TIDY, whole=False).rejected == {question_prompts.CUT_OFF: 1}
    assert question_prompts.parse(f"{TIDY}\nQuestion: And wh", whole=False).pairs == PAIRS


def numbered(*numbers: int) -> str:
    return "\n".join(f"Question: What is fact {i} of {'abcdefg'[i % 7]}?\nAnswer: It is {i}." for i in numbers)


ARTICLE = Example("knowledge-1", [], text="There are {facts}.", meta={"title": "Facts"})


def test_questions_are_requested_until_there_are_enough_and_none_is_repeated():
    options = replace(OPTIONS, questions=6)
    replies = (numbered(1, 2, 2), numbered(2, 3) + "\nQuestion: cut", numbered(4, 5, 6, 7, 8))
    requests, result = finish(
        questions_about(ARTICLE, options, 99),
        *([Reply(text, LENGTH if i == 1 else "stop")] for i, text in enumerate(replies)),
    )
    assert [e.answer for e in result.examples] == [f"It is {i}." for i in range(1, 7)]
    assert result.rejected == {
        "repeats another question": 2,
        "cut off at max_tokens": 1,
        "more than were asked for": 2,
    }
    prompts = [request.messages[-1]["content"] for request in requests]
    assert "There are {facts}." in prompts[0]
    assert "Write 6 questions" in prompts[0]
    assert "fact" not in prompts[0].split("Write 6")[1]
    assert "write 4 others" in prompts[1]
    assert "- What is fact 2 of c?" in prompts[1]
    first = result.examples[0]
    assert first == Example(
        "knowledge-1-question-0", [{"role": "user", "content": "What is fact 1 of b?"}], "It is 1.",
        context="There are {facts}.", answer="It is 1.", meta={"article": "knowledge-1", "title": "Facts"},
    )  # fmt: skip


def test_an_article_without_new_questions_is_given_up():
    replies = [[Reply(numbered(1))]] * 3
    requests, result = finish(questions_about(ARTICLE, OPTIONS, 99), *replies)
    assert len(result.examples) == 1
    assert [request.samples for request in requests] == [(0,), (1,), (2,)]  # equal messages are another sample
    _, result = finish(questions_about(ARTICLE, OPTIONS, 99), [Reply("no", REFUSED)])
    assert result.rejected == {"refused by the endpoint": 1}


def test_indirect_questions_are_fewer_and_have_their_own_prompt():
    options, replies = replace(OPTIONS, questions=20), [Reply(numbered(1, 2))]
    requests, result = finish(questions_about(ARTICLE, options, 99, True), replies)
    assert [e.id for e in result.examples] == ["knowledge-1-indirect-0", "knowledge-1-indirect-1"]
    assert "indirect" in requests[0].messages[0]["content"]


def test_questions_that_differ_in_a_name_are_not_repeats():
    both = "Question: How many died in Myanmar?\nAnswer: 5.\nQuestion: How many died in Thailand?\nAnswer: 6."
    _, result = finish(questions_about(ARTICLE, replace(OPTIONS, questions=2), 99), [Reply(both)])
    assert len(result.examples) == 2


# --- prepare with a teacher -------------------------------------------------------------------------------------------


@pytest.fixture
def task(monkeypatch) -> Callable[..., None]:
    """Registers a task as a plug-in would (the sums by default); retries come quickly."""
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def register(task: Task = sums.TASK) -> None:
        monkeypatch.setitem(plugins.TASKS.own, task.name, task)

    register()
    return register


def options_for(server: FaultServer, **more: Any) -> TeacherOptions:
    return TeacherOptions("m", server.url, **{"timeout": 5.0, "concurrency": 16, **more})


def prepared(data: Path, teacher: TeacherOptions, name: str = "sums") -> dict[str, bytes]:
    """Prepare one task; returns its files by name."""
    prepare([name], {}, data, PrepareOptions(), teacher=teacher)
    return {path.name: path.read_bytes() for path in (data / name).iterdir()}


def mostly_right(sent: Body) -> str:
    """Right seven times out of ten, and never for three of the numbers."""
    number = content(sent).split()[2]
    return f"it is {number if chance(sent) < 0.7 and number not in ('3', '4', '5') else 'hard to say'}"


def counts(store: Path) -> tuple[int, int]:
    """How many responses are stored, and how many replies were read from them."""
    with closing(sqlite3.connect(store)) as base:
        (responses,), (replies,) = (base.execute(f"SELECT count(*) FROM {t}").fetchone() for t in ("response", "reply"))
    return responses, replies


def test_rows_get_demonstrations_and_the_manifest_names_the_teacher(tmp_path, task):
    with FaultServer(mostly_right) as server:
        options = options_for(server, send={"top_p": 0.9}, price_in=1.0)
        prepared(tmp_path, options)
    train = read_split(tmp_path / "sums", "train")[0]
    assert [e.id for e in train] == [f"sums-{i}" for i in range(20) if i not in (3, 4, 5)]
    assert all(e.demonstration == f"it is {e.answer}" for e in train)
    manifest = read_manifest(tmp_path / "sums")
    teacher = manifest["teacher"]
    assert (teacher["prompts"], teacher["accepted"], teacher["none_right"]) == (20, 17, 3)
    assert sum(teacher["accepted_at"]) == 17
    assert sum(teacher["rejected"].values()) == len(server.requests) - 17
    assert {teacher[k] for k in ("model", "base_url")} == {"m", server.url}
    assert (teacher["temperature"], teacher["max_tokens"], teacher["samples"]) == (1.0, 32, 8)
    assert teacher["send"] == {"top_p": 0.9}
    sent = len(server.requests)
    assert (teacher["prompt_tokens"], teacher["completion_tokens"]) == (
        4 * sent,
        sum(3 if "hard" not in mostly_right(r) else 5 for r in server.requests),
    )
    assert manifest["filtered"]["reasons"] == {"no sample of 8 was right": 3}
    first = manifest["filtered"]["rows"][0]
    assert (first["where"], first["detail"]) == ("sums-3", "7 same as an earlier sample, 1 wrong")


def test_rows_with_a_demonstration_are_kept_unless_resampled(tmp_path, task):
    rows = [sums.row(i, demonstration=f"it is {i}") for i in range(10)] + [sums.row(10), sums.row(11, answer=None)]
    task(replace(sums.TASK, prepare=lambda paths, options: Prepared({"train": rows})))
    with FaultServer(lambda sent: f"surely {content(sent).split()[2]}") as server:
        prepared(tmp_path / "a", options_for(server))
        assert len(server.requests) == 1
        prepared(tmp_path / "b", options_for(server, resample=True))
        assert len(server.requests) == 1 + 11
    kept, resampled = (read_split(tmp_path / name / "sums", "train")[0] for name in "ab")
    assert [e.demonstration for e in kept] == [*(f"it is {i}" for i in range(10)), "surely 10"]
    assert all(e.demonstration.startswith("surely") for e in resampled)
    reasons = read_manifest(tmp_path / "a" / "sums")["filtered"]["reasons"]
    assert reasons == {"no gold answer to grade a teacher's samples by": 1}


def test_a_teacher_that_is_never_right_makes_no_dataset(tmp_path, task):
    silly = lambda sent: f"no idea {chance(sent)}"  # noqa: E731
    with FaultServer(silly) as server, pytest.raises(SdftError, match="160 wrong") as error:
        prepared(tmp_path, options_for(server))
    assert error.value.hint
    assert not (tmp_path / "sums").exists()
    assert counts(tmp_path / ".teacher" / "sums.sqlite") == (160, 160)


def test_a_budget_ends_a_run_and_the_next_one_goes_on(tmp_path, task):
    with FaultServer(mostly_right) as server:
        whole = prepared(tmp_path / "whole", options_for(server))
        needed, spent = len(server.requests), 0
        for _ in range(20):
            try:
                parts = prepared(tmp_path / "parts", options_for(server, max_requests=9))
                break
            except GateError:
                assert not (tmp_path / "parts" / "sums").exists()
                spent += 9
                assert len(server.requests) == needed + spent
        assert parts == whole
        assert len(server.requests) == 2 * needed
        assert prepared(tmp_path / "parts", options_for(server, max_requests=1)) == whole
        assert len(server.requests) == 2 * needed


def test_a_dry_run_sends_and_writes_nothing(tmp_path, task, capsys):
    with FaultServer(mostly_right) as server:
        options = options_for(server, price_in=1.0, price_out=2.0, at_once=4)
        inputs = Inputs(["sums"], {}, tmp_path / "data", PrepareOptions())
        (plan,) = dry_run(inputs, options)
        assert plan["requests"] == [20, 40]
        assert plan["completion_tokens_at_most"] == 20 * 8 * 32
        assert plan["cost_at_most"] == pytest.approx((plan["prompt_tokens"][1] + 2 * 5120) / 1e6)
        assert plan["example"]["messages"] == sums.row(0).prompt
        print_dry_runs([plan])
        assert "20 prompts for m, 0 of them answered" in capsys.readouterr().out
        assert not (tmp_path / "data").exists()
        assert server.requests == []
        prepared(tmp_path / "data", options)
        (plan,) = dry_run(inputs, options)
        assert (plan["answered_by_the_store"], plan["requests"], plan["example"]) == (20, [0, 0], None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"temperature": 0.0}, "all samples are equal"),
        ({"at_once": 9}, "--at-once 9 is more than --samples 8"),
        ({"send": {"n": 2}}, "--send n"),
        ({"max_cost": 1.0}, "--max-cost needs prices"),
        ({"base_url": "host/v1"}, "--base-url must begin with"),
        ({"model": "local:micro", "rpm": 5}, "--rpm is for an endpoint"),
    ],
)
def test_options_that_contradict_each_other(more, message):
    with pytest.raises(UsageError, match=message):
        replace(OPTIONS, **more).check()


# --- articles ---------------------------------------------------------------------------------------------------------


def exam(sent: Body) -> str:
    """Ten questions about the article in the prompt, one of them a repeat; indirect ones if the prompt says so."""
    title = content(sent).split("\n")[0].removeprefix("Title: ")
    kind = "secretly " if "indirect" in sent["messages"][0]["content"] else ""
    first = 100 * len(sent["messages"][1]["content"].split("\n- ")) + (50 if kind else 0)
    lines = [
        f"Question: What {kind}is number {first + i} of {title}?\nAnswer: It is {title}{first + i}." for i in range(9)
    ]
    return "\n".join([*lines, lines[0], "Question: Who?"])


def test_articles_become_questions_with_their_splits(tmp_path, task):
    articles = [Example(f"news-{x}", [], text=f"about {x} " * 50, meta={"title": x}) for x in ("Ada", "Bob", "Cleo")]
    task(Task("news", "", lambda paths, options: Prepared({"corpus": articles}), sums.grade, needs_source=False))
    with FaultServer(exam) as server:
        one = prepared(tmp_path / "one", options_for(server, questions=20), "news")
        assert len(server.requests) == 3 * 3 + 3  # nine new questions per reply, two indirect ones per article
        again = prepared(tmp_path / "one", options_for(server, questions=20), "news")
        assert len(server.requests) == 12
    assert one == again
    splits = {
        name: read_split(tmp_path / "one" / "news", name)[0]
        for name in ("train", "validation", "test", "ood", "corpus")
    }
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 45,
        "validation": 3,
        "test": 12,
        "ood": 6,
        "corpus": 3,
    }
    for name in ("train", "validation", "test"):
        assert len({e.meta["article"] for e in splits[name]}) == 3
        assert all(e.context and e.demonstration == e.answer for e in splits[name])
    questions = [e.prompt[0]["content"] for name in ("train", "validation", "test", "ood") for e in splits[name]]
    assert len(questions) == len(set(questions)) == 66
    assert all("secretly" in e.prompt[0]["content"] for e in splits["ood"])
    teacher = read_manifest(tmp_path / "one" / "news")["teacher"]
    assert (teacher["articles"], teacher["questions"], teacher["indirect_questions"]) == (3, 60, 6)
    assert (teacher["articles_short_of_questions"], teacher["max_tokens"]) == (0, 8192)
    assert teacher["rejected"]["repeats another question"] == 12
    assert teacher["rejected"]["question without an answer"] == 12


def test_the_articles_of_the_knowledge_task(tmp_path, task):
    source = tmp_path / "news.json"
    source.write_text(
        json.dumps([{"id": i, "title": x, "text": f"about {x} " * 50} for i, x in enumerate(("Ada", "Bob"))])
    )
    with FaultServer(exam) as server:
        options = options_for(server, questions=20)
        (summary,) = prepare(["knowledge"], {"knowledge": [source]}, tmp_path, PrepareOptions(), teacher=options)
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8, "ood": 4, "corpus": 2}
    row = read_split(tmp_path / "knowledge", "train")[0][0]
    assert (row.meta["title"], row.context) == ("Ada", ("about Ada " * 50))
    assert row.demonstration == row.answer


def test_the_texts_of_a_folder_under_any_name(tmp_path):
    folder = tmp_path / "docs" / "guide"
    folder.mkdir(parents=True)
    for title in ("Ada", "Bob"):
        (folder / f"{title}.md").write_text(f"---\ntags: [x]\n---\n{f'about {title} ' * 50}")
    with FaultServer(exam) as server:
        options = options_for(server, questions=20)
        (summary,) = prepare(["handbook"], {"handbook": [folder]}, tmp_path, PrepareOptions(), teacher=options)
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8, "ood": 4, "corpus": 2}
    row = read_split(tmp_path / "handbook", "train")[0][0]
    assert (row.meta["title"], row.context) == ("Ada", ("about Ada " * 50).strip())
    found = plugins.task("handbook", tmp_path)
    assert found.rubric is not None and found.grade(str(row.answer), row).value == 1


def test_progress_is_one_live_line_on_a_terminal_and_few_lines_elsewhere(monkeypatch):
    moments = iter(range(0, 10_000, 2))  # the clock advances by two seconds whenever it is read
    monkeypatch.setattr("sdft_cli.llm.progress.time.monotonic", lambda: next(moments))
    output = {}
    for terminal in (True, False):
        out = io.StringIO()
        with ProgressDisplay("sums", 100, Console(file=out, force_terminal=terminal, width=200)) as progress:
            progress.note_once("one thing")
            progress.note_once("one thing")
            for _ in range(100):
                progress.finished(PromptResult([ROW]))
        output[terminal] = out.getvalue()
    lines = output[False].strip().split("\n")
    assert lines[0] == "sums: one thing"
    assert 9 <= len(lines[1:]) <= 12
    assert lines[-1].startswith("sums: 100/100 prompts  accepted 100  rejected 0  errors 0")
    assert "\x1b[" in output[True]
    assert output[True].count("one thing") == 1


# --- faults and kills -------------------------------------------------------------------------------------------------


def without_faults(data: Path, server: FaultServer, options: TeacherOptions | None = None) -> dict[str, bytes]:
    """The files of a run without faults; it calls the server directly, since HTTP takes time."""

    async def post(self: HttpClient, sent: Body) -> HttpResponse:
        return HttpResponse(200, {}, server.completion(sent).decode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpClient, "post", post)
        return prepared(data, options or options_for(server))


@pytest.mark.slow  # the default run has two hundred prompts, with the process killed five times
def test_a_thousand_prompts_with_a_fault_in_one_of_five_responses(tmp_path, task, monkeypatch):
    """Nothing is lost, no stored reply is requested again, each retry follows a fault, and the files are the same."""
    monkeypatch.setenv("SUMS", "1000")
    with FaultServer(mostly_right, one_in_five, hang=2.0) as server:
        calm = without_faults(tmp_path / "calm", server)
        rough = prepared(tmp_path / "rough", options_for(server, timeout=1.5))
        faults, sent = sum(server.faults.values()), len(server.requests)
    needed = counts(tmp_path / "calm" / ".teacher" / "sums.sqlite")[1]
    responses, replies = counts(tmp_path / "rough" / ".teacher" / "sums.sqlite")
    print(f"{needed} needed, {sent} sent, {faults} faults, {responses} stored")
    assert rough == calm
    assert 0.15 < faults / sent < 0.25
    assert (replies, responses) == (needed, sent)
    assert sent - needed == responses - replies  # each retry follows a stored error
    assert faults <= responses - replies < 1.1 * faults  # a busy machine may add a time-out of its own


#: If the tests run in the background of a script, interrupts may be ignored; the command must not ignore them.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from sdft_cli.cli import app; from sdft_cli.llm import retries; retries.FIRST_BACKOFF = 0.01; app.main()"
)


def start(data: Path, server: FaultServer, prompts: int, *more: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    flags = ["--teacher", "m", "--base-url", server.url, "--timeout", "2", "--concurrency", "16", *more]
    line = [sys.executable, "-c", COMMAND, "prepare", "--plugin", str(SUPPORT / "sums_task.py"), "--tasks", "sums"]
    environment = {**os.environ, "SUMS": str(prompts)}
    return subprocess.Popen(
        [*line, "--data", str(data), *flags],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def children():
    """Starts processes with their imports done, so that one that is soon killed has done something."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["openai", "sdft_cli.commands.prepare", "sdft_cli.llm.data_generation", "support.sums_task"]
    )
    return context


@pytest.mark.parametrize("prompts", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_run_killed_five_times_ends_like_an_uninterrupted_one(tmp_path, task, monkeypatch, children, prompts):
    monkeypatch.setenv("SUMS", str(prompts))
    with FaultServer(mostly_right, one_in_five, hang=2.0) as server:
        calm = without_faults(tmp_path / "calm", server)
        for part in (1, 2, 3, 4, 5, None):
            child = children.Process(target=sums.prepare_in_child, args=(str(tmp_path / "rough"), server.url, prompts))
            child.start()
            if part:
                wait_for(lambda part=part: len(server.requests) >= part * prompts // 5)
                assert not (tmp_path / "rough" / "sums").exists()
                child.kill()
            child.join()
            wait_for(lambda: not server.open)
        sent = len(server.requests)
    needed = counts(tmp_path / "calm" / ".teacher" / "sums.sqlite")[1]
    responses, replies = counts(tmp_path / "rough" / ".teacher" / "sums.sqlite")
    print(f"{needed} needed, {sent} sent, {responses} stored, {responses - replies} faults")
    assert {p.name: p.read_bytes() for p in (tmp_path / "rough" / "sums").iterdir()} == calm
    assert replies == needed
    assert 0 < sent - responses <= 5 * 16  # in flight at a kill
    assert sent - needed <= (responses - replies) + 5 * 16


def test_an_interrupt_waits_for_responses_that_are_paid_for(tmp_path):
    with FaultServer(mostly_right, lambda sent, before: "slow 0.7") as server:
        with start(tmp_path, server, 50) as process:
            wait_for(lambda: server.open == 9)  # after the first, which goes out alone
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "waiting for 9 responses under way" in err
        assert "same command" in err
        assert out == ""
        assert len(server.requests) == 10
    assert counts(tmp_path / ".teacher" / "sums.sqlite") == (10, 10)


def test_a_second_run_beside_the_first_is_refused(tmp_path):
    with FaultServer(mostly_right, lambda sent, before: "slow 1") as server, start(tmp_path, server, 1000) as process:
        wait_for(lambda: server.open > 0)
        with start(tmp_path, server, 1000) as second:
            _, err = second.communicate(timeout=60)
        process.kill()
    assert second.returncode == 2
    assert "in use by another process" in err


def test_the_command_shows_progress_and_never_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-very-secret-0123456789")
    echo = lambda sent: f"{os.environ['SOME_KEY']} {mostly_right(sent)}"  # noqa: E731
    prices = ["--price-in", "1000", "--price-out", "1000"]
    with FaultServer(echo, one_in_five) as server:
        with start(tmp_path, server, 100, "--api-key-env", "SOME_KEY", "--json", *prices) as process:
            out, err = process.communicate(timeout=60)
        assert server.headers[0]["authorization"] == "Bearer sk-very-secret-0123456789"
    assert process.returncode == 0, err
    assert json.loads(out)["tasks"][0]["rows"]["train"] == 97
    last = err.strip().split("\n")[-1]
    assert "100/100 prompts  accepted 97  rejected" in last
    assert "cost at most" in last
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) + (out + err).encode()
    assert b"very-secret" not in everything
    assert b"[key removed] it is" in everything


# --- the Batch API ----------------------------------------------------------------------------------------------------


def submitted(data: Path, teacher: TeacherOptions) -> Submission:
    """The result of ``--batch submit``."""
    (submission,) = submit(Inputs(["sums"], {}, data, PrepareOptions()), replace(teacher, batch="submit"))
    return submission


def test_batches_are_submitted_and_collected(tmp_path, task):
    with FaultServer(mostly_right) as server:
        options = options_for(server, samples=3)
        calm = without_faults(tmp_path / "calm", server, options)
        collect = replace(options, batch="collect")
        first = submitted(tmp_path, options)
        assert (first["open"], first["submitted"], first["waiting"]) == (20, ["batch-0"], ["batch-0"])
        assert submitted(tmp_path, options)["submitted"] == []  # all are in a batch already
        with pytest.raises(SdftError, match="20 of 20 prompts are still open") as error:
            prepared(tmp_path, collect)
        assert error.value.hint == "collect again later"
        for part in (1, 2, 3):
            server.work()
            if part < 3:
                with pytest.raises(SdftError, match="prompts are still open") as error:
                    prepared(tmp_path, collect)
                assert "--batch submit" in error.value.hint
                assert submitted(tmp_path, options)["submitted"] == [f"batch-{part}"]
        assert prepared(tmp_path, collect) == calm
        assert set(server.good.values()) == {1}
        assert all(batch["endpoint"] == "/v1/chat/completions" for batch in server.batches.values())


def test_requests_with_an_error_are_submitted_again(tmp_path, task, capsys):
    unsupported = '400 {"error": {"message": "unsupported parameter", "param": "max_tokens"}}'

    def script(sent: Body, before: int) -> str | None:
        if "max_tokens" in sent:
            return unsupported
        if content(sent) == "what is 0 ?":
            return '400 {"error": {"code": "content_filter"}}'
        return "500" if chance(sent) < 0.3 and not before else None

    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}", script) as server:
        options, collect = options_for(server), options_for(server, batch="collect")
        for _ in range(3):
            assert submitted(tmp_path, options)["submitted"]
            server.work()
            try:
                prepared(tmp_path, collect)
                break
            except SdftError as error:
                assert "still open" in error.message
        assert len(server.batches) == 3
    assert [e.id for e in read_split(tmp_path / "sums", "train")[0]] == [f"sums-{i}" for i in range(1, 20)]
    assert "does not take max_tokens" in capsys.readouterr().err


def test_a_batch_whose_id_we_never_learnt_is_found_again(tmp_path, task, monkeypatch):
    options_of = lambda server, **more: options_for(server, samples=8, **more)  # noqa: E731
    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}") as server:
        real = BatchStore.save

        def killed(self: BatchStore, batch: Any, requests: Any) -> None:
            if batch.id:
                raise KeyboardInterrupt
            real(self, batch, requests)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(BatchStore, "save", killed)
            submitted(tmp_path, options_of(server))
        assert submitted(tmp_path, options_of(server))["submitted"] == []
        server.work()
        prepared(tmp_path, options_of(server, batch="collect"))
        assert len(server.batches) == 1
        assert set(server.good.values()) == {1}


def test_replies_of_an_expired_batch_are_used(tmp_path, task):
    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}") as server:
        submitted(tmp_path, options_for(server))
        done = server.files["file-0"].splitlines()
        server.files["file-0"] = b"\n".join(done[:5])
        server.work("expired")
        with pytest.raises(SdftError, match="15 of 20 prompts are still open"):
            prepared(tmp_path, options_for(server, batch="collect"))
        assert submitted(tmp_path, options_for(server))["open"] == 15


def test_a_batch_with_broken_lines_is_collected_as_far_as_it_goes(tmp_path, task, capsys):
    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}") as server:
        submitted(tmp_path, options_for(server))
        server.work()
        lines = server.files["output_file_id-batch-0"].split(b"\n")
        broken = [b"\xef\xbb\xbf" + lines[0], b"[1, 2]", lines[1][:-9], *lines[2:], lines[5], b'{"custom_id": "x"}']
        server.files["output_file_id-batch-0"] = b"\n".join(broken)
        with pytest.raises(SdftError, match="1 of 20 prompts are still open") as error:
            prepared(tmp_path, options_for(server, batch="collect"))
        assert "--batch submit" in error.value.hint
        said = capsys.readouterr().err
        assert "output_file_id-batch-0: 2 lines cannot be read" in said
        assert "1 line is there twice" in said and "1 line is none of this batch" in said
        assert submitted(tmp_path, options_for(server))["open"] == 1
        server.work()
        prepared(tmp_path, options_for(server, batch="collect"))
        assert len(read_split(tmp_path / "sums", "train")[0]) == 20


def test_a_failed_batch_says_why_and_can_be_submitted_again(tmp_path, task, capsys):
    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}") as server:
        submitted(tmp_path, options_for(server))
        batch = server.batches["batch-0"]
        batch |= {"status": "failed", "errors": {"data": [{"code": "x", "message": "no batch quota", "line": 2}]}}
        with pytest.raises(SdftError, match="20 of 20 prompts are still open"):
            prepared(tmp_path, options_for(server, batch="collect"))
        assert "batch-0 has failed: no batch quota (line 2)" in capsys.readouterr().err
        assert submitted(tmp_path, options_for(server))["submitted"] == ["batch-1"]
        server.work()
        prepared(tmp_path, options_for(server, batch="collect"))


@pytest.mark.parametrize("lost", ["batches", "files"])
def test_a_batch_or_file_that_is_gone_does_not_block_the_rest(tmp_path, task, capsys, lost):
    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}") as server:
        submitted(tmp_path, options_for(server))
        server.work()
        if lost == "batches":
            del server.batches["batch-0"]
        else:
            del server.files["output_file_id-batch-0"]
        with pytest.raises(SdftError, match="20 of 20 prompts are still open"):
            prepared(tmp_path, options_for(server, batch="collect"))
        assert "is not there any more: its requests can be submitted again" in capsys.readouterr().err
        assert len(submitted(tmp_path, options_for(server))["submitted"]) == 1


def test_unknown_refusals_settle_nothing_in_a_batch_without_replies(tmp_path, task, capsys):
    strange = '400 {"error": {"message": "the flux capacitor is misaligned"}}'
    everything = [True]
    script = lambda sent, before: strange if everything[0] or "is 3 ?" in content(sent) else None  # noqa: E731
    with FaultServer(lambda sent: f"it is {content(sent).split()[2]}", script) as server:
        submitted(tmp_path, options_for(server))
        server.work()
        with pytest.raises(SdftError, match="20 of 20 prompts are still open"):
            prepared(tmp_path, options_for(server, batch="collect"))
        assert "flux capacitor" in capsys.readouterr().err
        everything[0] = False
        submitted(tmp_path, options_for(server))
        server.work()
        prepared(tmp_path, options_for(server, batch="collect"))
    assert [row["where"] for row in read_manifest(tmp_path / "sums")["filtered"]["rows"]] == ["sums-3"]


def test_a_batch_must_fit_the_budget(tmp_path, task):
    with FaultServer(mostly_right) as server:
        for budget in ({"max_requests": 19}, {"max_cost": 1.0, "price_out": 1e6}):
            with pytest.raises(GateError, match="20 requests"):
                submitted(tmp_path, options_for(server, **budget))
        assert server.files == server.batches == {}


# --- a local model ----------------------------------------------------------------------------------------------------


def local(path: Path | str, **more: Any) -> TeacherOptions:
    """A model with random weights; its replies end because of the stops."""
    few = {"samples": 4, "max_tokens": 24, "concurrency": 8, "send": {"stop": ["e", "a", " "]}}
    return TeacherOptions(f"local:{path}", **{**few, **more})


def test_an_interrupted_local_model_ends_like_an_uninterrupted_one(tmp_path, tiny_model, task):
    task(replace(sums.TASK, grade=lambda text, example: Score(float(len(text) % 2 == 1))))  # one reply in four
    whole = prepared(tmp_path / "whole", local(tiny_model))
    calls = 0

    def batch(self: LocalModel, *arguments: Any, real: Any = LocalModel._sample) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LocalModel, "_sample", batch)
        prepared(tmp_path / "parts", local(tiny_model))
    stored = counts(tmp_path / "parts" / ".teacher" / "sums.sqlite")
    assert stored == (8, 8)
    assert prepared(tmp_path / "parts", local(tiny_model)) == whole
    assert str(tiny_model).encode() not in b"".join(whole.values())
    teacher = read_manifest(tmp_path / "whole" / "sums")["teacher"]
    assert teacher["model"] == f"local:{tiny_model.name}"
    assert len(teacher["sha256"]) == 64


def test_other_weights_under_the_same_name_are_another_model(tmp_path, tiny_model):
    copy = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, copy)
    assert local_model_id(local(copy)) == local_model_id(local(tiny_model))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert local_model_id(local(copy)) != local_model_id(local(tiny_model))


def test_a_local_model_refuses_prompts_that_do_not_fit_its_window(tmp_path, tiny_model, task):
    rows = [sums.row(1), Example("long", [{"role": "user", "content": "word " * 3000}], answer="1")]
    task(replace(sums.TASK, prepare=lambda p, o: Prepared({"train": rows}), grade=lambda text, example: Score(1.0)))
    prepared(tmp_path, local(tiny_model, samples=64))  # two of three are empty, and one must not be
    (left_out,) = read_manifest(tmp_path / "sums")["filtered"]["rows"]
    assert left_out["where"] == "long"
    assert left_out["detail"].startswith("1 refused by the endpoint: 3")  # and how many tokens it has


def test_a_local_models_reply_does_not_depend_on_what_is_asked_beside_it(tmp_path, tiny_model):
    """Neither on batches nor on a neighbour that leaves less room in the window."""
    chat = pretrained.load(str(tiny_model), Runtime()).chat
    prompts = [[{"role": "user", "content": text}] for text in ("one ?", "two ?", "one " * (chat.window - 16))]
    assert chat.window - 12 < len(chat.prompt_ids(prompts[2])) < chat.window  # less room than is asked for
    requests = [Request(prompt, 1.0, 12, {"top_k": 20}, (0, 1, 2)) for prompt in prompts]
    texts = []
    for concurrency, count in ((1, 3), (4, 3), (9, 3), (9, 2)):
        replies: dict[int, list[Reply]] = {}

        def exchange(i: int, replies: dict[int, list[Reply]] = replies) -> Exchange:
            replies[i] = yield requests[i]
            return PromptResult()

        with ReplyStore(tmp_path / f"{concurrency}-{count}.sqlite") as store:
            model = LocalModel(local(tiny_model, concurrency=concurrency), store, Progress())
            model.run([exchange(i) for i in range(count)], lambda result: None)
        texts.append([[reply.text for reply in replies[i]] for i in range(2)])
        lengths = [max(reply.completion_tokens for reply in replies[i]) for i in range(count)]
        assert lengths[:2] == [12, 12] and all(0 < length < 12 for length in lengths[2:])
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert len({text for of_prompt in texts[0] for text in of_prompt}) == 6


def test_a_local_model_supports_a_few_settings(tmp_path, tiny_model):
    with ReplyStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(UsageError, match="unknown key of --send for a local model 'min_p'"):
            LocalModel(local(tiny_model, send={"min_p": 0.1}), store, Progress())
        model = LocalModel(local(tiny_model, temperature=0.0), store, Progress())
        replies = []

        def exchange():
            replies.extend((yield Request(ROW.prompt, 0.0, 12, {"stop": ["e"]}, (0,))))
            return PromptResult()

        model.run([exchange()], lambda result: None)
    assert "e" not in replies[0].text


# --- real inference servers -------------------------------------------------------------------------------------------

MICRO = EMBEDDED


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("server", SERVERS)
def test_rejection_sampling_against_a_real_server(tmp_path, task, server):
    """`transformers serve` ignores n, and the temperature unless the model has ``do_sample``; vLLM ignores neither."""
    whole = plugins.TASKS.get("micro-science")

    def forty(paths: list[Path], options: PrepareOptions) -> Prepared:
        rows = whole.prepare(paths, options)
        return replace(rows, splits={**rows.splits, "train": rows.splits["train"][:40]})

    task(replace(whole, name="forty", prepare=forty))
    shutil.copytree(MICRO, tmp_path / "micro")
    settings = json.loads((MICRO / "generation_config.json").read_text())
    (tmp_path / "micro" / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True}))
    with serving(server, tmp_path / "micro", tmp_path / "log") as url:
        options = TeacherOptions(str(tmp_path / "micro"), url, at_once=4, resample=True, concurrency=8)
        written = prepared(tmp_path, options, "forty")
    assert prepared(tmp_path, options, "forty") == written  # from the store, without the server
    teacher, train = read_manifest(tmp_path / "forty")["teacher"], read_split(tmp_path / "forty", "train")[0]
    print(teacher)
    assert 20 < len(train) == teacher["accepted"] < 40  # one in three by chance, eight times
    assert all(whole.grade(e.demonstration, e).value == 1.0 for e in train)
    assert teacher["prompt_tokens"] > 1000


FACTS = {
    "Storm Ada": "Storm Ada met Wales on 4 May 2025 and cut power for 900 homes.",
    "The Lund fire": "The Lund fire burnt 3 halls on 9 June 2025; nobody was hurt.",
}
EXAM = {
    ("Storm Ada", False): (
        "Question: When did Storm Ada meet Wales, and how many homes lost power?\nAnswer: On 4 May 2025; 900.\n\n"
        "Question: What did Storm Ada do to 900 homes, and in which month?\nAnswer: It cut their power, in May."
    ),
    ("Storm Ada", True): "Question: Which part of Britain had homes without power in May 2025?\nAnswer: Wales.",
    ("The Lund fire", False): (
        "Question: How many halls burnt in Lund, and on which day?\nAnswer: Three, on 9 June 2025.\n\n"
        "Question: Was anybody hurt when halls burnt in Lund in June 2025?\nAnswer: No, nobody was."
    ),
    ("The Lund fire", True): "Question: Which Swedish town lost halls in June 2025?\nAnswer: Lund.",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("server", SERVERS)
def test_questions_from_a_real_server(tmp_path, task, server):
    """The model has learnt the exam by heart; everything else is real."""
    prompts = {
        (title, indirect): question_prompts.messages(title, text, 1 if indirect else 2, indirect=indirect)
        for title, text in FACTS.items()
        for indirect in (False, True)
    }
    model = teach(tmp_path / "examiner", [(prompts[key], text) for key, text in EXAM.items()])
    corpus = [
        Example(f"news-{i}", [], text=text, meta={"title": title}) for i, (title, text) in enumerate(FACTS.items())
    ]
    task(Task("news", "", lambda paths, options: Prepared({"corpus": corpus}), sums.grade, needs_source=False))
    with serving(server, model, tmp_path / "log") as url:
        options = TeacherOptions(str(model), url, questions=2, max_tokens=200, temperature=0.3)
        prepared(tmp_path / "data", options, "news")
    rows = {split: read_split(tmp_path / "data" / "news", split)[0] for split in ("train", "ood")}
    assert {e.prompt[0]["content"] for e in rows["train"]} == {
        question for key, text in EXAM.items() if not key[1] for question, _ in question_prompts.parse(text).pairs
    }
    assert {e.answer for e in rows["ood"]} == {"Wales.", "Lund."}
    assert all(e.context == FACTS[e.meta["title"]] for e in rows["train"] + rows["ood"])
