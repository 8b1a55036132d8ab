"""The verbs `data list`, `data stats` and `data show`: what lies in a data folder, for people and for machines.

Everything is read from the datasets; nothing is changed. Lengths are those of a method's views (`sources.lengths`),
in tokens where a model is named. A row is shown as student and teacher will see it, under the model's own chat
template where one is named, else with its roles in brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sdft_cli import console
from sdft_cli.config import locations
from sdft_cli.config.recipe import Views
from sdft_cli.data import lengths
from sdft_cli.data.dataset import MANIFEST, available_splits, read_manifest, read_split
from sdft_cli.errors import UsageError
from sdft_cli.models.views import VIEWS, demonstration_text
from sdft_cli.types import SPLITS, Example, Message, Prepared

#: What a text is shown as: messages, and whether thinking is switched on (None: as the template has it).
Render = Callable[[list[Message], bool | None], str]


def list_datasets(data: Path) -> list[dict[str, Any]]:
    """One entry a finished dataset below ``data``: rows by split, train rows with a demonstration, grader, source."""
    if not data.is_dir():
        raise UsageError(f"no folder at {data}", "make a dataset with: sdft prepare")
    folders = sorted(f for f in data.iterdir() if (f / MANIFEST).is_file())
    return [_entry(folder.name, read_manifest(folder)) for folder in folders]


def stats(data: Path, tasks: Sequence[str], model: str | None, method: str | None) -> list[dict[str, Any]]:
    """`list_datasets` of ``tasks`` (all, where none is named), each with lengths, and what was dropped or left out."""
    measure = lengths.measure(model, method)
    names = list(tasks) or [entry["task"] for entry in list_datasets(data)]
    return [_facts(data / name, measure) for name in names]


def show(
    data: Path, task: str, split: str | None, row: str | None, model: str | None, method: str | None, limit: int = 1
) -> list[dict[str, Any]]:
    """Rows as they will be seen: the one that ``row`` means (an id, or its line from 1), else the first ``limit``.

    Each is {task, split, line, id, student, teacher, demonstration, answer, meta}; a corpus row has ``text`` instead of
    views. Raises `UsageError` for a dataset, split or row that is not there.
    """
    folder = data / task
    read_manifest(folder)
    split = split or next(iter(available_splits(folder)), "train")
    examples, _ = read_split(folder, split, "drop")
    views = lengths.views_of(model, method)
    render = _chat(model) if model else _bracketed
    places = [_place(examples, row, folder, split)] if row else range(min(limit, len(examples)))
    same = {"task": task, "split": split}
    return [same | {"line": i + 1} | _seen(examples[i], views, render) for i in places]


def _entry(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": name,
        "rows": manifest.get("rows", {}),
        "with_demonstration": manifest.get("with_demonstration", 0),
        "grader": (manifest.get("grader") or {}).get("name"),
        "source": manifest.get("source", ""),
        "licence": manifest.get("licence", ""),
    }


def _facts(folder: Path, measure: Callable[[Prepared], lengths.Lengths]) -> dict[str, Any]:
    manifest = read_manifest(folder)
    splits = {split: read_split(folder, split, "drop")[0] for split in available_splits(folder)}
    reasons = {kind: manifest.get(kind, {}).get("reasons", {}) for kind in ("dropped", "filtered")}
    return {
        **_entry(folder.name, manifest),
        "lengths": measure(Prepared(splits)),
        **reasons,
        "notes": manifest["notes"],
    }


def _place(examples: Sequence[Example], row: str, folder: Path, split: str) -> int:
    by_id = next((i for i, e in enumerate(examples) if e.id == row), None)
    if by_id is not None:
        return by_id
    if row.isdecimal() and 1 <= int(row) <= len(examples):
        return int(row) - 1
    hint = f"name an id, such as {examples[0].id}, or a line from 1 to {len(examples)}"
    raise UsageError(f"{folder}/{split}.jsonl has no row {row!r}", hint)


def _seen(example: Example, views: Views, render: Render) -> dict[str, Any]:
    if example.text is not None:
        return {"id": example.id, "text": example.text, "meta": example.meta}
    return {
        "id": example.id,
        "student": _view(example, views.student, views.student_thinking, render),
        "teacher": _view(example, views.teacher, views.teacher_thinking, render),
        "demonstration": demonstration_text(example) or None,
        "answer": example.answer,
        "meta": example.meta,
    }


def _view(example: Example, name: str | None, thinking: bool | None, render: Render) -> str | None:
    """The text of a view; None where there is no such view, or the row holds nothing to show in it."""
    if name and VIEWS[name].needs_attempts:
        return f"(view {name!r} shows completions of the same batch, which there are none of yet)"
    messages = VIEWS[name](example) if name else None
    return render(messages, thinking) if messages else None


def _chat(model: str) -> Render:
    from sdft_cli.models import pretrained

    chat = pretrained.load_chat(locations.locate(model))
    return lambda messages, thinking: chat.render(messages, thinking=thinking)


def _bracketed(messages: list[Message], _: bool | None) -> str:
    return "\n".join(f"[{m['role']}]\n{m['content']}" for m in messages)


# --- for people -------------------------------------------------------------------------------------------------------


def print_datasets(entries: Sequence[dict[str, Any]]) -> None:
    """One line a dataset."""
    splits = [s for s in SPLITS if any(s in e["rows"] for e in entries)]
    table = _table("task", *splits, "shown", "grader", "source")
    for e in entries:
        counts = [*(e["rows"].get(split) for split in splits), e["with_demonstration"]]
        table.add_row(e["task"], *map(_count, counts), e["grader"] or "its own", e["source"].partition(" (")[0])
    table.caption = "shown: train rows with a demonstration"
    console.out.print(table)


def print_stats(entries: Sequence[dict[str, Any]]) -> None:
    """A table of lengths a dataset, and below it why rows are not in it."""
    for e in entries:
        found = e["lengths"]
        units = [unit for unit in ("characters", "tokens") if unit in found]
        title = (
            f"{e['task']}: {', '.join(f'{n} {split}' for split, n in e['rows'].items())} (views of {found['method']})"
        )
        table = _table("split", "part", "unit", "p50", "p90", "p99", "max", title=title)
        for split in found["characters"]:
            for part in found["characters"][split]:
                for unit in units:
                    table.add_row(split, part, unit, *(f"{n}" for n in found[unit][split][part].values()))
        console.out.print(table)
        for kind, reasons in (("dropped", e["dropped"]), ("left out by design", e["filtered"])):
            for reason, n in reasons.items():
                print(f"  {n} {kind}: {reason}")
        for note in e["notes"]:
            print(f"  note: {note}")


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Each row's views, one below the other, as they are."""
    for row in rows:
        print(f"=== {row['task']} {row['split']} {row['line']}: {row['id']}")
        for part in ("text", "student", "teacher", "demonstration"):
            if part in row:
                print(f"--- {_HEADS[part]}:\n{row[part] if row[part] is not None else '(nothing)'}")
        if row.get("answer") is not None:
            print(f"--- gold answer: {row['answer']}")
        print(f"--- meta: {row['meta']}\n")


_HEADS = {
    "text": "text", "student": "student sees", "teacher": "teacher sees", "demonstration": "demonstration",
}  # fmt: skip


def _table(*heads: str, title: str = "") -> Table:
    table = Table(
        title=title or None, box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", caption_justify="left"
    )
    for head in heads:
        words = head in ("task", "split", "part", "unit", "grader", "source")
        table.add_column(head, justify="left" if words else "right", overflow="fold")
    return table


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n}"
