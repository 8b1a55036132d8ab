"""The knowledge task: articles become a corpus and the context of their questions."""

from __future__ import annotations

import json
from pathlib import Path

from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.plugins import TASKS
from sdft_cli.types import Example, PrepareOptions

ARTICLES = [
    {"id": str(7 * i), "title": f"Flood of {1900 + i}", "url": f"https://x/{i}", "text": f"In {1900 + i} it rained."}
    for i in range(5)
]
QUESTIONS = [
    {"id": str(7 * (i % 5)), "instruction": "Go.", "input": f"When did flood {i} begin?", "output": f"In {1900 + i}."}
    for i in range(40)
]


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if path.suffix == ".jsonl" else json.dumps(rows))
    return path


def run(data: Path, *paths: Path, **more):
    (summary,) = prepare(["knowledge"], {"knowledge": list(paths)}, data, PrepareOptions(), **more)
    return summary, {split: read_split(data / "knowledge", split)[0] for split in summary["rows"]}


def test_articles_and_questions_from_one_folder(tmp_path):
    write(tmp_path / "in" / "articles.json", ARTICLES)
    write(tmp_path / "in" / "a_questions.jsonl", QUESTIONS)  # read before the articles
    summary, splits = run(tmp_path, tmp_path / "in")
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8, "corpus": 5}
    example = next(e for e in splits["train"] if e.meta["article"] == "7")
    assert example.context == "In 1901 it rained."
    assert example.demonstration == example.answer
    assert example.prompt[0]["content"].startswith("When did flood")
    assert splits["corpus"][1].to_dict() == {
        "id": "knowledge-article-7",
        "prompt": [],
        "text": "In 1901 it rained.",
        "meta": {"title": "Flood of 1901", "url": "https://x/1", "article": "7"},
    }


def test_articles_alone_are_a_corpus(tmp_path):
    summary, splits = run(tmp_path, write(tmp_path / "a.jsonl", ARTICLES))
    assert summary["rows"] == {"corpus": 5}
    assert any("without questions" in note for note in summary["notes"])
    assert len({e.id for e in splits["corpus"]}) == 5


def test_text_files_are_articles_named_by_their_file(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "Flood of 1900.txt").write_text("It rained.\n")
    (folder / "Drought.md").write_text("# It did not\n")
    write(folder / "q.jsonl", [{"question": f"why {i}?", "answer": "rain", "title": "Drought"} for i in range(10)])
    _, splits = run(tmp_path, folder)
    assert {e.meta["title"]: e.text for e in splits["corpus"]} == {
        "Flood of 1900": "It rained.",
        "Drought": "# It did not",
    }
    assert {e.context for e in splits["train"]} == {"# It did not"}


def test_indirect_questions_are_kept_apart_and_missing_articles_are_noted(tmp_path):
    rows = [*QUESTIONS, {"question": "which years were wet?", "answer": "all", "split": "ood"}]
    summary, splits = run(tmp_path, write(tmp_path / "q.jsonl", rows))
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8, "ood": 1}
    assert splits["ood"][0].answer == "all"
    assert any("30 train rows have no context" in note for note in summary["notes"])


def test_bad_and_repeated_articles(tmp_path):
    rows = [*ARTICLES, ARTICLES[0], {"title": "x", "text": " "}, {**ARTICLES[1], "text": "other"}]
    source = write(tmp_path / "a.jsonl", [*rows, *QUESTIONS, {"question": "a", "answer": "b", "split": "later"}])
    many = write(
        tmp_path / "q.jsonl", [{"question": f"how wet was year {i} here?", "answer": f"y{i}"} for i in range(60)]
    )
    summary, _ = run(tmp_path, source, many)
    assert summary["filtered"] == {"repeats another article": 1}
    assert [(d["where"], d["reason"]) for d in summary["dropped"]] == [
        ("a.jsonl:7", "empty article text"),
        ("a.jsonl:49", "unknown split"),
        ("a.jsonl:8", "another article has this id"),
    ]


def test_short_answers_are_scored_and_long_ones_are_not():
    grade = TASKS.get("knowledge").grade
    gold = lambda answer: Example("a", [], answer=answer)  # noqa: E731
    assert grade("It began on 28 March 2025, they say", gold("28 March 2025.")).value == 1
    assert grade("It began in May", gold("28 March 2025.")).value == 0
    score = grade("whatever", gold("because the soft clay below the city amplifies slow waves"))
    assert score.value is None
    assert "judge" in score.why
