"""The rules that compare words: ``contains`` and ``exact``."""

from __future__ import annotations

from sdft_cli.grading import task_rules
from sdft_cli.grading.final_answer import final_answer
from sdft_cli.types import Score

#: A gold answer of more words is a text: a right answer hardly ever repeats it word for word.
FEW_WORDS = 8


def contains(completion: str, gold: str) -> Score:
    return task_rules.containment(completion, gold)


def is_short(gold: str) -> bool:
    """Whether a gold answer is short enough to stand in a completion word for word."""
    return 0 < len(gold.split()) <= FEW_WORDS


def exact(completion: str, gold: str) -> Score:
    return task_rules.exact(final_answer(completion)[0], gold)
