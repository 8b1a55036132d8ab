"""Whether rows can be scored at all, asked of their grader."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdft_cli.config.recipe import Recipe
from sdft_cli.evaluation.scorable import is_judged, lack_of_scores
from sdft_cli.types import Example, Rubric, Score, Task

ROWS = [Example(f"r{k}", [{"role": "user", "content": "why ?"}], f"because {k}", answer=str(k)) for k in range(4)]


def task(grade: Callable[[str, Example], Score], **more) -> Task:
    return Task("support", "x", lambda paths, options: None, grade, **more)


def silent(completion: str, example: Example) -> Score:
    return Score(None, None, "unscored: never")


def test_one_scored_row_is_enough() -> None:
    assert lack_of_scores(task(silent), ROWS) == "never"
    assert lack_of_scores(task(lambda text, row: Score(0.0)), ROWS) == ""
    last = task(lambda text, row: Score(0.0) if row.id == "r3" else silent(text, row))
    assert lack_of_scores(last, ROWS) == "" and lack_of_scores(last, ROWS[:3]) == "never"


@pytest.mark.parametrize("text", ["because 0", "0", ""])
def test_a_grader_may_score_what_it_can_read_and_nothing_else(text: str) -> None:
    """Such as a parser that calls everything it cannot parse unscored."""
    reads = task(lambda completion, row: Score(1.0) if completion == text else silent(completion, row))
    assert lack_of_scores(reads, ROWS[:1]) == ""


def test_rows_without_anything_to_go_by_are_not_scored_by_a_grader_of_gold_answers() -> None:
    def exact(completion: str, row: Example) -> Score:
        return Score(None, None, "unscored: the row has no gold answer") if row.answer is None else Score(0.0)

    bare = [Example("a", ROWS[0].prompt)]
    assert lack_of_scores(task(exact), bare) == "the row has no gold answer" and lack_of_scores(task(exact), ROWS) == ""
    assert lack_of_scores(task(exact), []) == "no row of it is scored"


def test_a_judge_scores_tasks_with_a_rubric() -> None:
    rubric = Rubric("is it right ?", {"YES": (1.0, 1.0), "NO": (0.0, 0.0)})
    assert lack_of_scores(task(silent, rubric=rubric), ROWS, judged=True) == ""
    assert (
        lack_of_scores(task(silent, rubric=rubric), ROWS) == lack_of_scores(task(silent), ROWS, judged=True) == "never"
    )
    assert not is_judged(Recipe())
