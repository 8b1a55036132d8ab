"""Graders that a dataset of your own can name: ``exact``, ``contains``, ``choice``, ``number``, ``regex``, ``judge``,
``none``.

Each reads the final answer out of a completion (`grading.final_answer`) and compares it with the gold one. The rules
are in files of their own; here is what a grader is, and the table of them. If the gold answer is a list, matching any
entry counts. ``judge`` leaves the verdict to a model (`evaluation.judge`), ``none`` to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sdft_cli.contracts import Contract, score
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading.choices import choice, is_choice
from sdft_cli.grading.code import CODE
from sdft_cli.grading.containment import contains, exact, is_short
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.json_values import JSON_VALUE
from sdft_cli.grading.numbers import is_number, number
from sdft_cli.grading.overlap import EDIT, F1, ROUGE
from sdft_cli.grading.patterns import matching
from sdft_cli.grading.sql import SQL
from sdft_cli.grading.tool_calls import TOOL_CALLS
from sdft_cli.plugins import Room
from sdft_cli.types import Example, Json, Score


def grader(name: str, pattern: str | None = None, given: Mapping[str, Json] | None = None) -> Grader:
    """The grader called ``name``; ``regex`` needs a ``pattern``, and no other takes one. ``given`` is what is stated
    once for all rows, such as a ``dialect`` of SQL. Raises `UsageError`."""
    if name not in GRADERS:
        raise choose("grader", name, tuple(GRADERS))
    chosen = GRADERS[name]
    if (pattern is not None) != (chosen.compiled is not None):
        needs = "needs a pattern" if pattern is None else "takes no pattern"
        raise UsageError(f"grader {name!r} {needs}", "grader = \"regex\" goes with pattern = 'ANSWER: (.*)'")
    if stray := sorted(set(given or {}) - set(chosen.columns)):
        readers = [each.name for each in GRADERS.values() if stray[0] in each.columns]
        raise UsageError(f"grader {name!r} reads no {stray[0]}", f"graders that do: {', '.join(readers) or 'none'}")
    made = chosen.compiled(pattern) if chosen.compiled and pattern is not None else chosen.grade
    return replace(chosen, grade=made, given=given or {})


def suiting(answers: Sequence[str], rows: Sequence[Example] = ()) -> str:
    """The name of the first grader that suits all of the gold ``answers``, or all of the ``rows`` that they belong to;
    ``judge`` if there is no such grader."""
    for each in GRADERS.values():
        if rows and each.suits_rows and each.suits_rows(rows):
            return each.name
        if answers and all(map(each.suits, answers)):
            return each.name
    return JUDGE


# --- the table -------------------------------------------------------------------------------------------------


#: The grader of open answers: the task gets a rubric, by which a judge scores them.
JUDGE = "judge"


def open_answer(completion: str, gold: str) -> Score:
    return Score(None, None, "unscored: an open answer needs a judge (--judge), or a named grader")


def none(completion: str, gold: str) -> Score:
    return Score(None, None, "unscored: the task's grader is none")


_SHIPPED = (
    TOOL_CALLS,
    JSON_VALUE,
    SQL,
    Grader(
        "choice",
        "the final answer begins with the gold letter: B, (B), B. because; an unmarked one may also end with it",
        '"A or B" is read as A where it is marked and as B where it is not; small letters are read as words',
        choice,
        suits=is_choice,
    ),
    Grader(
        "number",
        "the last number of the final answer equals the last one of the gold answer, however written (1,000.0, 3/4)",
        "numbers in words or LaTeX (\\frac) are not read; percent signs and units are ignored",
        number,
        suits=is_number,
    ),
    Grader(
        "contains",
        "the completion contains the words of the gold answer, in order and next to each other",
        "a negated mention counts as right, a paraphrase as wrong",
        contains,
        suits=is_short,
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
        open_answer,
        compiled=matching,
    ),
    ROUGE,
    F1,
    EDIT,
    CODE,
    Grader(
        JUDGE,
        "a judge (--judge MODEL) compares the answer with the gold one, by the columns file's rubric if it has one",
        "without a judge nothing is scored",
        open_answer,
    ),
    Grader(
        "none",
        "nothing is scored, also not by a judge",
        "there is no accuracy to choose settings or to see forgetting by",
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
            "suits_rows": ("rows",),
            "render": ("answer",),
            "ready": (),
        },
        "GRADER = Grader(name, summary, flaws, grade) with Grader from sdft_cli.grading.grader",
        results={"grade": score, "score_row": score},
        makes={"compiled": "grade"},
    ),
    table=GRADERS,
)
