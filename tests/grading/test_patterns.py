"""The rule `regex`: which match counts, and that no pattern can hold up a run."""

from __future__ import annotations

import time

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.grading import patterns
from sdft_cli.grading.named_rules import grader


def test_the_last_match_counts_and_its_first_group():
    grade = grader("regex", r"ANSWER: (\w+)")
    completions = ("ANSWER: no\nANSWER: yes", "ANSWER: yes\nANSWER: no", "yes", "")
    assert [grade(text, "yes").value for text in completions] == [1, 0, 0, 0]
    assert grader("regex", "yes|no")("no, yes", "yes").value == 1


def test_a_group_called_answer_counts_and_groups_that_did_not_match_do_not():
    assert grader("regex", r"(Answer|Result): (?P<answer>\w+)")("Result: 7", "7").value == 1
    either = grader("regex", r"A=(\w+)|B=(\w+)")
    assert [either(text, "7").value for text in ("A=7", "B=7", "A=8")] == [1, 1, 0]


def test_a_gold_answer_may_be_written_as_the_completion_is():
    grade = grader("regex", r"ANSWER: (\w+)")
    assert grade("ANSWER: yes", "I see.\nANSWER: yes").value == 1
    assert grade("ANSWER: no", "I see.\nANSWER: yes").value == 0


def test_thinking_is_not_searched_and_spellings_of_unicode_are_equal():
    assert grader("regex", r"ANSWER: (\w+)")("<think>ANSWER: no</think>ANSWER: yes", "yes").value == 1
    assert grader("regex", "x=(.+)")("x=cafe\u0301", "café").value == 1


def test_what_is_no_regular_expression_is_refused():
    for pattern in ("(", "[", "a{2,1}", "(?P<answer>x)(?P<answer>y)(", "*"):
        with pytest.raises(UsageError, match="is no regular expression"):
            grader("regex", pattern)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(x+x+)+y"])
def test_a_catastrophic_pattern_leaves_the_row_unscored(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    text = {"(x+x+)+y": "x" * 5000}.get(pattern, "a" * 5000 + "!")
    began = time.monotonic()
    score = grader("regex", pattern)(text, "b")
    assert time.monotonic() - began < 3
    assert score.value is None and "more than 0.2 s" in score.why


def test_many_catastrophic_rows_cost_little_after_the_first_ones(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    monkeypatch.setattr(patterns, "SECONDS_LOST", 0.3)
    grade = grader("regex", r"(a+)+$")
    began = time.monotonic()
    scores = [grade("a" * 5000 + "!", "b") for _ in range(20)]
    assert time.monotonic() - began < 3
    assert {score.value for score in scores} == {None}
    assert grade("aaa", "aaa").value == 1, "what takes no time is still scored"
