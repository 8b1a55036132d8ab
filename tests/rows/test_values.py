"""Values as files hold them: numbers, dates, nothing, and lists that are stored as text."""

from __future__ import annotations

import csv
import datetime
import decimal
from pathlib import Path
from typing import Any

import pytest
from support.user_rows import read, read_path

from sdft_cli.rows.formats import BadRow
from sdft_cli.rows.values import as_text, is_missing, parsed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (7, "7"),
        (1.0, "1"),
        (1.5, "1.5"),
        (2.0**60, "1.152921504606847e+18"),
        (decimal.Decimal("72.50"), "72.50"),
        (decimal.Decimal("1E+3"), "1000"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 10, 30), "2024-05-01 10:30:00"),
        (" x ", " x "),
    ],
    ids=repr,
)
def test_a_value_as_text(value: Any, text: str) -> None:
    assert as_text(value, "answer", "a") == text


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [], {}, " ", None])
def test_what_is_no_text_is_a_bad_row(value: Any) -> None:
    with pytest.raises(BadRow):
        as_text(value, "answer", "a")


def test_what_says_nothing_is_missing() -> None:
    assert all(map(is_missing, (None, float("nan"), "", " \n")))
    assert not any(map(is_missing, (0, 0.0, False, "0", [], {})))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('["a", 1]', ["a", 1]),
        ("['a', \"it's\"]", ["a", "it's"]),
        ("{'a': None}", {"a": None}),
        ("[see below]", "[see below]"),
        ("plain", "plain"),
        (["a"], ["a"]),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_lists_in_text(value: Any, expected: Any) -> None:
    assert parsed(value) == expected


def test_a_table_with_empty_cells(tmp_path: Path) -> None:
    """pandas reads a column of whole numbers with an empty cell as floats, and writes them so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"id": float(i), "question": f"q{i}", "answer": float(i), "context": None if i else "c", "input": float("nan")}
        for i in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    made = read_path(tmp_path / "x.parquet")
    assert [(row.id, row.answer) for row in made.rows] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert made.asked == ["c\n\nq0", "q1", "q2"]
    assert made.rule["name"] == "number"


def test_booleans_in_a_csv_file(tmp_path: Path) -> None:
    rows = [{"passage": "p", "question": f"q{i}", "answer": ("True", "False")[i % 2]} for i in range(4)]
    with (tmp_path / "x.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert [row.answer for row in read_path(tmp_path / "x.csv").rows] == ["yes", "no", "yes", "no"]


def test_labels_that_are_numbers_get_the_names_that_are_given(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 3} for i in range(6)]
    plain = read(tmp_path, rows)
    assert plain.rows[1].answer == "1" and any("labels are numbers" in note for note in plain.notes)
    named = read(tmp_path, rows, labels=["bad", "so-so", "good"])
    assert [row.answer for row in named.rows[:3]] == ["bad", "so-so", "good"]
    assert named.asked[0].endswith("Answer with one of: bad, good, so-so.")
    unknown = read(tmp_path, [*rows, {"text": "t", "label": -1}])
    assert [drop.reason for drop in unknown.dropped] == ["filtered: its label is not given"]


def test_many_labels_are_not_listed_and_texts_are_no_labels(tmp_path: Path) -> None:
    many = read(tmp_path, [{"text": f"t{i}", "label": f"l{i % 50}"} for i in range(200)])
    assert many.asked[0] == "t0\n\nAnswer with the label." and "choices" not in many.rows[0].meta
    texts = read(tmp_path, [{"text": f"t{i}", "label": f"a long text number {i}"} for i in range(200)])
    assert texts.asked[0] == "t0" and texts.rule["name"] not in ("exact", "label")
