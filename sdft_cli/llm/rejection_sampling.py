"""Rejection sampling: a row's demonstration is the first of a teacher's samples that the task's grader finds right.

The teacher sees the task's own prompt and nothing else (SDFT paper, appendix B.3: up to eight samples, the first whose
final answer matches is kept). Thinking is removed; a reply that did not end by itself (cut off, broken off) is never a
demonstration, right or not. A row that the endpoint refuses to answer is left out, with the endpoint's words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sdft_cli.data.completion_limits import tokens_of
from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.manifest import TeacherCounts
from sdft_cli.errors import UsageError
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.llm.types import REFUSED, Exchange, PromptResult, Reply, Request, TeacherOptions, why_no_answer
from sdft_cli.messages import for_endpoint
from sdft_cli.types import Dropped, Example, Prepared, Task

WRONG, EMPTY = "wrong", "empty"
UNSCORED, SAME = "cannot be graded", "same as an earlier sample"
REFUSED_ROW = f"{FILTERED}the endpoint refuses to answer it"
NO_GOLD = f"{FILTERED}no gold answer to grade a teacher's samples by"


class Demonstrations:
    """The train rows that need a demonstration, or all with ``resample``; see `data_generation.DataGeneration`."""

    def __init__(self, task: Task, prepared: Prepared, options: TeacherOptions):
        self.options, self.prepared = options, prepared
        train = prepared.splits.get("train", [])
        needed = [row for row in train if options.resample or row.demonstration is None]
        self.rows = [row for row in needed if row.answer is not None]
        self.ungraded = [row for row in needed if row.answer is None]
        self.kept = len(train) - len(needed)
        if self.rows and task.accept is None:
            raise UsageError(
                f"task {task.name!r}: its grader gives shares between 0 and 1, so it is open which replies are right",
                f"say from which value on: --columns '{task.name}:accept=0.5'",
            )
        self.max_tokens = options.max_tokens or tokens_of(task)
        self.exchanges = [first_right(row, task, options, self.max_tokens) for row in self.rows]

    @property
    def subjects(self) -> list[Example]:
        """The row of each exchange."""
        return self.rows

    @property
    def requests(self) -> tuple[int, int]:
        """The fewest and the most requests that one prompt takes."""
        return 1, -(-self.options.samples // self.options.at_once)

    def apply(self, results: Sequence[PromptResult]) -> Prepared:
        """The rows with their demonstrations; rows without a right sample are left out, with the reasons."""
        by_id = {row.id: result for row, result in zip(self.rows, results, strict=True)}
        ungraded = {row.id for row in self.ungraded}
        train, dropped = [], [Dropped(row.id, NO_GOLD) for row in self.ungraded]
        for row in self.prepared.splits.get("train", []):
            result = by_id.get(row.id)
            if result and not result.examples:
                reasons = ", ".join(f"{n} {reason}" for reason, n in result.rejected.most_common())
                reason = REFUSED_ROW if result.refusal else f"{FILTERED}no sample of {self.options.samples} was right"
                dropped.append(Dropped(row.id, reason, f"{reasons}: {result.refusal}" if result.refusal else reasons))
            elif row.id not in ungraded:
                train.append(result.examples[0] if result else row)
        splits, notes = {**self.prepared.splits, "train": train}, [*self.prepared.notes, *_notes(results)]
        return replace(self.prepared, splits=splits, dropped=[*self.prepared.dropped, *dropped], notes=notes)

    def counts(self, results: Sequence[PromptResult]) -> TeacherCounts:
        """For the manifest: prompts, how many got a right sample and at which one, and how many needed none."""
        accepted_at = Counter(r.accepted_at for r in results if r.accepted_at is not None)
        return {
            "prompts": len(self.rows),
            "accepted": accepted_at.total(),
            "accepted_at": [accepted_at[number] for number in range(self.options.samples)],
            "none_right": len(self.rows) - accepted_at.total(),
            "had_one": self.kept,
        }


def first_right(row: Example, task: Task, options: TeacherOptions, max_tokens: int) -> Exchange:
    """Request up to ``samples`` replies to the row's own prompt, ``at_once`` per request, until one is right."""
    result, earlier = PromptResult(), set[str]()
    extra = {**options.send, "tools": row.tools} if row.tools else options.send
    for first in range(0, options.samples, options.at_once):
        numbers = tuple(range(first, min(first + options.at_once, options.samples)))
        replies = yield Request(for_endpoint(row.prompt), options.temperature, max_tokens, extra, numbers)
        result.add_tokens(replies)
        for number, reply in zip(numbers, replies, strict=True):
            text = strip_thinking(reply.text).strip()
            if (reason := rejection(reply, text, row, task)) is None:
                result.examples = [replace(row, demonstration=text, meta={**row.meta, "sample": number})]
                result.accepted_at = number
                return result
            result.rejected[SAME if reason == WRONG and text in earlier else reason] += 1
            earlier.add(text)
            result.refusal = reply.text if reply.finish == REFUSED else ""
            if reply.finish == REFUSED or reason == UNSCORED:  # no other sample would fare better
                return result
    return result


def rejection(reply: Reply, text: str, row: Example, task: Task) -> str | None:
    """Why a reply cannot be a demonstration; None if it can."""
    if reason := why_no_answer(reply):
        return reason
    if not text:
        return EMPTY
    value = task.grade(text, row).value
    return UNSCORED if value is None else None if value >= (task.accept or 1.0) else WRONG


def _notes(results: Sequence[PromptResult]) -> list[str]:
    """A note if most wrong samples repeat an earlier one: some endpoints accept a temperature and ignore it."""
    same, wrong = (sum(result.rejected[reason] for result in results) for reason in (SAME, WRONG))
    if same <= wrong:
        return []
    return [f"{same} of {same + wrong} wrong samples repeat an earlier one: does the endpoint ignore the temperature?"]
