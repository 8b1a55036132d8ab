"""Leaked wording, on texts whose leaks can be seen by eye."""

import pytest

from sdft_cli.evaluation.leakage import leakage, leaked_phrases, own_wording
from sdft_cli.models.views import VIEWS, View
from sdft_cli.types import Example

ROWS = [
    Example(
        f"r{i}",
        [{"role": "user", "content": f"Which subject is this question about?\n\n{text}"}],
        demonstration=f"Subject: {subject}.",
        answer=subject,
    )
    for i, (text, subject) in enumerate([("What is a mole?", "chemistry"), ("Who was Nero?", "history")])
]
PAPER, PLAIN = VIEWS["demonstration"], VIEWS["demonstration-plain"]


def phrases(text: str, view: View = PAPER, **more) -> list[str]:
    found = leaked_phrases([text], ROWS, view, **more)
    assert found is not None
    return found[0]


def test_wording_of_the_view_is_found_and_what_rows_say_is_not() -> None:
    assert phrases("This is a classic example of a history exam.") == ["classic example of"]
    assert phrases("Here is the thinking process: it is about Nero.") == ["the thinking process"]
    assert phrases("A response of your own", PLAIN) == ["a response of your own"]
    assert phrases("Subject: chemistry.") == []  # the demonstration's words
    assert phrases("This question is about history, who was Nero?") == []  # the prompt's
    assert phrases("It is for one of the others, to be with them now.") == []  # function words alone


def test_what_the_model_writes_without_the_view_is_no_leak() -> None:
    assert phrases("My response: history.") == ["my response history"]
    assert phrases("My response: history.", unprompted=["A response would be helpful."]) == []


def test_a_share_of_completions_with_their_most_frequent_phrases() -> None:
    texts = ["An example of history.", "Subject: history.", "One example of art.", "including art, including music"]
    rows = [ROWS[i % 2] for i in range(4)]
    found = leakage(texts, rows, PAPER)
    assert found["share"] == pytest.approx(3 / 4) and found["completions"] == 4
    assert found["phrases"][:2] == ["an example of", "one example of"]  # each counts once a completion
    assert leakage(texts, rows, PLAIN)["share"] == pytest.approx(2 / 4)  # it says nothing of "including"


def test_the_own_wording_leaves_out_what_is_the_rows_own() -> None:
    wording = own_wording(ROWS, PAPER)
    assert wording is not None
    assert {("example",), ("now", "answer", "with")} <= wording
    assert not {("chemistry",), ("nero",), ("this",)} & wording


def test_without_wording_or_completions_there_is_no_share() -> None:
    nothing = View("nothing", "-", lambda example, attempts: None)
    assert leakage(["An example."], ROWS[:1], nothing) == {"share": None, "completions": 1, "phrases": []}
    assert leakage([], ROWS, PAPER)["share"] is None
    assert leakage(["An example."], ROWS[:1], VIEWS["prompt"])["share"] == 0.0  # it adds no word
