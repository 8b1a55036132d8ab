"""Which answers are labels, and rows drawn so that each label has its share."""

from __future__ import annotations

from collections import Counter

import pytest

from sdft_cli.data.labels import Group, drawn, labels_of, subset
from sdft_cli.types import Example


def groups(sizes: dict[str, int], size: int = 1) -> list[Group]:
    """So many groups of every label, in an order that the labels do not follow."""
    return [Group(label, size, f"{i * 7919 % 1000:04}{label}".encode()) for label, n in sizes.items() for i in range(n)]


def count(sizes: dict[str, int], wanted: int, left: int = 0, size: int = 1) -> dict[str, int]:
    each = groups(sizes, size)
    return Counter(each[i].label for i in drawn(each, wanted, left))


@pytest.mark.parametrize(
    ("answers", "are_labels"),
    [
        (["billing", "delivery"] * 10, True),
        ([f"answer {i}" for i in range(40)], False),
        (["yes", "no", None, None] * 10, True),
        (["same"] * 40, False),  # nothing to tell apart
        ([1, 2, 3, 4, 5] * 10, True),  # ratings
        ([str(i % 30) for i in range(300)], False),  # amounts that happen to repeat
        ([f"intent {i % 30}" for i in range(300)], True),
        ([f"intent {i % 30}" for i in range(100)], False),  # three rows each
        ([["a"], ["a", "b"]] * 10, True),
    ],
)
def test_labels_are_few_values_of_many_rows(answers: list, are_labels: bool) -> None:
    assert (labels_of(answers) is not None) == are_labels


def test_shares_are_those_of_largest_remainders() -> None:
    # by hand: 10 of 100 rows are 4.7, 3.4, 1.9 rows; the whole parts are 8, and the remainders .9 and .7 get the rest
    assert count({"a": 47, "b": 34, "c": 19}, 10) == {"a": 5, "b": 3, "c": 2}
    assert sorted(count({"a": 50, "b": 50}, 7).values()) == [3, 4]


@pytest.mark.parametrize("wanted", [8, 11, 12, 60])
def test_every_label_is_there_where_there_is_room_for_all(wanted: int) -> None:
    sizes = {"rare": 3, "other": 9, **{f"label {i}": 30 for i in range(6)}}
    found = count(sizes, wanted, left=1)
    assert found.keys() == sizes.keys()
    assert sum(found.values()) == wanted


def test_fewer_rows_than_labels_are_of_as_many_labels() -> None:
    assert sorted(count({f"label {i}": 20 for i in range(8)}, 5).values()) == [1] * 5


def test_a_group_of_every_label_is_left() -> None:
    assert count({"a": 1, "b": 2, "c": 20}, 100, left=1) == {"b": 1, "c": 19}


def test_groups_are_whole() -> None:
    assert count({"a": 20, "b": 20}, 8, size=3) == {"a": 1, "b": 1}  # two groups of three rows; a third does not fit


def test_a_group_that_does_not_fit_stops_no_smaller_one() -> None:
    each = [Group("a", 9, b"0"), Group("a", 1, b"1"), Group("a", 1, b"2"), Group("b", 1, b"3"), Group("b", 1, b"4")]
    assert drawn(each, 3, left=1) == {1, 2, 3}  # the large group is what is left of its label


def test_a_subset_of_a_sorted_file_has_every_label_in_the_files_order() -> None:
    rows = [Example(f"row-{i}", [], answer=f"label {i // 30}") for i in range(240)]
    some = subset(rows, 60)
    assert sorted(Counter(row.answer for row in some).values()) == [7, 7, 7, 7, 8, 8, 8, 8]
    assert [rows.index(row) for row in some] == sorted(rows.index(row) for row in some)
    assert subset(rows, 240) == rows


def test_a_subset_of_rows_without_labels_is_from_all_over_the_file_and_moves_little() -> None:
    rows = [Example(f"row-{i}", [], answer=f"answer {i}") for i in range(400)]
    some = subset(rows, 40)
    assert len(some) == 40
    quarters = Counter(rows.index(row) // 100 for row in some)
    assert set(quarters) == {0, 1, 2, 3}
    more = subset([*rows, *(Example(f"new-{i}", [], answer=f"new {i}") for i in range(4))], 40)
    assert len({row.id for row in some} & {row.id for row in more}) >= 36
