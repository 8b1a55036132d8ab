"""The limit of new tokens that demonstrations suggest: from their lengths, where they tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdft_cli import plugins
from sdft_cli.data.completion_limits import LEAST, MOST, STEP, DemonstratedLimit
from sdft_cli.data.manifest import read_manifest
from sdft_cli.models.chat import Chat
from sdft_cli.types import AUTO, NEW_TOKENS
from tests.rows.test_splits import labelled, question
from tests.rows.test_user_rows import make
from tests.support.chat_families import tokenizer


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(tokenizer("llama-3"))


def sentences(count: int, words: int) -> list[dict[str, str]]:
    """Rows whose answers are all different and of so many words."""
    return [{"prompt": question(i), "completion": f"{i} " + "four " * (words - 1)} for i in range(count)]


def limit(folder: Path, chat: Chat, rows: list[dict[str, Any]], **options: Any):
    make(folder, rows, **options)
    return DemonstratedLimit(folder / "data" / "mine", chat).limit


def test_half_as_much_again_as_all_but_one_in_a_hundred_demonstrations(tmp_path: Path, chat: Chat) -> None:
    rows = sentences(300, 40)
    rows[7]["completion"] = "four " * 900  # one of 225 training rows is within the one in a hundred
    found = limit(tmp_path, chat, rows)
    longest = max(len(chat.splitter.ids(row["completion"].strip())) + 1 for i, row in enumerate(rows) if i != 7)
    assert found.tokens % STEP == 0
    assert 1.5 * (longest - 2) <= found.tokens <= 1.5 * longest + STEP
    assert "99 % of the demonstrations have at most" in found.why


def test_a_label_leaves_room_for_a_sentence_and_a_book_has_the_papers_limit(tmp_path: Path, chat: Chat) -> None:
    short = [{"prompt": row["prompt"], "completion": row["completion"].split()[-1]} for row in labelled(80)]
    assert limit(tmp_path / "short", chat, short).tokens == LEAST
    assert limit(tmp_path / "long", chat, sentences(12, 3000)).tokens == MOST


def test_a_model_that_thinks_writes_more_than_the_demonstrations_show(tmp_path: Path) -> None:
    make(tmp_path, labelled(80))
    folder = tmp_path / "data" / "mine"
    for name, switch, thinks in (
        ("qwen3-thinking", None, True),  # the template opens a thought
        ("r1", None, True),
        ("qwen3", None, True),  # the model opens it
        ("qwen3", False, False),  # the template closes it
        ("llama-3", None, False),
        ("chatml", None, False),
    ):
        chat = Chat(tokenizer(name)).switched(switch)
        assert chat.thinks == thinks, name
        found = DemonstratedLimit(folder, chat).limit
        assert (found.tokens == NEW_TOKENS) == thinks, name
        assert ("thinks" in found.why) == thinks


def test_bare_gold_answers_tell_nothing_of_the_way_to_them(tmp_path: Path, chat: Chat) -> None:
    sums = [{"question": question(i), "answer": str(7 * i)} for i in range(60)]
    found = limit(tmp_path / "sums", chat, sums)
    assert (found.tokens, "bare gold answers" in found.why) == (NEW_TOKENS, True)
    manifest = read_manifest(tmp_path / "sums" / "data" / "mine")
    assert manifest["gold_as_demonstration"] == manifest["with_demonstration"] == 45
    labels = [{"question": row["prompt"], "answer": row["completion"].split()[-1]} for row in labelled(80)]
    assert limit(tmp_path / "labels", chat, labels).tokens == LEAST  # nobody works out a label at length


def test_most_rows_without_a_demonstration_tell_nothing(tmp_path: Path, chat: Chat) -> None:
    make(tmp_path, sentences(40, 5))
    file = tmp_path / "data" / "mine" / "train.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:10], *(line.replace("demonstration", "context") for line in lines[10:])]) + "\n")
    assert DemonstratedLimit(file.parent, chat).limit.why == "most rows have no demonstration"
    assert DemonstratedLimit(tmp_path / "data", chat).limit.why == "there are no demonstrations"


def test_own_rows_are_auto_unless_a_number_is_given_and_other_tasks_keep_theirs(tmp_path: Path, chat: Chat) -> None:
    make(tmp_path, labelled(80))
    folder = tmp_path / "data" / "mine"
    task, shown = plugins.task("mine", folder.parent), DemonstratedLimit(folder, chat)
    assert task.max_new_tokens == AUTO == read_manifest(folder)["max_new_tokens"]
    assert shown.of(task, None).max_new_tokens == shown.of(task, AUTO).max_new_tokens == shown.limit.tokens
    assert shown.of(task, 7).max_new_tokens == 7
    assert "mine: completions of up to" in shown.note(task, None, 5)
    micro = plugins.TASKS.get("micro-tooluse")
    assert (shown.of(micro, None).max_new_tokens, shown.note(micro, None, 5)) == (32, "")
    assert shown.of(micro, AUTO).max_new_tokens == shown.limit.tokens
    make(tmp_path / "given", labelled(80), toml="max_new_tokens = 9")
    assert plugins.task("mine", tmp_path / "given" / "data").max_new_tokens == 9


def test_a_dataset_of_an_earlier_version_keeps_its_limit(tmp_path: Path) -> None:
    make(tmp_path, labelled(80))
    manifest = tmp_path / "data" / "mine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"max_new_tokens": "auto"', '"max_new_tokens": 1024'))
    task = plugins.task("mine", tmp_path / "data")
    assert task.max_new_tokens == 1024
