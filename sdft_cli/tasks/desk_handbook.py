"""Desk handbook: answer questions about machines from a handbook that nobody else has.

Train and validation ask about every fact in two wordings, test in a third one; ``ood`` reaches a fact through another
one; ``corpus`` has the pages. Graded by mention: right if the completion contains the gold answer's words. Known flaw:
an answer that lists several halls or persons counts as right if the gold one is among them.
"""

from __future__ import annotations

import random

from sdft_cli.desk.handbook import Asked, direct, indirect, machines
from sdft_cli.grading.task_rules import containment
from sdft_cli.tasks._desk import desk_task
from sdft_cli.types import Example, PrepareOptions, Score

VALIDATION_SHARE = 0.1


def splits(options: PrepareOptions) -> dict[str, list[Example]]:
    rng = random.Random(f"desk-handbook/{options.seed}")
    pages = machines(rng)
    asked = [question for page in pages for question in direct(page, held_out=False)]
    rng.shuffle(asked)
    few = round(VALIDATION_SHARE * len(asked))
    return {
        "train": _rows(asked[few:], "train"),
        "validation": _rows(asked[:few], "validation"),
        "test": _rows([question for page in pages for question in direct(page, held_out=True)], "test"),
        "ood": _rows([question for page in pages for question in indirect(page)], "ood"),
        "corpus": [
            Example(f"desk-handbook-corpus-{i}", [], text=page.text, meta={"document": page.name})
            for i, page in enumerate(pages)
        ],
    }


def _rows(asked: list[Asked], split: str) -> list[Example]:
    return [
        Example(
            f"desk-handbook-{split}-{i}",
            [{"role": "user", "content": f"From our handbook: {question.question}"}],
            demonstration=f"The handbook says: {question.answer}.",
            context=question.page,
            answer=question.answer,
        )
        for i, question in enumerate(asked)
    ]


def grade(completion: str, example: Example) -> Score:
    """Right if the gold answer is mentioned."""
    return containment(completion, example.answer)


TASK = desk_task("desk-handbook", "facts about machines from an invented handbook (made up)", splits, grade)
