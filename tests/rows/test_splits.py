"""Splits of a user's own rows: stratified by label, and drawn as ever where answers are no labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from sdft_cli.data.manifest import read_manifest
from tests.rows.test_user_rows import make

SUBJECTS = ("law", "anatomy", "virology", "astronomy", "history", "geology", "music", "chess")


def question(i: int) -> str:
    return " ".join(hashlib.sha256(f"{i} {k}".encode()).hexdigest()[:6] for k in range(5))


def labelled(count: int, per: int = 1) -> list[dict[str, str]]:
    """Rows sorted by label, as sources often are; ``per`` rows ask the same question, with white space behind."""
    return [
        {
            "prompt": question(i // per) + " " * (i % per),
            "completion": f"The subject of this question is {SUBJECTS[i * len(SUBJECTS) // count]}.",
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_every_split_has_every_label(tmp_path: Path, seed: int) -> None:
    summary, rows = make(tmp_path, labelled(220), seed=seed)
    assert {split: len(examples) for split, examples in rows.items()} == {"train": 165, "validation": 11, "test": 44}
    for split, most in (("validation", 2), ("test", 6), ("train", 22)):
        shares = Counter(str(row.answer) for row in rows[split])
        assert len(shares) == 8, split
        assert max(shares.values()) <= most
    said = "answers are 8 labels, and rows were drawn in proportion to them (stratified)"
    assert said in summary["notes"]
    assert said in read_manifest(tmp_path / "data" / "mine")["notes"]


def test_a_label_of_few_rows_is_trained_on_and_its_absence_is_said(tmp_path: Path) -> None:
    rare = {"prompt": "which one stands alone in this collection?", "completion": "The subject is rare."}
    summary, rows = make(tmp_path, [*labelled(80), rare])
    assert [row.answer for row in rows["train"] if row.answer == rare["completion"]] == [rare["completion"]]
    (said,) = (note for note in summary["notes"] if "stratified" in note)
    assert "test has no row of 'The subject is rare.'" in said


def test_a_draw_depends_on_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    rows = labelled(120)
    one = {row.prompt[0]["content"] for row in make(tmp_path / "1", rows)[1]["test"]}
    same = {row.prompt[0]["content"] for row in make(tmp_path / "2", rows[::-1])[1]["test"]}
    other = {row.prompt[0]["content"] for row in make(tmp_path / "3", rows, seed=1)[1]["test"]}
    assert one == same != other


def test_validation_rows_of_a_given_training_file_are_stratified(tmp_path: Path) -> None:
    rows = labelled(200)
    files = {
        "mine.train": rows,
        "mine.test": [{**row, "prompt": question(1000 + i)} for i, row in enumerate(rows[::25])],
    }
    _, split = make(tmp_path, files)
    assert len({row.answer for row in split["validation"]}) == 8


def test_answers_that_are_no_labels_are_split_by_the_hash_of_the_prompt_alone(tmp_path: Path) -> None:
    rows = [{"prompt": question(i), "completion": f"it is {question(i + 1000)}"} for i in range(60)]
    summary, split = make(tmp_path, rows)
    assert not any("stratified" in note for note in summary["notes"])
    # the draw of every earlier version, written out: the first fifth in the order of sha256(seed / key of the prompt)
    from sdft_cli.rows.formats import prompt_keys

    ordered = sorted((row["prompt"] for row in rows), key=lambda p: hashlib.sha256(b"0/" + prompt_keys(p)[0]).digest())
    assert {row.prompt[0]["content"] for row in split["test"]} == set(ordered[:12])
    assert {row.prompt[0]["content"] for row in split["validation"]} == set(ordered[12:15])


def test_rows_that_ask_the_same_stay_together(tmp_path: Path) -> None:
    file = [{**row, "id": str(i)} for i, row in enumerate(labelled(160, per=2))]
    for row in file[1::2]:
        row["completion"] = json.dumps(row["completion"])  # the same question with another answer is no repeat
    _, rows = make(tmp_path, file)
    places: dict[str, set[str]] = {}
    for split, examples in rows.items():
        for row in examples:
            places.setdefault(row.prompt[0]["content"].strip(), set()).add(split)
    assert len(places) == 80
    assert all(len(splits) == 1 for splits in places.values())
