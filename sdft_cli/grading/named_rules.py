"""Graders that a dataset of one's own names: ``exact``, ``contains``, ``choice``, ``number``, ``regex``, ``none``.

Each reads the final answer out of a completion and compares it with the gold one. The final answer is, in this order,
what stands inside the last ``<answer>…</answer>``, inside the last ``\\boxed{…}``, or behind the last "answer is" or
"Answer:" on its line; else the whole completion without its thinking. Where the gold answer is a list, any entry will
do. Judges are not here: they need a model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sdft_cli.contracts import Contract
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import task_rules
from sdft_cli.plugins import Room
from sdft_cli.types import Score

Grade = Callable[[str, Any], Score]

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(r"\banswer(?:\s+is\b|\s*:)[ \t*]*(\S[^\n]*?)[.*]*[ \t]*$", re.IGNORECASE | re.MULTILINE)
_LETTER = re.compile(r"\W*([A-Z])(?![^\W_])")
_LONE_LETTER = re.compile(r"\W*([A-Z])(?=[).:,]|\W*$)")
_LAST_LETTER = re.compile(r"(?<![^\W_])([A-Z])\W*\Z")
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s?/\s?\d+)?|(?<!\w)[-+−]?\.\d+"
)
#: Two numbers are equal if they differ by no more than this share of the gold one: rounding of floats, nothing else.
_SHARE = Fraction(1, 10**9)
#: A gold answer of more words is a text: it is hardly ever said word for word.
FEW_WORDS = 8


def final_answer(completion: str) -> tuple[str, bool]:
    """The final answer, and whether the completion marks it as such."""
    text = task_rules.strip_thinking(completion)
    for pattern in (_TAGGED, _BOXED, _SAID):
        if found := pattern.findall(text):
            return found[-1].strip(), True
    return text.strip(), False


def exact(completion: str, gold: str) -> Score:
    """The final answer is the gold one, white space apart. Flaw: a right answer within a sentence is wrong."""
    return task_rules.exact(final_answer(completion)[0], gold)


def choice(completion: str, gold: str) -> Score:
    """The final answer begins with the gold letter: ``B``, ``(B)``, ``B. because``; one that is not marked may end so.

    Small letters are words, no choices. Flaw: "A or B" says A where it is marked and B where it is not.
    """
    said, marked = final_answer(completion)
    letter = _LETTER.match(said) if marked else _LONE_LETTER.match(said) or _LAST_LETTER.search(said)
    return task_rules.exact(letter[1] if letter else None, gold.strip().strip("().:").upper())


def number(completion: str, gold: str) -> Score:
    r"""The last number of the final answer equals the last one of the gold answer, however it is written (``1,000.0``).

    Fractions count (``3/4``), percent signs and units do not. Flaw: words and LaTeX (``\frac``) are no numbers.
    """
    wanted = _last_number(gold)
    if wanted is None:
        return Score(None, None, f"unscored: the gold answer {gold[:40]!r} holds no number")
    said, _ = final_answer(completion)
    found = _last_number(said)
    if found is None:
        return Score(0.0, None, f"no number found; wanted {gold.strip()!r}")
    right = abs(found[1] - wanted[1]) <= abs(wanted[1]) * _SHARE
    return Score(float(right), found[0], "right" if right else f"said {found[0]}, wanted {wanted[0]}")


def regex(pattern: str) -> Grade:
    """What ``pattern`` finds last (its first group, if it has one) equals the gold answer, white space apart."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise UsageError(f"pattern {pattern!r} is no regular expression: {error}", "try it with Python's re") from error

    def grade(completion: str, gold: str) -> Score:
        found = list(compiled.finditer(task_rules.strip_thinking(completion)))
        said = found[-1][1 if compiled.groups else 0] if found else None
        return task_rules.exact(said.strip() if said else None, gold)

    return grade


def none(completion: str, gold: Any) -> Score:
    return Score(None, None, "unscored: an open answer needs a judge (--judge), or a grader by name")


@dataclass(frozen=True)
class Grader:
    """A rule that a dataset names: ``grade(completion, gold)`` compares a completion with one gold text."""

    name: str
    grade: Grade


_PLAIN = (
    *(Grader("exact", exact), Grader("contains", task_rules.containment), Grader("choice", choice)),
    *(Grader("number", number), Grader("none", none)),
)
#: By name; `plugins.load_file` puts a plug-in's graders in as well. ``regex`` is not here, for it needs a pattern.
PLAIN: dict[str, Grader] = {rule.name: rule for rule in _PLAIN}
GRADER_ROOM = Room(
    "grader",
    Contract(
        (Grader,),
        {"grade": ("completion", "gold")},
        "GRADER = Grader(name, grade) with Grader from sdft_cli.grading.named_rules",
    ),
    table=PLAIN,
)


def grader(name: str, pattern: str | None = None) -> Grade:
    """The grader called ``name``; ``regex`` needs a ``pattern``, and no other takes one. Raises `UsageError`."""
    if name not in (*PLAIN, "regex"):
        raise choose("grader", name, (*PLAIN, "regex"))
    if (pattern is not None) != (name == "regex"):
        raise UsageError("grader 'regex' needs a pattern, and no other takes one", "pattern = 'ANSWER: (.*)'")
    grade = regex(pattern) if pattern is not None else PLAIN[name].grade
    return grade if name == "none" else _any_gold(grade)


def suiting(answers: list[str]) -> str:
    """The grader that goes without saying: all gold answers are letters, numbers or a few words; else ``none``."""
    if not answers:
        return "none"
    if all(re.fullmatch(r"\(?[A-J]\)?[.:]?", a.strip()) for a in answers):
        return "choice"
    if all(re.fullmatch(r"[$€£]?\s?(?:" + _NUMBER.pattern + r")\s?%?", a.strip()) for a in answers):
        return "number"
    return "contains" if all(0 < len(a.split()) <= FEW_WORDS for a in answers) else "none"


def _any_gold(grade: Grade) -> Grade:
    """``grade`` for a gold answer that may be a list of texts, of which the best counts."""

    @functools.wraps(grade)  # `digests.of_grader` finds the file of the rule by it
    def graded(completion: str, gold: Any) -> Score:
        golds = gold if isinstance(gold, list) else [gold]
        texts = [g for g in golds if isinstance(g, str) and g.strip()]
        if not texts:
            return Score(None, None, "unscored: the row has no gold answer in words")
        scores = [grade(completion, text) for text in texts]
        return max(scores, key=lambda score: -1.0 if score.value is None else score.value)

    return graded


def _last_number(text: str) -> tuple[str, Fraction] | None:
    """The last number in ``text`` as it stands there and as a number; None where there is none."""
    for found in reversed(_NUMBER.findall(text)):
        plain = found.replace(",", "").replace("−", "-")
        try:
            top, _, bottom = plain.partition("/")
            return found.strip(), Fraction(top.strip()) / Fraction(bottom.strip() or 1)
        except (ValueError, ZeroDivisionError):
            continue
    return None
