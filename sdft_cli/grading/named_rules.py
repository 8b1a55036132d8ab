"""Graders that a dataset of your own can name: ``exact``, ``contains``, ``choice``, ``number``, ``regex``, ``none``.

Each reads the final answer out of a completion and compares it with the gold one. The final answer is, in this order,
what stands inside the last ``<answer>…</answer>``, inside the last ``\\boxed{…}``, or after the last "answer is" or
"Answer:" on its line; otherwise the whole completion without its thinking. If the gold answer is a list, matching any
entry counts. Judges are not here: they need a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from sdft_cli.contracts import Contract, score
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import task_rules
from sdft_cli.grading.grader import Grade, Grader
from sdft_cli.plugins import Room
from sdft_cli.types import Example, Score


def grader(name: str, pattern: str | None = None) -> Grader:
    """The grader called ``name``; ``regex`` needs a ``pattern``, and no other takes one. Raises `UsageError`."""
    if name not in GRADERS:
        raise choose("grader", name, tuple(GRADERS))
    chosen = GRADERS[name]
    if (pattern is not None) != (chosen.compiled is not None):
        needs = "needs a pattern" if pattern is None else "takes no pattern"
        raise UsageError(f"grader {name!r} {needs}", "grader = \"regex\" goes with pattern = 'ANSWER: (.*)'")
    return replace(chosen, grade=chosen.compiled(pattern)) if chosen.compiled and pattern is not None else chosen


def suiting(answers: Sequence[str], rows: Sequence[Example] = ()) -> str:
    """The name of the first grader that suits all of the gold ``answers``, or all of the ``rows`` that they belong to;
    ``none`` if there is no such grader."""
    for each in GRADERS.values():
        if rows and each.suits_row and all(map(each.suits_row, rows)):
            return each.name
        if answers and all(map(each.suits, answers)):
            return each.name
    return "none"


# --- the final answer ------------------------------------------------------------------------------------------------

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STATED = re.compile(r"\banswer(?:\s+is\b|\s*:)[ \t*]*(\S[^\n]*?)[.*]*[ \t]*$", re.IGNORECASE | re.MULTILINE)


def final_answer(completion: str) -> tuple[str, bool]:
    """The final answer, and whether the completion marks it as such."""
    text = task_rules.strip_thinking(completion)
    for pattern in (_TAGGED, _BOXED, _STATED):
        if answers := pattern.findall(text):
            return answers[-1].strip(), True
    return text.strip(), False


# --- the rules -------------------------------------------------------------------------------------------------------

_LETTER = re.compile(r"\W*([A-Z])(?![^\W_])")
_LONE_LETTER = re.compile(r"\W*([A-Z])(?=[).:,]|\W*$)")
_LAST_LETTER = re.compile(r"(?<![^\W_])([A-Z])\W*\Z")
_GOLD_LETTER = re.compile(r"\(?[A-J]\)?[.:]?")
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s?/\s?\d+)?|(?<!\w)[-+−]?\.\d+"
)
_GOLD_NUMBER = re.compile(r"[$€£]?\s?(?:" + _NUMBER.pattern + r")\s?%?")
#: Two numbers are equal if they differ by at most this share of the gold one: rounding of floats, nothing else.
_SHARE = Fraction(1, 10**9)
#: A gold answer of more words is a text: a right answer hardly ever repeats it word for word.
FEW_WORDS = 8


def exact(completion: str, gold: str) -> Score:
    return task_rules.exact(final_answer(completion)[0], gold)


def choice(completion: str, gold: str) -> Score:
    answer, marked = final_answer(completion)
    letter = _LETTER.match(answer) if marked else _LONE_LETTER.match(answer) or _LAST_LETTER.search(answer)
    return task_rules.exact(letter[1] if letter else None, gold.strip().strip("().:").upper())


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


def matching(pattern: str) -> Grade:
    """The rule of ``regex``; raises `UsageError` for a pattern that is no regular expression."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise UsageError(
            f"pattern {pattern!r} is no regular expression: {error}", "try it with Python's re module"
        ) from error

    def grade(completion: str, gold: str) -> Score:
        matches = list(compiled.finditer(task_rules.strip_thinking(completion)))
        answer = matches[-1][1 if compiled.groups else 0] if matches else None
        return task_rules.exact(answer.strip() if answer else None, gold)

    return grade


def none(completion: str, gold: str) -> Score:
    return Score(None, None, "unscored: an open answer needs a judge (--judge), or a named grader")


_SHIPPED = (
    Grader(
        "choice",
        "the final answer begins with the gold letter: B, (B), B. because; an unmarked one may also end with it",
        '"A or B" is read as A where it is marked and as B where it is not; small letters are read as words',
        choice,
        suits=lambda gold: _GOLD_LETTER.fullmatch(gold.strip()) is not None,
    ),
    Grader(
        "number",
        "the last number of the final answer equals the last one of the gold answer, however written (1,000.0, 3/4)",
        "numbers in words or LaTeX (\\frac) are not read; percent signs and units are ignored",
        number,
        suits=lambda gold: _GOLD_NUMBER.fullmatch(gold.strip()) is not None,
    ),
    Grader(
        "contains",
        "the completion contains the words of the gold answer, in order and next to each other",
        "a negated mention counts as right, a paraphrase as wrong",
        task_rules.containment,
        suits=lambda gold: 0 < len(gold.split()) <= FEW_WORDS,
    ),
    Grader(
        "exact",
        "the final answer is the gold one, white space apart",
        "a right answer inside a sentence is wrong",
        exact,
    ),
    Grader(
        "regex",
        "the last match of a pattern (its first group, if it has one) equals the gold answer, white space apart",
        "it reads only what the pattern foresees",
        none,
        compiled=matching,
    ),
    Grader(
        "none",
        "no rule: an open answer is scored by a judge, if there is one",
        "without a judge nothing is scored",
        none,
    ),
)
#: Every grader by its name, in the order in which `suiting` tries them. `plugins` adds users' own.
GRADERS: dict[str, Grader] = {shipped.name: shipped for shipped in _SHIPPED}
GRADER_ROOM: Room[Grader] = Room(
    "grader",
    Contract(
        (Grader,),
        {
            "grade": ("completion", "gold"),
            "suits": ("gold",),
            "compiled": ("pattern",),
            "score_row": ("completion", "row", "folder"),
            "suits_row": ("row",),
        },
        "GRADER = Grader(name, summary, flaws, grade) with Grader from sdft_cli.grading.grader",
        results={"grade": score, "score_row": score},
        makes={"compiled": "grade"},
    ),
    table=GRADERS,
)
