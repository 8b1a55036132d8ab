"""Exact match: the demonstration or the gold answer, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from sdft_cli.grading.exact_match import exact_match
from sdft_cli.types import Example

SAID = "The subject of this question is law."


def row(demonstration: Any = None, answer: Any = None) -> Example:
    return Example("x", [{"role": "user", "content": "?"}], demonstration=demonstration, answer=answer)


@pytest.mark.parametrize(
    ("completion", "demonstration", "answer", "expected"),
    [
        (SAID, SAID, "law", True),
        (f"  The subject  of this question is\nlaw {' '}", SAID, "law", True),
        ("law", SAID, "law", True),
        ("law.", SAID, "law", True),
        (f"{SAID} It is about contracts.", SAID, "law", False),  # a rule that looks for the answer is content
        ("Law", SAID, "law", False),
        ("**law**", SAID, "law", False),
        ("", SAID, "law", False),
        ("<think>\nlaw or art?\n</think>\n\nlaw", SAID, "law", True),
        ("<think>\nlaw", SAID, "law", False),
        ("12", None, 12, True),
        ("12 apples", None, 12, False),
        ('{"n": 1, "to": "Turin"}', '{"to": "Turin", "n": 1}', {"to": "Turin", "n": 1}, True),
        ('Here you are: {"n": 1}', '{"n": 1}', {"n": 1}, False),
        ("Tom", None, ["Thomas", "Tom"], True),  # any of several
        ("naïve", "nai\u0308ve", None, True),
        ("hello", [{"role": "assistant", "content": "hello"}], None, True),
        ("anything", [{"role": "assistant", "content": "", "tool_calls": [{}]}], None, None),
        ("anything", None, None, None),
        ("true", None, True, None),
    ],
)
def test_nothing_but_the_answer(completion: str, demonstration: Any, answer: Any, expected: bool | None) -> None:
    assert exact_match(completion, row(demonstration, answer)) is expected
