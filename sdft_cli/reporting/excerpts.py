"""A handful of items before and after training: what was asked, what the model wrote, what the scorer read and said.

Which items are shown is decided by a hash of their id, so not by their looks, and alike for all runs. Items whose score
changed come first. Left out: whole completions beyond `LONGEST` characters; the item files have them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sdft_cli.runs.results import RunResult
from sdft_cli.stats import paired

Row = dict[str, Any]
Items = Mapping[int, Mapping[str, Row]]  # by stage, by id

LONGEST = 1500
#: How many of each kind are shown. From base to end an item is gained, lost or as it was; a forgotten one was still
#: right after its task's own stage.
KINDS = {"gained": 2, "lost": 2, "forgotten": 2, "unscored": 1, "still wrong": 1, "still right": 1}


def excerpts(run: RunResult, longest: int = LONGEST) -> list[Row]:
    """Items of every task and of the suite, as far as these were measured both before training and at the end."""
    first, last = run.matrix[0], run.matrix[-1]
    groups = [
        _group(task, run, task, longest)
        for j, task in enumerate(run.tasks)
        if run.last and first[j] is not None and last[j] is not None
    ]
    if run.last and run.prior and run.prior[0] is not None and run.prior[-1] is not None:
        groups.append(_group(f"suite {run.suite}", run, None, longest))
    return groups


def _group(name: str, run: RunResult, task: str | None, longest: int) -> Row:
    since = run.reference(task) if task else None
    when = {0: "base", **({since: f"after stage {since}"} if since else {}), run.last: f"end (stage {run.last})"}
    items = {k: {r["id"]: r for r in run.items(k, task)} for k in when}
    ids = _by_kind(items, since, run.last)
    found: list[Row] = []
    for kind, most in KINDS.items():
        fresh = sorted(set(ids[kind] or ()) - {row["id"] for row in found}, key=_mixed)
        found += [_excerpt(kind, i, {said: items[k].get(i) for k, said in when.items()}, longest) for i in fresh[:most]]
    counts = {kind: None if of is None else len(of) for kind, of in ids.items()}
    return {"name": name, "counts": counts, "items": found}


def _by_kind(items: Items, since: int | None, last: int) -> dict[str, Sequence[str] | None]:
    """The ids of each of `KINDS`; None of forgotten ones where the last stage taught the task."""
    values = {k: {i: row["value"] for i, row in rows.items()} for k, rows in items.items()}
    gained, lost = paired.changes(values[0], values[last])
    forgotten = paired.changes(values[since], values[last])[1] if since and since != last else None
    scored = [i for i, value in values[last].items() if value is not None and values[0].get(i) is not None]
    same = set(scored) - {*gained, *lost}
    return {
        "gained": gained,
        "lost": lost,
        "forgotten": forgotten,
        "unscored": [i for i, value in values[last].items() if value is None],
        "still wrong": [i for i in same if values[last][i] == 0],
        "still right": [i for i in same if values[last][i] == 1],
    }


def _excerpt(kind: str, identity: str, rows: Mapping[str, Row | None], longest: int) -> Row:
    views = [
        {
            "when": when,
            "value": row["value"],
            "why": text(row.get("why"), longest),
            "extracted": None if row.get("extracted") is None else text(row["extracted"], longest),
            "completion": text(row.get("completion"), longest),
        }
        for when, row in rows.items()
        if row
    ]
    last = next(row for row in reversed(list(rows.values())) if row)
    asked = {"prompt": text(last.get("prompt"), longest), "answer": text(last.get("answer"), longest)}
    return {"kind": kind, "id": identity, **asked, "views": views}


def text(value: Any, longest: int) -> str:
    """Whatever an item line holds as readable text: a prompt's messages one a paragraph, other JSON as JSON."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(m, dict) and "content" in m for m in value):
        value = "\n\n".join(f"{m.get('role', '')}: {m['content']}" for m in value)
    value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(value) <= longest else f"{value[:longest]} … ({len(value)} characters)"


def _mixed(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()
