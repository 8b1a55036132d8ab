"""Constraints on the form of a completion: each with texts that keep it and texts that break it."""

import pytest

from sdft_cli.grading.constraints import CONSTRAINTS, broken, entries, lists

#: (name, value, texts that keep it, texts that break it)
CASES = (
    ("words", [1, 1], ("Madrid", "Madrid.", "**Madrid**", ' "Madrid" \n'), ("", "It is Madrid", "New York", "...")),
    ("words", [2, 3], ("one two", "one, two - three"), ("one", "one two three four")),
    ("sentences", 2, ("Cats sleep. They play!", "Cats sleep. They play", 'He said "no." She left.'),
     ("Cats sleep.", "One. Two. Three.", "")),
    ("sentences", 1, ("It costs 3.50 in all.", "Really?!"), ("Yes. No.",)),
    ("lines", 2, ("a\nb", "a\n\nb\n"), ("a", "a\nb\nc")),
    ("items", 3, ("apple, pear, fig", "apple, pear and fig.", "1. apple\n2. pear\n3. fig", "- apple\n- pear\n- fig\n"),
     ("apple, pear", "apple, apple, pear", "Here you are:\n- apple\n- pear\n- fig", "")),
    ("among", ["apple", "pear", "cherry", "cherries"], ("Apple, pears", "an apple and a pear", "cherries"),
     ("apple, brick", "Here they are: apple, pear")),
    ("case", "upper", ("SNOW IS WHITE.", "A1"), ("Snow", "12", "")),
    ("case", "lower", ("it is berlin.",), ("it is Berlin", "...")),
    ("starts", "sweet dreams", ("Sweet dreams, child.", '"Sweet dreams!"', "**Sweet dreams**"), ("Good night", "")),
    ("ends", "See you soon.", ("Thanks. See you soon.", "Thanks! See you soon", '"See you soon!"'), ("Soon, Al.",)),
    ("ends", "!", ("How wide!", '"How wide!"'), ("How wide.", "How wide! Indeed")),
    ("without", ["white"], ("Snow is cold.", "It whitens the roof."), ("White snow", "so white.")),
    ("without", ["e", ","], ("a soft dark sky",), ("the sky", "soft, dark")),
    ("mentions", ["cat", "garden"], ("A cat sat in the Garden.",), ("A cat sat.", "The cats like gardens.")),
    ("literal", ["[green]", "[Green]"], ("It is [green].",), ("green", "(green)", "[ green ]")),
    ("only", ["1 2 3"], ("1 2 3", " 1 2 3.\n", '"1 2 3"', "**1 2 3**"), ("1, 2, 3", "Here: 1 2 3", "1 2 3 4")),
    ("pattern", r"-.*\n-.*", ("- a\n- b",), ("- a, - b", "a\nb")),
)  # fmt: skip


@pytest.mark.parametrize(("name", "value", "kept", "not_kept"), CASES)
def test_a_constraint(name: str, value: object, kept: tuple[str, ...], not_kept: tuple[str, ...]) -> None:
    assert [text for text in kept if broken(text, {name: value})] == []
    assert [text for text in not_kept if not broken(text, {name: value})] == []


def test_every_constraint_has_a_case_and_the_first_broken_one_is_named() -> None:
    assert {name for name, *_ in CASES} == set(CONSTRAINTS)
    assert broken("NO, THANKS", {"case": "upper", "words": [1, 1], "ends": "!"}) == "2 words, expected 1"
    with pytest.raises(KeyError):
        broken("text", {"wordz": 1})


def test_entries_of_a_list() -> None:
    assert entries("Red, green, and blue.") == ["red", "green", "blue"]
    assert entries("1) Red\n2) green\n") == ["red", "green"]
    assert entries("*Red*\n\n- green, blue") == ["red", "green, blue"]


@pytest.mark.parametrize(
    "text",
    (
        "apple, fig, pear",
        "The words in order are: apple, fig and pear.",
        "Sure!\n\n1. Apple\n2. Fig\n3. Pear\n\nThat is all.",
        "The sorted list is apple, fig, pear.",
        "Here is the list:\napple, fig, pear",
    ),
)
def test_a_list_is_found_in_what_surrounds_it(text: str) -> None:
    assert ["apple", "fig", "pear"] in list(lists(text))
