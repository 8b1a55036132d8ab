"""``sdft data list``, ``stats`` and ``show``: the datasets in a data folder, for people and for programs.

They only read. Lengths are those of a method's views (`data.lengths`), in tokens too if a model is named. A row is
shown as student and teacher will see it: under the model's chat template if a model is named, else with roles in
brackets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from rich import box
from rich.table import Table

from sdft_cli import console
from sdft_cli.config import model_locations
from sdft_cli.config.recipe import Views
from sdft_cli.data import lengths
from sdft_cli.data.dataset import available_splits, read_split
from sdft_cli.data.manifest import MANIFEST, Grading, Lengths, Manifest, check_manifest, read_manifest
from sdft_cli.data.proof import grading_lines
from sdft_cli.errors import UsageError
from sdft_cli.models.views import VIEWS, demonstration_text, message_text
from sdft_cli.types import SPLITS, Example, Json, Message, Prepared

#: Renders what a view shows of a row as text; the flag switches thinking on or off (None: the template's default).
Render = Callable[[Example, list[Message], bool | None], str]


class Entry(TypedDict):
    """A dataset: rows by split, train rows with a demonstration, grader (None: the task's own), source and licence."""

    task: str
    rows: dict[str, int]
    with_demonstration: int
    grader: str | None
    source: str
    licence: str


class Stats(Entry):
    """An `Entry` with lengths, the counts of dropped and left-out rows by reason, and what `sdft prepare` proved of the
    grader (None: nothing)."""

    lengths: Lengths
    grading: Grading | None
    dropped: dict[str, int]
    filtered: dict[str, int]
    notes: list[str]


class ShownRow(TypedDict):
    """A row as it will be seen; ``line`` counts from 1. A corpus row has ``text``, any other the rest."""

    task: str
    split: str
    line: int
    id: str
    meta: dict[str, Json]
    text: NotRequired[str]
    student: NotRequired[str | None]
    teacher: NotRequired[str | None]
    demonstration: NotRequired[str | None]
    answer: NotRequired[Json]


def list_datasets(data: Path) -> list[Entry]:
    """One entry per finished dataset in ``data``."""
    if not data.is_dir():
        raise UsageError(f"no folder at {data}", "prepare a dataset with: sdft prepare")
    folders = sorted(f for f in data.iterdir() if (f / MANIFEST).is_file())
    return [_entry(folder.name, read_manifest(folder)) for folder in folders]


def stats(data: Path, tasks: Sequence[str], model: str | None, method: str | None) -> list[Stats]:
    """The statistics of ``tasks``, or of all datasets if none is named."""
    measure = lengths.measurer(model, method)
    names = list(tasks) or [entry["task"] for entry in list_datasets(data)]
    return [_stats(data / name, measure) for name in names]


def show(
    data: Path, task: str, split: str | None, row: str | None, model: str | None, method: str | None, limit: int = 1
) -> list[ShownRow]:
    """The row with the id or line number ``row`` (lines count from 1), else the first ``limit`` rows.

    Raises `UsageError` if there is no such dataset, split or row.
    """
    folder = data / task
    check_manifest(folder)
    split = split or next(iter(available_splits(folder)), "train")
    examples, _ = read_split(folder, split, "drop")
    views = lengths.views_of(model, method)
    render = _with_template(model) if model else _with_brackets
    indices: Iterable[int] = [_find(examples, row, folder, split)] if row else range(min(limit, len(examples)))
    return [_shown_row(examples[i], task, split, i + 1, views, render) for i in indices]


def _entry(name: str, manifest: Manifest) -> Entry:
    rule = manifest.get("grader")
    return {
        "task": name,
        "rows": manifest["rows"],
        "with_demonstration": manifest["with_demonstration"],
        "grader": rule["name"] if rule else None,
        "source": manifest["source"],
        "licence": manifest["licence"],
    }


def _stats(folder: Path, measure: Callable[[Prepared], Lengths]) -> Stats:
    manifest = read_manifest(folder)
    splits = {split: read_split(folder, split, "drop")[0] for split in available_splits(folder)}
    return {
        **_entry(folder.name, manifest),
        "lengths": measure(Prepared(splits)),
        "grading": manifest.get("grading"),
        "dropped": manifest["dropped"]["reasons"],
        "filtered": manifest["filtered"]["reasons"],
        "notes": manifest["notes"],
    }


def _find(examples: Sequence[Example], row: str, folder: Path, split: str) -> int:
    """The index of the row with this id or line number."""
    by_id = next((i for i, e in enumerate(examples) if e.id == row), None)
    if by_id is not None:
        return by_id
    if row.isdecimal() and 1 <= int(row) <= len(examples):
        return int(row) - 1
    hint = f"name an id, such as {examples[0].id}, or a line from 1 to {len(examples)}"
    raise UsageError(f"{folder}/{split}.jsonl has no row {row!r}", hint)


def _shown_row(example: Example, task: str, split: str, line: int, views: Views, render: Render) -> ShownRow:
    row: ShownRow = {"task": task, "split": split, "line": line, "id": example.id, "meta": example.meta}
    if example.text is not None:
        return {**row, "text": example.text}
    return {
        **row,
        "student": _view(example, views.student, views.student_thinking, render),
        "teacher": _view(example, views.teacher, views.teacher_thinking, render),
        "demonstration": demonstration_text(example) or None,
        "answer": example.answer,
    }


def _view(example: Example, name: str | None, thinking: bool | None, render: Render) -> str | None:
    """The text of a view; None if there is no such view, or the row lacks what it shows."""
    if name and VIEWS[name].needs_attempts:
        return f"(view {name!r} shows other completions of the same batch, and there is no batch yet)"
    messages = VIEWS[name](example) if name else None
    return render(example, messages, thinking) if messages else None


def _with_template(model: str) -> Render:
    from sdft_cli.models import pretrained

    chat = pretrained.load_chat(model_locations.locate(model))
    return chat.view_text


def _with_brackets(example: Example, messages: list[Message], _: bool | None) -> str:
    tools = [f"[tools]\n{json.dumps(example.tools, ensure_ascii=False)}"] if example.tools else []
    return "\n".join([*tools, *(f"[{m['role']}]\n{message_text(m)}" for m in messages)])


# --- for people -------------------------------------------------------------------------------------------------------


def print_datasets(entries: Sequence[Entry]) -> None:
    """One line per dataset."""
    splits = [s for s in SPLITS if any(s in e["rows"] for e in entries)]
    table = _table("task", *splits, "demos", "grader", "source")
    for e in entries:
        counts = [*(e["rows"].get(split) for split in splits), e["with_demonstration"]]
        table.add_row(e["task"], *map(_count, counts), e["grader"] or "built-in", e["source"].partition(" (")[0])
    table.caption = "demos: train rows with a demonstration"
    console.out.print(table)


def print_stats(entries: Sequence[Stats]) -> None:
    """A table of lengths per dataset, and below it why rows were left out."""
    for e in entries:
        rows = ", ".join(f"{n} {split}" for split, n in e["rows"].items())
        title = f"{e['task']}: {rows} (views of {e['lengths']['method']})"
        table = _table("split", "part", "unit", "p50", "p90", "p99", "max", title=title)
        for split, part, unit, values in _length_rows(e["lengths"]):
            table.add_row(split, part, unit, *map(str, values))
        console.out.print(table)
        for line in grading_lines(e["grading"]):
            print(f"  {line}")
        for kind, reasons in (("dropped", e["dropped"]), ("left out by design", e["filtered"])):
            for reason, n in reasons.items():
                print(f"  {n} {kind}: {reason}")
        for note in e["notes"]:
            print(f"  note: {note}")


def _length_rows(measured: Lengths) -> Iterable[tuple[str, str, str, Iterable[object]]]:
    """(split, part, unit, percentiles), tokens below characters."""
    for split, parts in measured["characters"].items():
        for part, percentiles in parts.items():
            yield split, part, "characters", percentiles.values()
            if "tokens" in measured:
                yield split, part, "tokens", measured["tokens"][split][part].values()


def print_rows(rows: Sequence[ShownRow]) -> None:
    """Each row's views, one below the other, unchanged."""
    for row in rows:
        print(f"=== {row['task']} {row['split']} {row['line']}: {row['id']}")
        if "text" in row:
            print(f"--- text:\n{row['text']}")
        else:
            print(f"--- student sees:\n{_or_none(row['student'])}")
            print(f"--- teacher sees:\n{_or_none(row['teacher'])}")
            print(f"--- demonstration:\n{_or_none(row['demonstration'])}")
        if row.get("answer") is not None:
            print(f"--- gold answer: {row['answer']}")
        print(f"--- meta: {row['meta']}\n")


def _or_none(text: str | None) -> str:
    return "(none)" if text is None else text


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
