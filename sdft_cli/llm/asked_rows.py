"""Which rows a teacher is asked about: not those that no reply could win, and no more than the limit.

The rows that are left out are listed and counted like all others that are left out by design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdft_cli.data.dataset import FILTERED, describe
from sdft_cli.data.gold_checks import DEMONSTRATION, GoldChecks, Outcome, place
from sdft_cli.errors import UsageError
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.types import Dropped, Example, Prepared, Task

NOT_ASKED = f"{FILTERED}the teacher was not asked: "
NEEDS_JUDGE = "its gold answer is not graded without a judge"
#: Rows with a demonstration that may show in which form the task's rule reads an answer.
SHOWN = 50
#: With a limit, so many times as many rows are graded at first.
AHEAD = 4


def asked(task: Task, prepared: Prepared, options: TeacherOptions) -> Prepared:
    """``prepared`` without the train rows that need a demonstration and are not asked about, or without the articles
    beyond the limit.

    Raises `UsageError` if rows need a demonstration and no reply to any of them could be found right.
    """
    if prepared.splits.get("corpus") and not prepared.splits.get("train"):
        articles = prepared.splits["corpus"][: options.limit]
        return replace(prepared, splits={**prepared.splits, "corpus": articles})
    train = prepared.splits.get("train", [])
    needed = [row for row in train if row.answer is not None and (options.resample or row.demonstration is None)]
    left_out = _unwinnable(task, train, needed, options.limit)
    if needed and len(left_out) == len(needed):
        raise UsageError(
            f"task {task.name!r}: no reply of a teacher could be found right; the first row is "
            f"{describe(next(iter(left_out.values())))}",
            "check the task's grader and the rows' answers, or give demonstrations of your own",
        )
    beyond = [row for row in needed if row.id not in left_out][options.limit :] if options.limit else []
    left_out |= {row.id: Dropped(place(row), f"{NOT_ASKED}beyond --limit {options.limit}") for row in beyond}
    kept = [row for row in train if row.id not in left_out]
    return replace(prepared, splits={**prepared.splits, "train": kept}, dropped=[*prepared.dropped, *left_out.values()])


def with_all_articles(generated: Prepared, prepared: Prepared) -> Prepared:
    """``generated`` with every article of ``prepared``, also those that nothing was asked about; a note counts them."""
    articles, asked_about = prepared.splits.get("corpus", []), generated.splits.get("corpus", [])
    if len(articles) == len(asked_about):
        return generated
    note = f"--limit: questions were asked about {len(asked_about)} of {len(articles)} articles"
    splits = {**generated.splits, "corpus": articles}
    return replace(generated, splits=splits, notes=[*generated.notes, note])


def _unwinnable(
    task: Task, train: Sequence[Example], needed: Sequence[Example], limit: int | None
) -> dict[str, Dropped]:
    """By id, those of the rows in ``needed`` that no reply could win; with a ``limit``, of so many of the first rows
    that as many others are among them, since grading may be slow."""
    ids = {row.id for row in needed}
    forms = [row for row in train if row.demonstration is not None and row.id not in ids][:SHOWN]
    count = len(needed) if limit is None else AHEAD * limit
    while True:
        outcomes = [o for o in GoldChecks(task, [*needed[:count], *forms]).outcomes() if o.example.id in ids]
        lost = {o.example.id: Dropped(place(o.example), f"{NOT_ASKED}{_why(o)}", o.detail) for o in outcomes if _why(o)}
        if count >= len(needed) or len(outcomes) - len(lost) >= (limit or 0):
            return lost
        count *= AHEAD


def _why(outcome: Outcome) -> str:
    """Why no reply to this row could win; "" if one could."""
    if outcome.needs_judge:
        return NEEDS_JUDGE
    return "" if outcome.reason == DEMONSTRATION else outcome.reason
