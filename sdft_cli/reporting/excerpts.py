"""Some items before and after training: the prompt, what the model wrote, and how it was graded.

A hash of an item's id decides whether it is shown, so nobody picks them by their looks, and all runs show the same
ones. Items whose score changed come first. Left out: completions beyond `LONGEST` characters, which the item files
have in full.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdft_cli.reporting.groups import Group, labels
from sdft_cli.runs.records import ItemRecord
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import paired

Items = Mapping[int, Mapping[str, ItemRecord]]  # by stage, by id

LONGEST = 1500
#: How many items of each kind are shown. Gained, lost and still right or wrong are from the base model to the end; a
#: forgotten item was right after the last stage that trained its task.
KINDS = {"gained": 2, "lost": 2, "forgotten": 2, "unscored": 1, "still wrong": 1, "still right": 1}
#: Of more runs than this, only the first of each method is shown.
FEW_RUNS = 4


@dataclass(frozen=True)
class Answer:
    """One completion of an item and its grade. ``stage`` says which model wrote it."""

    stage: str
    value: float | None
    why: str
    extracted: str | None
    completion: str


@dataclass(frozen=True)
class Excerpt:
    """One item, with a completion for each of the stages compared."""

    kind: str
    id: str
    prompt: str
    gold: str
    answers: list[Answer]


@dataclass(frozen=True)
class UnitExcerpts:
    """Items of one task or suite. ``counts`` are all items of each kind; None where the kind does not apply."""

    name: str
    counts: dict[str, int | None]
    items: list[Excerpt]


@dataclass(frozen=True)
class RunExcerpts:
    """Items of one run, under its label in the report."""

    label: str
    units: list[UnitExcerpts]


def excerpts(groups: Sequence[Group]) -> list[RunExcerpts]:
    """Items of every run that has any; of many runs, only of each method's first."""
    return [RunExcerpts(label, units) for label, run in shown_runs(groups) if (units := of_run(run))]


def shown_runs(groups: Sequence[Group]) -> list[tuple[str, RunResult]]:
    """The runs to show completions of, under their labels in the report."""
    runs = [run for group in groups for run in group.runs]
    first = {run.method: run for run in reversed(runs)}
    pairs = zip(labels(groups), runs, strict=True)
    return [(label, run) for label, run in pairs if len(runs) <= FEW_RUNS or first[run.method] is run]


def of_run(run: RunResult, longest: int = LONGEST) -> list[UnitExcerpts]:
    """Items of every task and of the suite that were measured both before training and at the end."""
    first, last = run.matrix[0], run.matrix[-1]
    units = [
        _unit(task, run, task, longest)
        for j, task in enumerate(run.tasks)
        if run.last and first[j] is not None and last[j] is not None
    ]
    if run.last and run.prior and run.prior[0] is not None and run.prior[-1] is not None:
        units.append(_unit(f"suite {run.suite}", run, None, longest))
    return units


def _unit(name: str, run: RunResult, task: str | None, longest: int) -> UnitExcerpts:
    trained = run.reference(task) if task else None
    stages = {
        0: "base",
        **({trained: f"after stage {trained}"} if trained else {}),
        run.last: f"end (stage {run.last})",
    }
    items = {k: {item["id"]: item for item in run.items(k, task)} for k in stages}
    ids = _by_kind(items, trained, run.last)
    chosen: list[Excerpt] = []
    for kind, most in KINDS.items():
        remaining = sorted(set(ids[kind] or ()) - {item.id for item in chosen}, key=hash_of)
        for i in remaining[:most]:
            chosen.append(_excerpt(kind, i, {stage: items[k].get(i) for k, stage in stages.items()}, longest))
    counts = {kind: None if of_kind is None else len(of_kind) for kind, of_kind in ids.items()}
    return UnitExcerpts(name, counts, chosen)


def _by_kind(items: Items, trained: int | None, last: int) -> dict[str, Sequence[str] | None]:
    """The ids of each of `KINDS`; nothing can be forgotten (None) where the last stage trained the task."""
    values = {k: {i: item["value"] for i, item in by_id.items()} for k, by_id in items.items()}
    gained, lost = paired.changes(values[0], values[last])
    forgotten = paired.changes(values[trained], values[last])[1] if trained and trained != last else None
    scored = [i for i, value in values[last].items() if value is not None and values[0].get(i) is not None]
    unchanged = set(scored) - {*gained, *lost}
    return {
        "gained": gained,
        "lost": lost,
        "forgotten": forgotten,
        "unscored": [i for i, value in values[last].items() if value is None],
        "still wrong": [i for i in unchanged if values[last][i] == 0],
        "still right": [i for i in unchanged if values[last][i] == 1],
    }


def _excerpt(kind: str, identity: str, by_stage: Mapping[str, ItemRecord | None], longest: int) -> Excerpt:
    answers = [answer(stage, item, longest) for stage, item in by_stage.items() if item]
    last = next(item for item in reversed(list(by_stage.values())) if item)
    prompt, gold = as_text(last.get("prompt"), longest), as_text(last.get("answer"), longest)
    return Excerpt(kind, identity, prompt, gold, answers)


def answer(stage: str, item: ItemRecord, longest: int) -> Answer:
    """What the model called ``stage`` wrote for an item."""
    extracted = None if item.get("extracted") is None else as_text(item["extracted"], longest)
    completion = as_text(item.get("completion"), longest)
    return Answer(stage, item["value"], as_text(item.get("why"), longest), extracted, completion)


def as_text(value: object, longest: int) -> str:
    """Whatever an item record holds as readable text: a paragraph per message of a prompt, other JSON as JSON."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(m, dict) and "content" in m for m in value):
        value = "\n\n".join(f"{m.get('role', '')}: {m['content']}" for m in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"


def hash_of(identity: str) -> str:
    """What decides which items are shown."""
    return hashlib.sha256(identity.encode()).hexdigest()
