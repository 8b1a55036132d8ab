"""Rejection sampling: a row's demonstration is the first of a teacher's samples that the task's own grader finds right.

The teacher sees the task's own prompt and nothing more (SDFT paper, appendix B.3: up to eight samples, the first whose
final answer matches is kept). Thinking is taken off; a reply that was cut off is no demonstration, right or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sdft_cli.data.dataset import FILTERED
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.llm.types import LENGTH, REFUSED, Outcome, Pursuit, Reply, Request, TeacherOptions
from sdft_cli.types import Dropped, Example, Prepared, Task

WRONG, EMPTY, CUT_OFF = "wrong", "empty", "cut off at max_tokens"
REFUSES, UNSCORED, SAME = "refused by the endpoint", "cannot be graded", "same as an earlier sample"
NO_GOLD = f"{FILTERED}no gold answer to grade a teacher's samples by"


class Demonstrations:
    """The train rows that need a demonstration (all of them with ``resample``), and what becomes of them."""

    def __init__(self, task: Task, prepared: Prepared, options: TeacherOptions):
        self.options, self.prepared = options, prepared
        train = prepared.splits.get("train", [])
        needy = [row for row in train if options.resample or row.demonstration is None]
        self.rows = [row for row in needy if row.answer is not None]
        self.ungraded = [row for row in needy if row.answer is None]
        self.kept = len(train) - len(needy)
        self.max_tokens = options.max_tokens or task.max_new_tokens
        self.pursuits = [first_right(row, task, options, self.max_tokens) for row in self.rows]

    @property
    def requests(self) -> tuple[int, int]:
        """The fewest and the most requests that one prompt takes."""
        return 1, -(-self.options.samples // self.options.at_once)

    def done(self, outcomes: Sequence[Outcome]) -> Prepared:
        """The rows with their demonstrations; those that found none are left out, with the reasons."""
        found = {row.id: outcome for row, outcome in zip(self.rows, outcomes, strict=True)}
        bare = {row.id for row in self.ungraded}
        train, dropped = [], [Dropped(row.id, NO_GOLD) for row in self.ungraded]
        for row in self.prepared.splits.get("train", []):
            outcome = found.get(row.id)
            if outcome and not outcome.examples:
                why = ", ".join(f"{n} {reason}" for reason, n in outcome.rejected.most_common())
                dropped.append(Dropped(row.id, f"{FILTERED}no sample of {self.options.samples} was right", why))
            elif row.id not in bare:
                train.append(outcome.examples[0] if outcome else row)
        splits, notes = {**self.prepared.splits, "train": train}, [*self.prepared.notes, *_alike(outcomes)]
        return replace(self.prepared, splits=splits, dropped=[*self.prepared.dropped, *dropped], notes=notes)

    def counts(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """For the manifest: prompts, how many found a right sample and at which one, and why others were rejected."""
        at = Counter(o.accepted_at for o in outcomes if o.accepted_at is not None)
        return {
            "prompts": len(self.rows),
            "accepted": at.total(),
            "accepted_at": [at[number] for number in range(self.options.samples)],
            "none_right": len(self.rows) - at.total(),
            "had_one": self.kept,
        }


def first_right(row: Example, task: Task, options: TeacherOptions, max_tokens: int) -> Pursuit:
    """Ask for up to ``samples`` replies to the row's own prompt, ``at_once`` in a request, until one is right."""
    outcome, seen = Outcome(), set[str]()
    for first in range(0, options.samples, options.at_once):
        numbers = tuple(range(first, min(first + options.at_once, options.samples)))
        replies = yield Request(row.prompt, options.temperature, max_tokens, options.send, numbers)
        outcome.count(replies)
        for number, reply in zip(numbers, replies, strict=True):
            text = strip_thinking(reply.text).strip()
            if (why := _rejected(reply, text, row, task)) is None:
                shown = replace(row, demonstration=text, meta={**row.meta, "sample": number})
                outcome.examples, outcome.accepted_at = [shown], number
                return outcome
            outcome.rejected[SAME if why == WRONG and text in seen else why] += 1
            seen.add(text)
            if why in (REFUSES, UNSCORED):  # no other sample would fare better
                return outcome
    return outcome


def _rejected(reply: Reply, text: str, row: Example, task: Task) -> str | None:
    """Why a reply is no demonstration; None if it is one."""
    if reply.finish == REFUSED:
        return REFUSES
    if reply.finish == LENGTH:
        return CUT_OFF
    if not text:
        return EMPTY
    value = task.grade(text, row).value
    return UNSCORED if value is None else None if value == 1.0 else WRONG


def _alike(outcomes: Sequence[Outcome]) -> list[str]:
    """A note where most samples were nothing new: some endpoints take a temperature and do not use it."""
    same, wrong = (sum(outcome.rejected[reason] for outcome in outcomes) for reason in (SAME, WRONG))
    if same <= wrong:
        return []
    return [f"{same} of {same + wrong} wrong samples repeat an earlier one: does the teacher heed the temperature?"]
