"""The rule ``choice``: the letter of an option."""

from __future__ import annotations

import re

from sdft_cli.grading import task_rules
from sdft_cli.grading.final_answer import final_answer
from sdft_cli.types import Score

_LETTER = re.compile(r"\W*([A-Z])(?![^\W_])")
_LONE_LETTER = re.compile(r"\W*([A-Z])(?=[).:,]|\W*$)")
_LAST_LETTER = re.compile(r"(?<![^\W_])([A-Z])\W*\Z")
_GOLD_LETTER = re.compile(r"\(?[A-J]\)?[.:]?")


def choice(completion: str, gold: str) -> Score:
    answer, marked = final_answer(completion)
    letter = _LETTER.match(answer) if marked else _LONE_LETTER.match(answer) or _LAST_LETTER.search(answer)
    return task_rules.exact(letter[1] if letter else None, gold.strip().strip("().:").upper())


def is_choice(gold: str) -> bool:
    """Whether a gold answer is an option's letter."""
    return _GOLD_LETTER.fullmatch(gold.strip()) is not None
