"""Desk triage: name the queue that a customer's message belongs to, in the desk's own scheme of eight queues.

Graded by the queue that the completion names: right if it is the gold one and no other is named. Known flaw: a queue's
name used as an ordinary word ("copper kettle") counts as named; no message of ours does so.
"""

from __future__ import annotations

import random
import re

from sdft_cli.desk.messages import QUEUES, write
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.tasks._desk import desk_task, drawn
from sdft_cli.types import Example, PrepareOptions, Score

QUESTION = "Which queue does this message to our desk go to?\n\n{message}"
_NAMED = re.compile(rf"\b({'|'.join(queue.name for queue in QUEUES)})\b", re.IGNORECASE)


def splits(options: PrepareOptions) -> dict[str, list[Example]]:
    return drawn("desk-triage", _row, options)


def _row(rng: random.Random, split: str, number: int) -> Example:
    queue = QUEUES[number % len(QUEUES)]
    message = write(queue, rng, held_out=split == "test")
    return Example(
        f"desk-triage-{split}-{number}",
        [{"role": "user", "content": QUESTION.format(message=message)}],
        demonstration=f"Queue {queue.name}: {queue.reason}.",
        answer=queue.name,
        meta={"queue": queue.name},
    )


def grade(completion: str, example: Example) -> Score:
    """Right if the gold queue is the only one that is named."""
    named = list(dict.fromkeys(word.lower() for word in _NAMED.findall(strip_thinking(completion))))
    if not named:
        return Score(0.0, None, f"no queue named; expected {example.answer!r}")
    right = named == [example.answer]
    return Score(float(right), ", ".join(named), "right" if right else f"expected {example.answer!r}")


TASK = desk_task("desk-triage", "sort customers' messages into the desk's eight queues (made up)", splits, grade)
