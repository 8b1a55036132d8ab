"""Naming a grader, choosing one for a dataset, and what every rule has in common. The rules' tables: `test_answers`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.named_rules import GRADERS, grader, recur, suiting
from sdft_cli.types import Example, Score


def test_unknown_graders_and_patterns():
    with pytest.raises(UsageError, match="unknown grader 'exactly'") as error:
        grader("exactly")
    assert "did you mean 'exact'" in error.value.hint
    for name, pattern in (("regex", None), ("exact", "a"), ("regex", "(")):
        with pytest.raises(UsageError, match="pattern"):
            grader(name, pattern)


def test_the_best_of_several_gold_answers_counts():
    assert grader("choice")("B", ["A", "B"]).value == 1
    assert grader("contains")("Paree", ["Paris", "Paree"]).value == 1
    assert grader("number")("2", []).value is None
    assert grader("contains")("x", None).value is None
    assert grader("number")("2", ["Paris", "3"]).value == 0, "an answer that cannot be scored does not hide a wrong one"


def test_thinking_is_no_part_of_a_gold_answer():
    gold = "<think>Is it Rome? Is it 5?</think>Paris"
    assert [grader(name)("Paris", gold).value for name in ("exact", "contains", "label")] == [1, 1, 1]
    assert [grader(name)("Rome", gold).value for name in ("exact", "contains", "label")] == [0, 0, 0]
    assert grader("number")("7", "<thinking>2 and 5</thinking>7").value == 1
    assert grader("exact")("x", "<think>never closed").value is None


def test_none_and_judge_score_nothing_by_themselves():
    assert [grader(name)("x", "x").value for name in ("none", "judge")] == [None, None]
    assert "--judge" in grader("judge")("x", "x").why


def test_a_registered_grader_can_be_named_and_chosen(monkeypatch):
    """The registry is the only place that knows graders."""
    yes = Grader("yes", "says yes", "none", lambda text, gold: Score(1.0), suits=lambda gold: gold == "yes, of course")
    monkeypatch.setitem(GRADERS, "yes", yes)
    assert grader("yes")("anything", "x").value == 1
    long = "yes, of course"
    assert suiting([long]) == "contains"  # the first that suits
    monkeypatch.delitem(GRADERS, "contains")
    assert suiting([long, long]) == "yes"


CHOSEN = [
    (["A", "(B)", "C."], "choice"), (["B", "b", "D"], "choice"), (["A. red", "B. blue"], "choice"),
    (["A, C", "B"], "choice"),
    (["1", "-2.5", "$3", "40 %"], "number"), (["1,000", "3/4", "1.2e-3", "12 000"], "number"),
    (["Yes", "no", "No"], "yes-no"), (["true", "False"], "yes-no"), (["是", "否"], "yes-no"),
    (["positive", "negative", "neutral"] * 5, "label"), (["card_lost", "card_lost_or_stolen"] * 3, "label"),
    (["card_lost", "refund_status", "atm_fee"], "label"), (["World", "Sports", "Sci/Tech"] * 20, "label"),
    (["Paris", "1", "A"], "contains"), (["Paris", "London", "Rome"], "contains"), (["北京", "上海"], "contains"),
    (["Paris", "word " * 9], "judge"), ([], "judge"),
    (["这是一个很长的答案，需要评判者来评分，因为没有人会逐字重复它。"], "judge"),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "name"), CHOSEN)
def test_the_grader_that_suits_the_answers(answers, name):
    assert suiting(answers) == name


def test_math_is_chosen_for_formulas_where_it_is_installed():
    pytest.importorskip("math_verify")
    formulas = ["\\frac{3}{4}", "x^2+1", "72", "\\text{Monday}", "(2, \\infty)"]
    assert suiting(formulas) == "math"
    assert suiting([*formulas, "Paris is a city"]) == "contains"


def test_answers_recur_if_they_are_classes():
    assert recur(["a", "b"] * 4) and recur(["x_y", "y_z"])
    assert not recur(["a", "b", "c", "a"]) and not recur(["a"] * 9)


def test_an_option_may_be_named_by_its_text_where_the_row_tells_the_options():
    def value(name: str, completion: str, answer: str, options: list[str]) -> float | None:
        prompt = [{"role": "user", "content": "?"}]
        return GRADERS[name].score(completion, Example("x", prompt, answer=answer, meta={"choices": options})).value

    options = ["E. coli", "Vitamin C", "3.2 mol", "the heart"]
    right = [
        ("E. coli", "A"),
        ("The answer is Vitamin C.", "B"),
        ("heart", "D"),
        ("The answer is 3.2 mol because", "C"),
    ]
    right += [("B", "B"), ("C) 3.2 mol", "C"), ("It is the heart, I think", "D")]
    assert [value("choice", completion, answer, options) for completion, answer in right] == [1] * len(right)
    wrong = [("E. coli or Vitamin C", "A"), ("heart", "A"), ("C", "A"), ("nothing", "A")]
    assert [value("choice", completion, answer, options) for completion, answer in wrong] == [0] * len(wrong)
    classes = ["card lost", "card lost or stolen", "refund"]
    said = "This is card lost or stolen I guess"
    assert [value("label", said, answer, classes) for answer in classes] == [0, 1, 0]
    assert value("label", "The user wants a refund now", "refund", classes) == 1
    assert value("label", "Either refund now or card lost", "refund", classes) == 0


def test_graders_are_listed_in_the_documents():
    text = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    assert [name for name in GRADERS if f"`{name}`" not in text] == []
