"""A model on graded examples: sample greedily, grade, keep what was extracted and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdft_cli.config.recipe import Evaluation, Sampler
from sdft_cli.models import digests
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import Engine
from sdft_cli.models.views import VIEWS, View
from sdft_cli.stats import pass_at_k
from sdft_cli.stats.intervals import stratified, wilson
from sdft_cli.types import Battery, Example, Rollout, Score, Suite, Task

#: What a row's ``meta`` may call the document that it shares with others; such rows are not independent.
DOCUMENT = ("document", "article", "api")
#: How completions for pass@k are drawn, as the SDFT paper does.
PASS_AT = Sampler(temperature=1.0, top_p=0.95)


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
        **_document(example),
        "completion": text,
        "prompt": example.prompt[-1]["content"],
        "answer": example.answer,
        "tokens": len(rollout.ids),
        "finish": rollout.finish,
    }


def _document(example: Example) -> dict[str, str]:
    """The document that a row is about, if its ``meta`` names one: errors of such rows are correlated."""
    return next(({"document": str(example.meta[key])} for key in DOCUMENT if key in example.meta), {})


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


def score_suite(
    engine: Engine, chat: Chat, suite: Suite | Battery, view: View, settings: Evaluation
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and records of a suite: accuracy is the plain mean over its parts (``settings.limit`` items each)."""
    parts = _asked(engine, chat, suite, view, settings) if isinstance(suite, Suite) else _run(engine, suite, settings)
    return summarize_suite(suite.name, parts, "" if isinstance(suite, Suite) else suite.note(settings))


#: By a suite's part, its records and what its summary holds besides what follows from them.
Parts = dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]


def _asked(engine: Engine, chat: Chat, suite: Suite, view: View, settings: Evaluation) -> Parts:
    """All parts of a suite of graded examples in one go."""
    parts = {name: examples[: settings.limit] for name, examples in suite.parts().items()}
    flat = [(name, e) for name, examples in parts.items() for e in examples]
    records = answer(engine, chat, [e for _, e in flat], suite.grade, suite.max_new_tokens, view)
    for record, (name, _) in zip(records, flat, strict=True):
        record["part"] = name
    return {name: ([r for r in records if r["part"] == name], {}) for name in parts}


def _run(engine: Engine, battery: Battery, settings: Evaluation) -> Parts:
    return {part: battery.measure(engine, settings, part) for part in battery.parts(settings)}


def summarize_suite(name: str, parts: Parts, note: str = "") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The suite's summary, which holds those of its ``parts``, and the records of all."""
    records = [record for found, _ in parts.values() for record in found]
    scores = {part: {**summarize(found), **facts} for part, (found, facts) in parts.items()}
    known = [s["accuracy"] for s in scores.values() if s["accuracy"] is not None]
    mean = sum(known) / len(known) if known else None
    # a part whose number is no mean over items has no interval, and then the mean has none
    counts = [(s["correct"], s["n"]) for s in scores.values() if s["accuracy"] is not None]
    span = stratified(counts) if counts and all(n for _, n in counts) else None
    whole = {**summarize(records, note), "name": name, "accuracy": mean, "interval": list(span) if span else None}
    return {**whole, "parts": scores}, records


def measure(
    engine: Engine,
    chat: Chat,
    tests: Sequence[tuple[Task, Mapping[str, Sequence[Example]]]],
    suite: Suite | Battery | None,
    view: str,
    settings: Evaluation,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """``{"tasks": {name: summary}, "suite": summary or None, "settings": {unit: its settings}}``, and the records by
    unit, which is also their file's name.

    ``tests`` has the rows of a task by split; the summary is that of ``test``, and holds those of other splits by name.
    """
    scores: dict[str, Any] = {"tasks": {}, "suite": None, "settings": unit_settings(chat, tests, suite, view, settings)}
    items = {}
    for task, splits in tests:
        found = {}
        for split, examples in splits.items():
            rows, unit = examples[: settings.limit], unit_of(task.name, split)
            found[split], items[unit] = score_task(engine, chat, task, rows, settings.max_new_tokens, VIEWS[view])
        scores["tasks"][task.name] = found.pop("test") | found
    if suite:
        unit = suite_unit(suite.name)
        scores["suite"], items[unit] = score_suite(engine, chat, suite, VIEWS[view], settings)
    return scores, items


def unit_settings(
    chat: Chat,
    tests: Sequence[tuple[Task, Mapping[str, Sequence[Example]]]],
    suite: Suite | Battery | None,
    view: str,
    settings: Evaluation,
) -> dict[str, dict[str, Any]]:
    """The settings of every unit that `measure` would measure."""
    found = {}
    for task, splits in tests:
        longest = settings.max_new_tokens or task.max_new_tokens
        for split, rows in splits.items():
            found[unit_of(task.name, split)] = settings_of(chat, view, settings.limit, longest, rows)
    if isinstance(suite, Battery):
        found[suite_unit(suite.name)] = suite.settings(settings)
    elif suite:
        rows = [example for part in suite.parts().values() for example in part]
        found[suite_unit(suite.name)] = settings_of(chat, view, settings.limit, suite.max_new_tokens, rows)
    return found


def unit_of(task: str, split: str = "test") -> str:
    """The name of what is measured of a task: its own for the test split, with the split's for another one."""
    return task if split == "test" else f"{task}-{split}"


def suite_unit(suite: str) -> str:
    return f"suite-{suite}"


def settings_of(
    chat: Chat, view: str, limit: int | None, max_new_tokens: int, rows: Sequence[Example], decoding: str = "greedy"
) -> dict[str, Any]:
    """Everything in which two evaluations must agree to be compared (`alike`); ``rows`` are those before the limit."""
    return {
        "view": view,
        "thinking": chat.thinking,
        "template": digests.of_chat(chat),
        "shots": 0,
        "decoding": decoding,
        "limit": limit,
        "max_new_tokens": max_new_tokens,
        "data": digests.of_examples(rows),
    }


# --- several completions of each question ------------------------------------------------------------------------


def samples(
    engine: Engine,
    chat: Chat,
    task: Task,
    examples: Sequence[Example],
    max_new_tokens: int,
    view: View,
    first: int,
    count: int,
) -> list[dict[str, Any]]:
    """``count`` drawn completions of every example, graded, as samples number ``first``, ``first + 1``, …

    What is drawn depends on ``first`` and ``count`` alone, so samples may be made in blocks, and a block again.
    """
    found = answer(
        engine, chat, [e for e in examples for _ in range(count)], task.grade, max_new_tokens, view, PASS_AT, first
    )
    return [{**row, "sample": first + i % count} for i, row in enumerate(found)]


def summarize_samples(records: Sequence[dict[str, Any]], ks: Sequence[int]) -> dict[str, Any]:
    """pass@k over questions, with intervals. A completion is right if its value is 1; unscored ones do not count."""
    scored: dict[str, list[bool]] = {}
    for row in records:
        scored.setdefault(row["id"], [])
        if row["value"] is not None:
            scored[row["id"]].append(row["value"] >= 1)
    counts = [(len(found), sum(found)) for found in scored.values()]
    estimates = {k: pass_at_k.mean_pass_at(k, counts) for k in ks}
    return {
        "samples": max((row["sample"] for row in records), default=-1) + 1,
        "questions": len(scored),
        "unscored": sum(row["value"] is None for row in records),
        "values": {str(k): found[0] if found else None for k, found in estimates.items()},
        "intervals": {str(k): list(found[1]) if found else None for k, found in estimates.items()},
        "mean_tokens": sum(row["tokens"] for row in records) / max(1, len(records)),
    }
