"""A model on graded examples: sample greedily, grade, keep what was extracted and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sdft_cli.chat import Chat
from sdft_cli.metrics import stratified, wilson
from sdft_cli.recipe import Evaluation, Sampler
from sdft_cli.templates import View
from sdft_cli.types import Example, Rollout, Score, Suite, Task


class Engine(Protocol):
    """What a sampler offers; token ids only (see ``engines/``)."""

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]: ...
    def sync(self) -> int: ...
    def close(self) -> None: ...


def answer(
    engine: Engine,
    chat: Chat,
    examples: Sequence[Example],
    grade: Callable[[str, Example], Score],
    max_new_tokens: int,
    view: View,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One record an example: its completion under ``view`` and the grade. Greedy unless ``sampler`` is given."""
    messages = [view(e) for e in examples]
    prompts = [chat.prompt_ids(m or e.prompt) for m, e in zip(messages, examples, strict=True)]
    rollouts = engine.sample(prompts, sampler or Sampler(), max_new_tokens, seed, greedy=sampler is None)
    return graded(examples, rollouts, chat, grade)


def graded(
    examples: Sequence[Example], rollouts: Sequence[Rollout], chat: Chat, grade: Callable[[str, Example], Score]
) -> list[dict[str, Any]]:
    """One record an example and its completion."""
    return [_record(e, r, chat, grade) for e, r in zip(examples, rollouts, strict=True)]


def _record(example: Example, rollout: Rollout, chat: Chat, grade: Callable[[str, Example], Score]) -> dict[str, Any]:
    text = chat.decode(rollout.ids)
    score = grade(text, example)
    return {
        "id": example.id,
        "value": score.value,
        "extracted": score.extracted,
        "why": score.why,
        **({"extra": score.extra} if score.extra else {}),
        "completion": text,
        "prompt": example.prompt[-1]["content"],
        "answer": example.answer,
        "tokens": len(rollout.ids),
        "finish": rollout.finish,
    }


def summarize(records: Sequence[dict[str, Any]], note: str = "") -> dict[str, Any]:
    """Accuracy with its 95 % Wilson interval over the scored records; unscored ones are counted apart. ``extra`` has
    the means of what the grader scores besides, such as a lenient reading."""
    values = [r["value"] for r in records if r["value"] is not None]
    correct, n = sum(values), len(values)
    extras = {key for r in records for key in r.get("extra", ())}
    return {
        "accuracy": correct / n if n else None,
        "correct": correct,
        "n": n,
        "unscored": len(records) - n,
        "interval": list(wilson(correct, n)) if n else None,
        "mean_tokens": sum(r["tokens"] for r in records) / max(1, len(records)),
        "note": note,
        **({"extra": {key: _mean_of(key, records) for key in sorted(extras)}} if extras else {}),
    }


def _mean_of(key: str, records: Sequence[dict[str, Any]]) -> float:
    """Mean of a grader's second score over the records that have it."""
    found = [r["extra"][key] for r in records if key in r.get("extra", ())]
    return sum(found) / len(found)


Scored = tuple[dict[str, Any], list[dict[str, Any]]]


def score_task(
    engine: Engine, chat: Chat, task: Task, examples: Sequence[Example], max_new_tokens: int | None, view: View
) -> Scored:
    """Summary and records of ``task`` on ``examples``."""
    records = answer(engine, chat, examples, task.grade, max_new_tokens or task.max_new_tokens, view)
    return summarize(records, task.note), records


def score_suite(engine: Engine, chat: Chat, suite: Suite, view: View, limit: int | None = None) -> Scored:
    """Summary and records of a suite: accuracy is the plain mean over its parts (``limit`` examples each)."""
    parts = {name: examples[:limit] for name, examples in suite.parts().items()}
    flat = [(name, e) for name, examples in parts.items() for e in examples]
    records = answer(engine, chat, [e for _, e in flat], suite.grade, suite.max_new_tokens, view)
    for record, (name, _) in zip(records, flat, strict=True):
        record["part"] = name
    scores = {name: summarize([r for r in records if r["part"] == name]) for name in parts}
    known = [s["accuracy"] for s in scores.values() if s["accuracy"] is not None]
    mean = sum(known) / len(known) if known else None
    span = stratified([(s["correct"], s["n"]) for s in scores.values() if s["n"]]) if known else None
    whole = {**summarize(records), "name": suite.name, "accuracy": mean, "interval": list(span) if span else None}
    return {**whole, "parts": scores}, records


def measure(
    engine: Engine,
    chat: Chat,
    tests: Sequence[tuple[Task, Mapping[str, Sequence[Example]]]],
    suite: Suite | None,
    view: View,
    settings: Evaluation,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """``{"tasks": {name: summary}, "suite": summary or None}`` and the records by file name.

    ``tests`` has the rows of a task by split; the summary is that of ``test``, and holds those of other splits by name.
    """
    scores: dict[str, Any] = {"tasks": {}, "suite": None}
    items = {}
    for task, splits in tests:
        found = {}
        for split, examples in splits.items():
            rows, name = examples[: settings.limit], task.name if split == "test" else f"{task.name}-{split}"
            found[split], items[name] = score_task(engine, chat, task, rows, settings.max_new_tokens, view)
        scores["tasks"][task.name] = found.pop("test") | found
    if suite:
        scores["suite"], items[f"suite-{suite.name}"] = score_suite(engine, chat, suite, view, settings.limit)
    return scores, items
