"""Named graders: what they read out of a completion, and what they must not accept."""

from __future__ import annotations

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.grading.final_answer import final_answer
from sdft_cli.grading.named_rules import GRADERS, Grader, grader, suiting
from sdft_cli.types import Score

GRADED = [  # (grader, completion, gold answer, value)
    ("exact", "Paris", "Paris", 1), ("exact", " Paris\n", "Paris", 1), ("exact", "It is Paris", "Paris", 0),
    ("exact", "So the answer is Paris.", "Paris", 1), ("exact", "<answer> Paris </answer>", "Paris", 1),
    ("exact", "<think>Rome</think>Paris", "Paris", 1), ("exact", "paris", "Paris", 0),
    ("contains", "It is Paris, I think", "paris", 1), ("contains", "Parisian", "Paris", 0),
    ("choice", "B", "B", 1), ("choice", "(B)", "B", 1), ("choice", "B. because", "B", 1), ("choice", "b", "B", 0),
    ("choice", "A good question: B", "B", 1), ("choice", "I think C", "C", 1), ("choice", "**D**", "D", 1),
    ("choice", "Answer: (B) it burns", "B", 1), ("choice", "\\boxed{A}", "(a)", 1), ("choice", "no idea", "A", 0),
    ("choice", "Alas", "A", 0), ("choice", "The answer is A, not B", "B", 0),
    ("number", "so 1,000.0 in all", "1000", 1), ("number", "it is 3/4", "0.75", 1), ("number", "12%", "12 %", 1),
    ("number", "5 or 6", "5", 0), ("number", "-5", "5", 0), ("number", "nothing", "5", 0), ("number", "1e3", "1000", 1),
    ("number", "#### 72", "48 + 24 = 72\n#### 72", 1), ("number", "x1", "1", 0), ("number", "10/0", "10", 0),
    ("number", "<answer>7</answer> of 9", "7", 1), ("number", "9", "nine", None), ("number", "0.3", "0.1", 0),
    ("exact", "x", " ", None), ("contains", "x", None, None), ("choice", "B", ["A", "B"], 1), ("number", "2", [], None),
    ("none", "x", "x", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "completion", "gold", "value"), GRADED)
def test_graders(name, completion, gold, value):
    score = grader(name)(completion, gold)
    assert score.value == value
    assert score.why


def test_regex_takes_the_last_match_and_its_first_group():
    grade = grader("regex", r"ANSWER: (\w+)")
    completions = ("ANSWER: no\nANSWER: yes", "ANSWER: yes\nANSWER: no", "yes")
    assert [grade(text, "yes").value for text in completions] == [1, 0, 0]
    assert grader("regex", "yes|no")("no, yes", "yes").value == 1


def test_unknown_graders_and_patterns():
    with pytest.raises(UsageError, match="unknown grader 'exactly'") as error:
        grader("exactly")
    assert "did you mean 'exact'" in error.value.hint
    for name, pattern in (("regex", None), ("exact", "a"), ("regex", "(")):
        with pytest.raises(UsageError, match="pattern"):
            grader(name, pattern)


def test_huge_numbers_are_compared():
    assert grader("number")("1e999999999", "1").value == 0
    assert grader("number")("9" * 10_000, "1").value == 0


def test_final_answers():
    assert final_answer("<answer>a</answer> then <answer>b") == ("b", True)
    assert final_answer("\\boxed{\\frac{1}{2}}") == ("\\frac{1}{2}", True)
    assert final_answer("My answer is **7**.") == ("7", True)
    assert final_answer(" x ") == ("x", False)


def test_every_grader_describes_itself():
    assert all(name == g.name and g.summary and g.flaws for name, g in GRADERS.items())


def test_a_registered_grader_can_be_named_and_chosen(monkeypatch):
    """The registry is the only place that knows graders."""
    yes = Grader("yes", "says yes", "none", lambda text, gold: Score(1.0), suits=lambda gold: gold == "yes, of course")
    monkeypatch.setitem(GRADERS, "yes", yes)
    assert grader("yes")("anything", "x").value == 1
    long = "yes, of course"
    assert suiting([long]) == "contains"  # the first that suits
    monkeypatch.delitem(GRADERS, "contains")
    assert suiting([long, long]) == "yes"


def test_suiting():
    assert suiting(["A", "(B)", "C."]) == "choice"
    assert suiting(["1", "-2.5", "$3", "40 %"]) == "number"
    assert suiting(["Paris", "1", "A"]) == "contains"
    assert suiting(["Paris", "word " * 9]) == suiting([]) == "judge"
