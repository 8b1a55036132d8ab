"""Multiple choice: what the answer of a record may mean, and that all rows together decide it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.user_rows import read

from sdft_cli.errors import UsageError
from sdft_cli.rows.formats import BadRow, LeftOut
from sdft_cli.rows.options import gold_of, options_of

ABCD = ["one", "two", "three", "four"]


def asked(*answers: Any, options: list[Any] = ABCD) -> list[dict[str, Any]]:
    return [{"question": f"Which is {i}?", "options": options, "answer": answer} for i, answer in enumerate(answers)]


def letters(folder: Path, *answers: Any, options: list[Any] = ABCD, **columns: Any) -> str:
    return "".join(row.answer for row in read(folder, asked(*answers, options=options), **columns).rows)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["A", "(b)", "C.", " d "], "ABCD"),
        (["one", "TWO", "three.", " four"], "ABCD"),
        (["A) one", "B. two", "(C) three"], "ABC"),
        ([0, 1, 2, 3], "ABCD"),
        (["0", "3"], "AD"),
        ([1.0, 4.0], "AD"),
        ([1, 2, 4], "ABD"),  # a 4 of 4 and never a 0: counted from 1
        ([[0, 1, 0, 0], [1, 0, 0, 0]], "BA"),
        ([["C"], [2, 0][:1] and ["A"]], "CA"),
    ],
    ids=str,
)
def test_an_answer_is_a_letter_a_text_or_an_index(answers: list[Any], expected: str, tmp_path: Path) -> None:
    assert letters(tmp_path, *answers) == expected


def test_numbers_that_may_count_from_0_or_from_1_are_refused_with_the_words_to_say(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        letters(tmp_path, 1, 2, 3)
    assert "column 'answer' holds the numbers 1, 2, 3 of options" in error.value.message
    assert error.value.hint == "say --columns first_index=0, or 1"
    assert letters(tmp_path, 1, 2, 3, first_index=0) == "BCD"
    assert letters(tmp_path, 1, 2, 3, first_index=1) == "ABC"


def test_numbers_that_are_options_are_no_indices(tmp_path: Path) -> None:
    assert letters(tmp_path, "5", "3", options=[3, 5, 7, 9]) == "BA"
    assert letters(tmp_path, "1", "3", options=["3", "1", "2", "0"]) == "BA"


def test_an_index_out_of_range_is_a_bad_row(tmp_path: Path) -> None:
    made = read(tmp_path, asked(0, 1, 2, 3, 7))
    assert [(drop.where, drop.reason) for drop in made.dropped] == [
        ("rows.jsonl:5", "the answer is none of the options")
    ]
    assert made.dropped[0].detail == "'answer' is '7'; 4 options"


def test_rows_of_a_test_set_without_answers_are_left_out(tmp_path: Path) -> None:
    made = read(tmp_path, asked(0, -1, 3, "", None, 2))
    assert [row.answer for row in made.rows] == ["A", "D", "C"]
    assert Counter(drop.reason for drop in made.dropped) == {"filtered: its answer is not given": 3}


def test_the_right_option_is_not_always_first(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is {i}?", "correct_answer": "yes", "support": f"S{i}."}
        | {f"distractor{k}": f"no {k}" for k in (1, 2, 3)}
        for i in range(60)
    ]
    made = read(tmp_path, rows)
    found = Counter(row.answer for row in made.rows)
    assert set(found) == set("ABCD") and max(found.values()) < 30
    assert all(row.meta["choices"]["ABCD".index(row.answer)] == "yes" for row in made.rows)
    assert made.asked[0].startswith("S0.\n\nWhat is 0?\n\nA. ")
    assert any("drawn by question" in note for note in made.notes)
    more = read(tmp_path, [{**rows[0], "question": "Another?"}, *rows])  # no row moves another's options
    assert more.asked[1:] == made.asked


def test_options_whose_first_is_always_right_are_drawn_too(tmp_path: Path) -> None:
    targets = {"choices": ["so", "not", "never"], "labels": [1, 0, 0]}
    made = read(tmp_path, [{"question": f"What if {i}?", "mc1_targets": targets} for i in range(40)])
    assert {row.answer for row in made.rows} == set("ABC")
    assert len(set(letters(tmp_path, *["A"] * 20))) > 1
    assert letters(tmp_path, *["A"] * 7) == "A" * 7  # so few may be chance


@pytest.mark.parametrize(
    ("stored", "texts", "labels"),
    [
        (["x", "y"], ["x", "y"], []),
        ([1, 2.5], ["1", "2.5"], []),
        ({"A": "x", "B": "y", "C": None}, ["x", "y"], ["A", "B"]),
        ({"text": ["x", "y"], "label": ["1", "2"]}, ["x", "y"], ["1", "2"]),
        ([{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], ["x", "y"], ["A", "B"]),
        (["A. x", "B. y"], ["x", "y"], ["A", "B"]),
        ("A) x\nB) y", ["x", "y"], []),
        ("a ) 38 , b ) 27.675", ["38", "27.675"], []),
        ("x|y", ["x", "y"], []),
        ("x\ny", ["x", "y"], []),
        ('["x", "y"]', ["x", "y"], []),
        ("['x', 'it\\'s']", ["x", "it's"], []),
        ('{"A": "x", "B": "y"}', ["x", "y"], ["A", "B"]),
    ],
    ids=str,
)
def test_options_are_read_in_every_form(stored: Any, texts: list[str], labels: list[str]) -> None:
    assert options_of(stored, "options")[:2] == (texts, labels)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ("just words", "options are not a list"),
        (7, "options are not a list"),
        ([], "not two to 26 options"),
        (["x"], "not two to 26 options"),
        (["x", None, "y"], "empty option"),
        ([["x"], ["y"]], "option is not text"),
        ({"text": ["x", "y"], "label": ["A"]}, "malformed options"),
    ],
    ids=str,
)
def test_options_that_cannot_be_read_are_a_bad_row(stored: Any, reason: str) -> None:
    with pytest.raises(BadRow) as bad:
        options_of(stored, "options")
    assert bad.value.reason == reason and "'options'" in bad.value.detail


def test_an_option_that_is_a_letter_is_not_taken_for_a_label() -> None:
    assert gold_of("b", ["b", "a"], [], "answer") == {"text": 0}
    assert gold_of("b", ["b", "a"], ["A", "B"], "answer") == {"label": 1, "text": 0}
    with pytest.raises(LeftOut):
        gold_of(-1, ABCD, [], "answer")


def test_an_explanation_of_the_user_ends_with_the_letter(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ABCD, "answer": "B", "rationale": "It is even."}
    made = read(tmp_path, [row], demonstration="rationale")
    assert made.rows[0].demonstration == "It is even.\n\nAnswer: B"
    assert read(tmp_path, [{**row, "rationale": "The answer is B."}], demonstration="rationale").rows[
        0
    ].demonstration == ("The answer is B.")


def test_columns_of_options_can_be_named(tmp_path: Path) -> None:
    row = {"Frage": "Welche?", "x": "eins", "y": "zwei", "Loesung": "zwei"}
    made = read(tmp_path, [row], prompt="Frage", choices=["x", "y"], answer="Loesung")
    assert (made.rows[0].answer, made.rows[0].meta["choices"]) == ("B", ["eins", "zwei"])
    right = read(tmp_path, [row], prompt="Frage", choices=["x", "y"], answer="y").rows[0]
    assert right.meta["choices"]["AB".index(right.answer)] == "zwei"
    with pytest.raises(UsageError, match="no column says which option is right"):
        read(tmp_path, [{"Frage": "Welche?", "x": "eins", "y": "zwei"}], prompt="Frage", choices=["x", "y"])
