"""The graders that a dataset of your own can name, and how one is chosen where none is named.

Each rule is in a file of its own. Most read the final answer out of a completion (`grading.final_answer`) and compare
it with the gold one. If the gold answer is a list, matching any entry counts. ``judge`` leaves the verdict to a model
(`evaluation.judge`), ``none`` to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sdft_cli.contracts import Contract, score
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading.choices import CHOICE
from sdft_cli.grading.code import CODE
from sdft_cli.grading.containment import CONTAINS
from sdft_cli.grading.exactness import EXACT
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.json_values import JSON_VALUE
from sdft_cli.grading.labels import LABEL
from sdft_cli.grading.mathematics import MATH
from sdft_cli.grading.numbers import NUMBER
from sdft_cli.grading.overlap import EDIT, F1, ROUGE
from sdft_cli.grading.patterns import REGEX
from sdft_cli.grading.polarity import YES_NO
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


def check_ready(rule: Mapping[str, str] | None) -> None:
    """Raise `UsageError` where the grader of a manifest's ``rule`` cannot run on this machine."""
    named = GRADERS.get(rule.get("name", "")) if rule else None
    if named and named.ready:
        named.ready()


def suiting(answers: Sequence[str], rows: Sequence[Example] = ()) -> str:
    """The name of the first grader that suits all of the gold ``answers``, or all of the ``rows`` that they belong to;
    ``judge`` if there is no such grader."""
    for each in GRADERS.values():
        if rows and each.suits_rows and each.suits_rows(rows):
            return each.name
        if answers and all(map(each.suits, answers)) and (not each.recurring or recur(answers)):
            return each.name
    return JUDGE


def recur(answers: Sequence[str]) -> bool:
    """Whether answers are classes: each occurs several times on average, or one is written as a name is (card_lost)."""
    classes = {answer.strip() for answer in answers}
    named = sum("_" in answer for answer in classes) > len(classes) / 2
    return len(answers) >= (1 if named else ROWS_OF_A_CLASS) * len(classes) and len(classes) > 1


#: Answers that recur this often on average are classes.
ROWS_OF_A_CLASS = 4


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
    CHOICE,
    NUMBER,
    MATH,
    YES_NO,
    LABEL,
    CONTAINS,
    EXACT,
    REGEX,
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
