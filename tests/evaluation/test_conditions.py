"""Which rows an evaluation takes within its limit, and how that is recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from sdft_cli import plugins
from sdft_cli.evaluation import comparable
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.chat import Chat
from sdft_cli.types import Example, Score, Suite, Task
from tests.support.chat_families import tokenizer


def rows(labels: int, each: int) -> list[Example]:
    """Rows sorted by label."""
    return [
        Example(f"r{i}", [{"role": "user", "content": "two"}], answer=f"label {i // each}")
        for i in range(labels * each)
    ]


def grade(completion: str, example: Example) -> Score:
    return Score(0.0)


OWN = Task("mine", "-", lambda paths, options: None, grade, max_new_tokens=4)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("limit", [16, 60])
def test_a_limit_of_a_sourced_task_has_every_label(limit: int) -> None:
    some = Conditions("prompt", limit).rows(OWN, rows(8, 30))
    assert len(some) == limit
    shares = Counter(row.answer for row in some).values()
    assert len(shares) == 8
    assert max(shares) - min(shares) <= 1


def test_tasks_that_make_their_own_rows_and_suites_have_their_first_ones() -> None:
    examples = rows(8, 30)
    suite = Suite("s", "-", lambda: {"part": examples}, grade)
    for graded in (plugins.TASKS.get("micro-tooluse"), replace(OWN, needs_source=False), suite):
        assert list(Conditions("prompt", 60).rows(graded, examples)) == examples[:60]


def test_how_rows_were_chosen_is_a_setting_where_they_were() -> None:
    chat, examples = Chat(tokenizer("llama-3")), rows(8, 30)
    few = Conditions("prompt", 60).settings(chat, OWN, examples)
    assert few["chosen"] == "from all rows"
    for whole in (None, 240, 500):
        assert "chosen" not in Conditions("prompt", whole).settings(chat, OWN, examples)
    assert "chosen" not in Conditions("prompt", 60).settings(chat, replace(OWN, needs_source=False), examples)
    earlier = {key: value for key, value in few.items() if key != "chosen"}
    (said,) = comparable.differences([("now", {"mine": few}), ("earlier", {"mine": earlier})])
    assert "how the rows within the limit were chosen differs" in said
