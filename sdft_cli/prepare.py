"""``sdft prepare``: raw sources in, dataset folders out; everything is checked before anything is written.

Bad rows are dropped, listed and counted; above 5 % a task is refused, for then the source is not what we think it
is. Rows left out by design (another type of question, placeholders, repeats) are counted apart and never refused.
Token lengths are not looked at: that needs a tokenizer and is done before training.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdft_cli import plugins
from sdft_cli.dataset import ON_BAD_ROW, bad_rows, check_ids, check_target, describe, is_filtered, write_dataset
from sdft_cli.errors import UsageError, choose
from sdft_cli.tasks._sources import source_files
from sdft_cli.types import Dropped, Prepared, PrepareOptions, Task

DEMONSTRATIONS = ("source", "answer")
MAX_DROPPED = 0.05


def prepare(
    tasks: list[str],
    sources: dict[str, list[Path]],
    data: Path,
    options: PrepareOptions,
    on_bad_row: str = "drop",
) -> list[dict[str, Any]]:
    """Make ``data/<task>/`` for every task and return a summary of each, in the order given.

    A summary holds ``task``, ``folder``, ``rows`` (by split), ``with_demonstration`` (train rows), ``dropped`` (every
    bad row as {where, reason, detail}), ``filtered`` (reason -> count), ``notes``, ``source`` and ``licence``.
    Raises `UsageError`, with nothing written, for unknown names and options, missing or unreadable sources, any bad
    row with ``on_bad_row="error"``, and more than 5 % bad rows otherwise.
    """
    found = _check(tasks, sources, options, on_bad_row)
    for task in found:
        check_target(data / task.name)
    made = [(task, task.prepare(sources.get(task.name, []), options)) for task in found]
    for task, prepared in made:
        check_ids(task.name, prepared)
        _judge(task, prepared, on_bad_row)
    return [_write(task, prepared, sources.get(task.name, []), data, options) for task, prepared in made]


def _check(tasks: list[str], sources: dict[str, list[Path]], options: PrepareOptions, on_bad_row: str) -> list[Task]:
    """The tasks by name; every complaint that needs no file to be read."""
    if on_bad_row not in ON_BAD_ROW:
        raise choose("value for --on-bad-row", on_bad_row, ON_BAD_ROW)
    if options.demonstrations not in DEMONSTRATIONS:
        raise choose("value for --demonstrations", options.demonstrations, DEMONSTRATIONS)
    if not tasks:
        raise UsageError("no task named", f"--tasks {','.join(plugins.names('task'))}")
    found: list[Task] = [plugins.get("task", name) for name in dict.fromkeys(tasks)]
    if stray := [name for name in sources if name not in {task.name for task in found}]:
        raise UsageError(f"--source is given for {stray[0]!r}, which is not among --tasks {','.join(tasks)}")
    for task in found:
        given = sources.get(task.name, [])
        if task.needs_source and not given:
            raise UsageError(f"task {task.name!r} needs a source", f"--source {task.name}=PATH: {task.source_hint}")
        if given and not task.needs_source:
            raise UsageError(f"task {task.name!r} makes its own rows and takes no --source", "leave it out")
        for path in given:
            source_files(path)
    return found


def _judge(task: Task, prepared: Prepared, on_bad_row: str) -> None:
    """Refuse a task with too many bad rows (any at all with "error")."""
    bad = [d for d in prepared.dropped if not is_filtered(d)]
    total = len(bad) + sum(len(rows) for split, rows in prepared.splits.items() if split != "corpus")
    if bad and on_bad_row == "error":
        raise bad_rows(bad, total, f"task {task.name!r}")
    if len(bad) > MAX_DROPPED * total:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(d.reason for d in bad).most_common())
        raise UsageError(
            f"task {task.name!r}: {len(bad)} of {total} rows are bad, more than {MAX_DROPPED:.0%} ({reasons}); "
            f"the first is {describe(bad[0])}; nothing was written",
            "look at the source: it may be cut off or of another format than it seems",
        )


def _write(task: Task, prepared: Prepared, paths: list[Path], data: Path, options: PrepareOptions) -> dict[str, Any]:
    extra = {"task_note": task.note, "sources": _hashes(paths)}
    folder = data / task.name
    manifest = write_dataset(folder, task.name, prepared, options, extra)
    bad: list[Dropped] = [d for d in prepared.dropped if not is_filtered(d)]
    same = ("task", "rows", "with_demonstration", "notes", "source", "licence")
    return {
        **{name: manifest[name] for name in same},
        "folder": str(folder),
        "dropped": [asdict(d) for d in bad],
        "filtered": manifest["filtered"]["reasons"],
    }


def _hashes(paths: list[Path]) -> list[dict[str, str]]:
    """Name and content hash of every source file, so that a dataset can be traced to what it was made from."""
    files = [item for path in paths for item in source_files(path)]
    return [{"file": name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for name, file in files]


def print_summaries(summaries: list[dict[str, Any]]) -> None:
    """One block a task: rows, what was left out and why, and every bad row by name."""
    for s in summaries:
        rows = ", ".join(f"{n} {split}" for split, n in s["rows"].items())
        print(f"{s['task']}: {rows}; {s['with_demonstration']} train rows have a demonstration -> {s['folder']}")
        for note in s["notes"]:
            print(f"    note: {note}")
        for reason, count in s["filtered"].items():
            print(f"    {count} left out by design: {reason}")
        for row in s["dropped"]:
            print(f"    dropped {describe(Dropped(**row))}")
        if s["dropped"]:
            print(f"    {len(s['dropped'])} bad rows dropped")
        if not s["with_demonstration"] and s["rows"].get("train"):
            print(
                "    hint: no row can teach yet; `--demonstrations answer` renders the gold answers as demonstrations"
            )
