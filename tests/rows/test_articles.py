"""Texts under any name: a folder of them is a corpus, a teacher writes questions about it, and cpt trains on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.user_rows import read, read_path

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.rows.articles import front_matter
from sdft_cli.types import Example, PrepareOptions


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        place = folder / name.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder


DOCS = {
    "holidays_dot_md": "---\ntitle: Holiday rules\ndate: 2024-05-01\ntags: [hr, leave]\n---\n\n# Rules\nThirty days.\n",
    "guide__index_dot_md": "# Getting started\nInstall it.\n",
    "index_dot_md": "# Home\nWelcome.\n",
    "README_dot_md": "About these texts.\n",
    "plain_dot_txt": "Just text.\n",
    "page_dot_html": "<p>not read</p>",
}


def test_a_folder_of_texts_is_a_corpus_under_any_name(tmp_path: Path) -> None:
    (summary,) = prepare(
        ["handbook"], {"handbook": [write(tmp_path / "docs", **DOCS)]}, tmp_path / "data", PrepareOptions()
    )
    assert summary["rows"] == {"corpus": 5}
    assert "files left out: docs/page.html (not a format of rows)" in summary["notes"]
    rows = {row.id: row for row in read_split(tmp_path / "data" / "handbook", "corpus")[0]}
    assert rows["handbook-article-holidays"].text == "# Rules\nThirty days."
    assert rows["handbook-article-holidays"].meta == {
        "title": "Holiday rules",
        "date": "2024-05-01",
        "tags": ["hr", "leave"],
        "article": "holidays",
    }
    assert rows["handbook-article-guide-index"].meta["title"] == "Getting started"
    assert rows["handbook-article-plain"].meta["title"] == "plain"
    task = plugins.task("handbook", tmp_path / "data")
    assert task.rubric is not None and task.grader == read_manifest(tmp_path / "data" / "handbook")["grader"]
    gold = Example("a", [], answer="thirty days")
    assert task.grade("You get thirty days.", gold).value == 1
    long = task.grade("Whatever.", Example("a", [], answer="thirty days of leave in every year that you work here"))
    assert long.value is None and "judge" in long.why


@pytest.mark.parametrize(
    ("text", "entries", "rest"),
    [
        ("---\na: 1\n---\nx", {"a": 1}, "x"),
        ("---\r\na: [1, x]\r\n---\r\nx", {"a": [1, "x"]}, "x"),
        ("+++\ntitle = 'T'\n+++\nx", {"title": "T"}, "x"),
        ("---\n---\nx", {}, "---\n---\nx"),
        ("---\na: [\n---\nx", {}, "---\na: [\n---\nx"),
        ("x\n---\na: 1\n---\n", {}, "x\n---\na: 1\n---\n"),
        ("---\njust a line\n---\nx", {}, "---\njust a line\n---\nx"),
        ("---\nd: 2024-05-01T10:00:00\ne:\n---\nx", {"d": "2024-05-01 10:00:00"}, "x"),
    ],
    ids=repr,
)
def test_front_matter(text: str, entries: dict, rest: str) -> None:
    assert front_matter(text) == (entries, rest)
    json.dumps(entries)


def test_rows_of_text_are_a_corpus_too(tmp_path: Path) -> None:
    made = read(tmp_path, [{"text": f"Text {i}.", "meta": {"source": "x"}} for i in range(3)])
    assert [row.text for row in made.rows] == ["Text 0.", "Text 1.", "Text 2."]
    assert made.unused == ["meta"]
    titled = read(tmp_path, [{"id": 7, "title": "T", "text": "Text.", "url": "https://x"}])
    assert titled.rows[0].to_dict() == {
        "id": "mine-article-7",
        "prompt": [],
        "text": "Text.",
        "meta": {"title": "T", "url": "https://x", "article": "7"},
    }
    named = read(tmp_path, [{"Inhalt": "Text.", "Name": "T"}], text="Inhalt", title="Name")
    assert (named.rows[0].text, named.rows[0].meta["title"]) == ("Text.", "T")


def test_text_files_beside_files_of_rows_are_left_out_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", notes_dot_md="Notes.", README_dot_md="About.")
    (folder / "rows.jsonl").write_text("".join(f'{{"question": "q{i}?", "answer": "a"}}\n' for i in range(10)))
    (summary,) = prepare(["mine"], {"mine": [folder]}, tmp_path / "data", PrepareOptions())
    assert set(summary["rows"]) == {"train", "validation", "test"}
    left_out = "files left out: in/README.md (describes the dataset), in/notes.md (text without columns)"
    assert left_out in summary["notes"]


def test_articles_and_questions_about_them_from_two_sources(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", holidays_dot_md=DOCS["holidays_dot_md"], plain_dot_txt="Just text.")
    rows = [{"question": f"How many days in year {i}?", "answer": "thirty", "article": "holidays"} for i in range(12)]
    rows += [{"question": "What is in it?", "answer": "text", "title": "plain"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(["handbook"], {"handbook": [docs, tmp_path / "q.jsonl"]}, tmp_path / "data", PrepareOptions())
    made = [
        row for split in ("train", "validation", "test") for row in read_split(tmp_path / "data" / "handbook", split)[0]
    ]
    assert {row.context for row in made} == {"# Rules\nThirty days.", "Just text."}
    assert {row.prompt[0]["content"] for row in made} == {row["question"] for row in rows}
    assert len(read_split(tmp_path / "data" / "handbook", "corpus")[0]) == 2


def test_an_id_that_is_an_articles_names_that(tmp_path: Path) -> None:
    articles = [{"id": "7", "title": "Flood", "text": "It rained."}]
    questions = [
        {"id": "7", "instruction": "Answer.", "input": f"When {i}?", "output": f"In {1900 + i}."} for i in range(3)
    ]
    made = read(tmp_path, [*questions, *articles])
    asked = [row for row in made.rows if row.prompt]
    assert [(row.id, row.context) for row in asked] == [(f"mine-{i}", "It rained.") for i in (1, 2, 3)]
    assert made.dropped == []
    repeated = read(tmp_path, questions)
    assert [drop.reason for drop in repeated.dropped] == ["duplicate id"] * 2


def test_raw_text_alone_says_what_can_be_done_with_it(tmp_path: Path) -> None:
    prepare(["raw"], {"raw": [write(tmp_path / "docs", a_dot_txt="Text.")]}, tmp_path / "data", PrepareOptions())
    with pytest.raises(UsageError, match="is raw text and has no train split") as error:
        read_split(tmp_path / "data" / "raw", "train")
    assert "--method cpt" in error.value.hint and "--teacher" in error.value.hint


def test_a_single_text_file_is_an_article(tmp_path: Path) -> None:
    made = read_path(write(tmp_path, a_dot_md="Text.") / "a.md")
    assert [row.text for row in made.rows] == ["Text."]
