"""The rule ``number``: equality of numbers, however they are written."""

from __future__ import annotations

import re
from fractions import Fraction

from sdft_cli.grading.final_answer import final_answer
from sdft_cli.types import Score

_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s?/\s?\d+)?|(?<!\w)[-+−]?\.\d+"
)
_GOLD_NUMBER = re.compile(r"[$€£]?\s?(?:" + _NUMBER.pattern + r")\s?%?")
#: Two numbers are equal if they differ by at most this share of the gold one: rounding of floats, nothing else.
_SHARE = Fraction(1, 10**9)


def number(completion: str, gold: str) -> Score:
    expected = _last_number(gold)
    if expected is None:
        return Score(None, None, f"unscored: the gold answer {gold[:40]!r} contains no number")
    given = _last_number(final_answer(completion)[0])
    if given is None:
        return Score(0.0, None, f"no number found; expected {gold.strip()!r}")
    right = abs(given[1] - expected[1]) <= abs(expected[1]) * _SHARE
    return Score(float(right), given[0], "right" if right else f"answered {given[0]}, expected {expected[0]}")


def _last_number(text: str) -> tuple[str, Fraction] | None:
    """The last number in ``text``, as it is written there and as a number; None if there is none."""
    for written in reversed(_NUMBER.findall(text)):
        plain = written.replace(",", "").replace("−", "-")
        try:
            top, _, bottom = plain.partition("/")
            return written.strip(), Fraction(top.strip()) / Fraction(bottom.strip() or 1)
        except (ValueError, ZeroDivisionError):
            continue
    return None


def is_number(gold: str) -> bool:
    """Whether a gold answer is nothing but a number, with a currency or a percent sign at most."""
    return _GOLD_NUMBER.fullmatch(gold.strip()) is not None
