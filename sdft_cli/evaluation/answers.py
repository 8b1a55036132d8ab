"""A model's answers to examples: sampled, decoded and graded, one record per completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sdft_cli.config.recipe import Sampler
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.grading.exact_match import exact_match
from sdft_cli.messages import question_text
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import sample_rows
from sdft_cli.runs.records import ItemRecord
from sdft_cli.types import Example, Rollout, Score, Suite, Task

if TYPE_CHECKING:  # torch comes in with it, and reading an evaluation does without
    from sdft_cli.models.engine import Engine

#: Keys of a row's ``meta`` that name the document it shares with other rows; such rows are not independent.
DOCUMENT = ("document", "article", "api")


def answer(
    engine: Engine,
    chat: Chat,
    graded_by: Task | Suite,
    examples: Sequence[Example],
    conditions: Conditions,
    rows: Sequence[int] | None = None,
) -> list[ItemRecord]:
    """One record per example, regardless of ``conditions.limit``. A row that lacks the view gets its plain prompt.
    ``rows`` are the numbers of the examples where they are a part of a larger draw (`Engine.sample`)."""
    conditions = conditions.for_rows(chat, graded_by, examples)
    sampler, tokens = conditions.sampler, conditions.tokens(graded_by)
    prompts = [chat.view_ids(example, conditions.messages(example)) for example in examples]
    rollouts = sample_rows(engine, prompts, sampler or Sampler(), tokens, 0, rows, greedy=sampler is None)
    return graded(examples, rollouts, chat, graded_by.grade)


def draw(
    engine: Engine, chat: Chat, task: Task, examples: Sequence[Example], conditions: Conditions, numbers: range
) -> list[ItemRecord]:
    """Several sampled completions per example, graded, as samples with these ``numbers``.

    They are numbered sample by sample, so the first few of many samples are what a few samples are.
    """
    repeated = [example for example in examples for _ in numbers]
    rows = [number * len(examples) + i for i in range(len(examples)) for number in numbers]
    records = answer(engine, chat, task, repeated, conditions, rows)
    return [{**record, "sample": numbers[i % len(numbers)]} for i, record in enumerate(records)]


def graded(
    examples: Sequence[Example], rollouts: Sequence[Rollout], chat: Chat, grade: Callable[[str, Example], Score]
) -> list[ItemRecord]:
    """One record per example and its completion."""
    return [_record(e, r, chat, grade) for e, r in zip(examples, rollouts, strict=True)]


def _record(example: Example, rollout: Rollout, chat: Chat, grade: Callable[[str, Example], Score]) -> ItemRecord:
    text = chat.decode(rollout.ids)
    score = grade(text, example)
    record: ItemRecord = {
        "id": example.id,
        "value": score.value,
        "extracted": score.extracted,
        "why": score.why,
        "completion": text,
        "prompt": question_text(example.prompt),
        "answer": example.answer,
        "tokens": len(rollout.ids),
        "finish": rollout.finish,
    }
    if (exact := exact_match(text, example)) is not None:
        record["exact"] = exact
    if score.extra:
        record["extra"] = score.extra
    if document := document_of(example):
        record["document"] = document
    return record


def document_of(example: Example) -> str | None:
    """The document that a row is about, if its ``meta`` names one: errors on such rows are correlated."""
    return next((str(example.meta[key]) for key in DOCUMENT if key in example.meta), None)
