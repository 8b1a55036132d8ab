"""Can rows be scored at all? Asked of the grader itself before anything is sampled, trained or paid for.

A grader may score nothing: that of open answers, which needs a judge, or any grader of rows without a gold answer. It
is tried on what the rows should be answered with, and on an empty answer; one score is enough.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from sdft_cli.config.recipe import Recipe
from sdft_cli.types import Example, Suite, Task

#: What to do about a task that nothing scores.
HINT = "add --judge MODEL, or name a grader of its answers when you prepare it (data/README.md)"
#: Seconds after which no more rows are tried: some graders run code. Then rows count as scorable.
SECONDS = 5.0


def is_judged(recipe: Recipe) -> bool:
    """Whether runs of ``recipe`` have a judge."""
    return recipe.judge.model is not None


def lack_of_scores(graded: Task | Suite, rows: Sequence[Example], judged: bool = False) -> str:
    """Why none of ``rows`` can be scored; empty where one can. ``judged``: a judge scores tasks with a rubric."""
    if judged and isinstance(graded, Task) and graded.rubric:
        return ""
    reason, began = "", time.monotonic()
    for row in rows:
        for text in _answers(graded, row):
            score = graded.grade(text, row)
            if score.value is not None or time.monotonic() - began > SECONDS:
                return ""
            reason = reason or score.why.removeprefix("unscored: ")
    return reason or "no row of it is scored"


def _answers(graded: Task | Suite, row: Example) -> Iterator[str]:
    """Texts that a grader which scores the row at all has a value for."""
    shown = row.demonstration
    yield shown if isinstance(shown, str) else str(shown[-1].get("content") or "") if shown else ""
    if isinstance(graded, Task) and (text := gold_text(graded, row)):
        yield text
    yield ""


def gold_text(task: Task, example: Example) -> str:
    """The gold answer as a completion: as the task renders it, else a text, a number, or the first of several texts;
    empty for any other."""
    answer = example.answer
    if answer is None or isinstance(answer, bool):
        return ""
    if task.render:
        return task.render(answer)
    if isinstance(answer, list) and answer and all(isinstance(each, str) for each in answer):
        answer = answer[0]
    return str(answer).strip() if isinstance(answer, str | int | float) else ""
