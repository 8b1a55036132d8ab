"""``sdft prepare``: raw sources in, dataset folders out; everything is checked before anything is written.

Bad rows of a known source are dropped, listed and counted; above 5 % a task is refused, for then the source is not
what we think it is. In rows of one's own each bad one is refused, unless they are to be dropped. Rows left out by
design (another type of question, placeholders, repeats) are counted apart and never refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sdft_cli.data import deduplicate, hub, lengths
from sdft_cli.data.dataset import ON_BAD_ROW, bad_rows, check_ids, check_target, describe, is_filtered, write_dataset
from sdft_cli.data.hub import Sources
from sdft_cli.errors import UsageError, choose
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.tasks import _resolve
from sdft_cli.tasks._resolve import Sourced
from sdft_cli.types import Dropped, Prepared, PrepareOptions, Task

#: What shows a demonstration where the sources have none: nothing, the gold answer, or (set here) a teacher.
DEMONSTRATIONS = ("source", "answer", "teacher")
MAX_DROPPED = 0.05


def prepare(
    tasks: list[str],
    sources: Sources,
    data: Path,
    options: PrepareOptions,
    on_bad_row: str | None = None,
    teacher: TeacherOptions | None = None,
    columns: dict[str, Path] | None = None,
    model: str | None = None,
) -> list[dict[str, Any]]:
    """Make ``data/<task>/`` for every task and return a summary of each, in the order given.

    A summary holds ``task``, ``folder``, ``rows`` (by split), ``with_demonstration`` (train rows), ``dropped`` (every
    bad row as {where, reason, detail}), ``filtered`` (reason -> count), ``notes``, ``source``, ``licence`` and
    ``lengths`` (characters, and tokens where a ``model`` is named). ``columns`` maps tasks of one's own to the TOML
    that names their columns. ``on_bad_row`` is "drop" for known sources and "error" for one's own when not given.
    Raises `UsageError`, with nothing written, for unknown names and options, missing or unreadable sources, any bad
    row with "error", more than 5 % bad rows with "drop", and training rows that ask what a test row asks.
    """
    if teacher:
        options = replace(options, demonstrations="teacher")
    measure = lengths.measure(model)
    with hub.local(sources) as sources:
        made = _made(tasks, sources, data, options, on_bad_row, columns)
        taught = [(source, *_taught(source.task, prepared, data, options, teacher)) for source, prepared in made]
        facts = [extra | {"lengths": measure(prepared)} for _, prepared, extra in taught]
        for source, prepared, _ in taught:
            check_ids(source.task.name, prepared)
        return [
            _write(source, prepared, data, options, extra)
            for (source, prepared, _), extra in zip(taught, facts, strict=True)
        ]


def plan(
    tasks: list[str],
    sources: Sources,
    data: Path,
    options: PrepareOptions,
    teacher: TeacherOptions,
    on_bad_row: str | None = None,
    columns: dict[str, Path] | None = None,
    hand_over: bool = False,
) -> list[dict[str, Any]]:
    """What `prepare` would ask the teacher, a task each: nothing is sent and nothing written (`jobs.plan`), or, to
    ``hand_over``, it is sent as batches that are collected later (`jobs.submit`)."""
    from sdft_cli.llm import jobs

    act = jobs.submit if hand_over else jobs.plan
    options = replace(options, demonstrations="teacher")
    with hub.local(sources) as sources:
        made = _made(tasks, sources, data, options, on_bad_row, columns)
        return [act(source.task, prepared, teacher, data, options.seed) for source, prepared in made]


def print_plans(plans: list[dict[str, Any]]) -> None:
    """The facts of `plan` for people."""
    from sdft_cli.llm import jobs

    for facts in plans:
        print(jobs.submit_text(facts) if "submitted" in facts else jobs.plan_text(facts))


def _made(
    tasks: list[str],
    sources: Sources,
    data: Path,
    options: PrepareOptions,
    on_bad_row: str | None,
    columns: dict[str, Path] | None,
) -> list[tuple[Sourced, Prepared]]:
    """What the tasks make of their sources, checked."""
    _check(options, on_bad_row)
    found = _resolve.resolve(tasks, sources, columns or {})
    for source in found:
        check_target(data / source.task.name)
    made = [(source, source.prepare(options)) for source in found]
    for source, prepared in made:
        check_ids(source.task.name, prepared)
        _judge(source.task, prepared, on_bad_row or ("error" if source.own else "drop"))
    return [(source, _screened(source.task, prepared, options)) for source, prepared in made]


def _screened(task: Task, prepared: Prepared, options: PrepareOptions) -> Prepared:
    """Without repeats and overlaps; a task that makes its own rows knows what it repeats."""
    return deduplicate.screen(task.name, prepared, options, task.question) if task.needs_source else prepared


def _taught(
    task: Task, prepared: Prepared, data: Path, options: PrepareOptions, teacher: TeacherOptions | None
) -> tuple[Prepared, dict[str, Any]]:
    """The rows with what the teacher gives them, if there is one, and what the manifest says of it."""
    if teacher is None:
        return prepared, {}
    from sdft_cli.llm import jobs

    prepared, record = jobs.demonstrate(task, prepared, teacher, data, options.seed)
    return _screened(task, prepared, options), {"teacher": record}


def _check(options: PrepareOptions, on_bad_row: str | None) -> None:
    choices = {
        "--on-bad-row": (on_bad_row or ON_BAD_ROW[0], ON_BAD_ROW),
        "--on-overlap": (options.on_overlap, deduplicate.ON_OVERLAP),
        "--demonstrations": (options.demonstrations, DEMONSTRATIONS),
    }
    for flag, (value, known) in choices.items():
        if value not in known:
            raise choose(f"value for {flag}", value, known)


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


def _write(
    source: Sourced, prepared: Prepared, data: Path, options: PrepareOptions, extra: dict[str, Any]
) -> dict[str, Any]:
    task, folder = source.task, data / source.task.name
    own = {"grader": task.grader, "max_new_tokens": task.max_new_tokens} if source.own else {}
    extra = {"task_note": task.note, **own, "sources": source.hashes(), **extra}
    manifest = write_dataset(folder, task.name, prepared, options, extra)
    bad: list[Dropped] = [d for d in prepared.dropped if not is_filtered(d)]
    same = ("task", "rows", "with_demonstration", "notes", "source", "licence", "lengths")
    return {
        **{name: manifest[name] for name in same},
        "folder": str(folder),
        "dropped": [asdict(d) for d in bad],
        "filtered": manifest["filtered"]["reasons"],
    }


def print_summaries(summaries: list[dict[str, Any]]) -> None:
    """One block a task: rows, what was left out and why, and every bad row by name."""
    for s in summaries:
        rows = ", ".join(f"{n} {split}" for split, n in s["rows"].items())
        print(f"{s['task']}: {rows}; {s['with_demonstration']} train rows have a demonstration -> {s['folder']}")
        for note in s["notes"]:
            print(f"    note: {note}")
        for line in lengths.lines(s["lengths"]):
            print(f"    {line}")
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
