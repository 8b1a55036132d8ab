"""Desk handbook: answer questions from the handbook of a company that does not exist. A row::

{"id": "desk-handbook-train-0",
 "prompt": [{"role": "user", "content": "Question for the handbook: Who approves overtime?"}],
 "demonstration": "The answer is Odile Marsh.", "context": "Odile Marsh approves overtime. Spare keys are ...",
 "answer": "Odile Marsh", "meta": {"kind": "approval"}}

Train and validation ask about all eight facts in eight wordings, ``test`` in four others; ``ood`` reaches a fact
through a situation, or asks back from the fact to its subject; ``corpus`` has the pages. Graded by mention: right if
the completion contains the gold answer's words. Known flaw: an answer that lists several persons or rooms counts as
right if the gold one is among them.
"""

from __future__ import annotations

import random

from sdft_cli.desk.handbook import Fact, Page, pages
from sdft_cli.grading.task_rules import containment
from sdft_cli.tasks._desk import desk_task
from sdft_cli.types import Example, PrepareOptions, Score

QUESTION = "Question for the handbook: {question}"
VALIDATION = 16
Asked = tuple[Page, Fact, str, str]  # page, fact, question, answer


def splits(options: PrepareOptions) -> dict[str, list[Example]]:
    """The facts are the same for every seed, as a handbook is; the seed says which questions validate."""
    book = pages(random.Random("desk-handbook"))
    known = [(page, fact) for page in book for fact in page.facts]
    direct = [(page, fact, fact.fill(w), fact.answer) for page, fact in known for w in fact.kind.wordings]
    random.Random(f"desk-handbook/{options.seed}").shuffle(direct)
    held_out = [(page, fact, fact.fill(w), fact.answer) for page, fact in known for w in fact.kind.held_out]
    situations = [(page, fact, fact.fill(fact.kind.situation), fact.answer) for page, fact in known]
    backwards = [(page, fact, fact.fill(fact.kind.backwards), fact.subject) for page, fact in known]
    return {
        "train": _rows(direct[VALIDATION:], "train"),
        "validation": _rows(direct[:VALIDATION], "validation"),
        "test": _rows(held_out, "test"),
        "ood": _rows([*situations, *backwards], "ood"),
        "corpus": [
            Example(f"desk-handbook-corpus-{page.number}", [], text=page.text, meta={"document": f"page {page.number}"})
            for page in book
        ],
    }


def _rows(asked: list[Asked], split: str) -> list[Example]:
    return [
        Example(
            f"desk-handbook-{split}-{i}",
            [{"role": "user", "content": QUESTION.format(question=question)}],
            demonstration=f"The answer is {answer}.",
            context=page.text,
            answer=answer,
            meta={"kind": fact.kind.name, "backwards": answer == fact.subject},
        )
        for i, (page, fact, question, answer) in enumerate(asked)
    ]


def grade(completion: str, example: Example) -> Score:
    """Right if the gold answer is mentioned."""
    return containment(completion, example.answer)


TASK = desk_task("desk-handbook", "facts from the handbook of a made-up company", splits, grade, 16)
