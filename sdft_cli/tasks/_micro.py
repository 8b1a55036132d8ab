"""What the four micro tasks share: drawing rows from a hidden rule, splitting by word order, grading by content.

Every split asks about each key equally often. Train and validation use the training word orders and have no prompt in
common; test uses the held-out word order, so that it measures the rule and not the sentence. The rule depends only on
``options.world``, the rows on world and seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from sdft_cli.errors import SdftError
from sdft_cli.grading import task_rules
from sdft_cli.micro.language import Question, expert, extract
from sdft_cli.micro.rules import RULES, STYLES, Rule, draw_rule, forms
from sdft_cli.types import Example, Prepared, PrepareOptions, Score, Task

SIZES = {"train": 480, "validation": 120, "test": 240}
Prepare = Callable[[list[Path], PrepareOptions], Prepared]
Grade = Callable[[str, Example], Score]
MAX_NEW_TOKENS = 32
SOURCE, LICENCE = "the micro world (made up, sdft_cli.micro)", "Apache-2.0"


def rule_task(skill: str, summary: str, options: int | None = None) -> Task:
    """The task that teaches the hidden rule of ``skill``, a key of `RULES`; a question may name some ``options``."""

    def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
        rule = draw_rule(skill, options.world)
        taken: set[str] = set()
        splits = {split: _draw(skill, split, rule, options, taken) for split in SIZES}
        return Prepared(splits, source=SOURCE, licence=LICENCE)

    return micro_task(f"micro-{skill}", summary, prepare, options=options)


def micro_task(
    name: str, summary: str, prepare: Prepare, grade: Grade | None = None, options: int | None = None
) -> Task:
    return Task(
        name=name,
        summary=summary,
        prepare=prepare,
        grade=grade or stated,
        max_new_tokens=MAX_NEW_TOKENS,
        needs_source=False,
        note="a made-up world: evidence about the code and about how a method works, not about real models",
        options=options,
    )


def stated(completion: str, example: Example) -> Score:
    """Right if the stated answer, in the base model's style or any expert's, is the gold one: only content counts."""
    return task_rules.exact(extract(task_rules.strip_thinking(completion)), example.answer)


def example(name: str, question: Question, rng: random.Random, context: str | None = None) -> Example:
    """``question`` as a dataset row, with a demonstration in one of its task's expert styles."""
    return Example(
        name,
        [{"role": "user", "content": question.prompt}],
        expert(question.answer, rng, STYLES[question.skill]),
        context,
        question.answer,
        meta={"key": question.key},
    )


def _draw(skill: str, split: str, rule: Rule, options: PrepareOptions, taken: set[str]) -> list[Example]:
    """One split, shuffled; asks about every key equally often, and no prompt twice."""
    count, allowed = SIZES[split], forms(skill, test=split == "test")
    rng = random.Random(f"micro-{skill}/{split}/{options.world}/{options.seed}")
    questions = [_fresh(skill, rule, allowed, key, rng, taken) for key in rule for _ in range(count // len(rule))]
    rng.shuffle(questions)
    return [example(f"micro-{skill}-{split}-{i}", question, rng) for i, question in enumerate(questions)]


def _fresh(skill: str, rule: Rule, forms: tuple[int, ...], key: str, rng: random.Random, taken: set[str]) -> Question:
    """A question about ``key`` whose prompt is not in ``taken`` yet; adds it."""
    for _ in range(2000):
        question = RULES[skill](rng, rule, forms, key)
        if question.prompt not in taken:
            taken.add(question.prompt)
            return question
    raise SdftError(f"micro-{skill}: too few different prompts about {key!r}", "add words or word orders")
