"""``sdft prepare``: raw sources in, dataset folders out; everything is checked before anything is written.

Bad rows of a known source are dropped, listed and counted; above 5 % the task is refused, because the source is not
what it seems. In a user's own rows any bad row is an error, unless they are to be dropped. Rows left out by design
(another type of question, placeholders, repeats) are counted apart and are never an error. The gold answers of all rows
are graded (`data.proof`), before a teacher is asked about any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from sdft_cli.data import lengths, proof
from sdft_cli.data.dataset import ON_BAD_ROW, bad_rows, check_ids, check_target, describe, is_filtered, write_dataset
from sdft_cli.data.deduplicate import ON_OVERLAP, deduplicate
from sdft_cli.data.hub import Sources
from sdft_cli.data.manifest import DroppedRow, Grading, Lengths, ManifestExtras
from sdft_cli.errors import UsageError, choose
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.messages import merged_system
from sdft_cli.rows import hub, resolve
from sdft_cli.rows.columns import Columns
from sdft_cli.rows.resolve import SourcedTask
from sdft_cli.types import Dropped, Prepared, PrepareOptions, Task

if TYPE_CHECKING:
    from sdft_cli.llm.batch_generation import Submission
    from sdft_cli.llm.dry_run import DryRun
    from sdft_cli.llm.trial import Trial

#: Where demonstrations come from if the sources have none: nowhere, the gold answer, or (set here) a teacher.
DEMONSTRATIONS = ("source", "answer", "teacher")
MAX_DROPPED = 0.05


class Summary(TypedDict):
    """What was written for one task.

    ``rows`` counts by split, ``with_demonstration`` the train rows that have one, ``filtered`` by reason the rows left
    out by design; ``dropped`` lists every bad row. ``grading`` is None where no row has a gold answer.
    """

    task: str
    folder: str
    rows: dict[str, int]
    with_demonstration: int
    notes: list[str]
    source: str
    licence: str
    lengths: Lengths
    grading: Grading | None
    dropped: list[DroppedRow]
    filtered: dict[str, int]


@dataclass(frozen=True)
class Inputs:
    """What is to be prepared: tasks and their sources, the data folder, and how.

    ``columns`` maps tasks made from a user's own rows to their columns, or to the TOML files that name them.
    ``on_bad_row`` is "drop" for known sources and "error" for a user's own rows unless given. ``licences`` and
    ``notes`` are of sources from the hub, by task.
    """

    tasks: Sequence[str]
    sources: Sources
    data: Path
    options: PrepareOptions
    on_bad_row: str | None = None
    columns: Mapping[str, Path | Columns] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


class _Dataset(NamedTuple):
    """A task's rows before they are written, and further keys of its manifest."""

    source: SourcedTask
    prepared: Prepared
    extra: ManifestExtras

    @property
    def task(self) -> Task:
        return self.source.task


def prepare(
    tasks: Sequence[str],
    sources: Sources,
    data: Path,
    options: PrepareOptions,
    on_bad_row: str | None = None,
    teacher: TeacherOptions | None = None,
    columns: Mapping[str, Path | Columns] | None = None,
    model: str | None = None,
) -> list[Summary]:
    """Write ``data/<task>/`` for every task (see `Inputs`); returns their summaries in the order given.

    A ``teacher`` writes the demonstrations, or the questions about articles, that are missing. With a ``model``,
    lengths are counted in its tokens too. Raises `UsageError`, with nothing written, for unknown names and options,
    missing or unreadable sources, any bad row with "error", more than 5 % bad rows with "drop", training rows that ask
    what a test row asks, and rows none of which can be won.
    """
    measure = lengths.measurer(model)
    options = replace(options, demonstrations="teacher") if teacher else options
    with hub.downloaded(sources) as local:
        inputs = Inputs(tasks, local.sources, data, options, on_bad_row, columns or {}, local.licences, local.notes)
        datasets = [_Dataset(source, prepared, {}) for source, prepared in _read(inputs)]
        if teacher:
            datasets = [_generate(dataset, inputs, teacher) for dataset in datasets]
        datasets = [_proven(dataset, options) for dataset in datasets]
        datasets = [d._replace(extra={**d.extra, "lengths": measure(d.prepared)}) for d in datasets]
        for dataset in datasets:
            check_ids(dataset.task.name, dataset.prepared)
        return [_write(dataset, inputs) for dataset in datasets]


def dry_run(inputs: Inputs, teacher: TeacherOptions) -> list[DryRun]:
    """What `prepare` would ask the teacher for each task; nothing is sent and nothing written."""
    from sdft_cli.llm.dry_run import dry_run as run

    asked = _for_teacher(inputs, teacher)
    return [run(task, prepared, teacher, inputs.data, inputs.options.seed) for task, prepared in asked]


def try_out(inputs: Inputs, teacher: TeacherOptions) -> list[Trial]:
    """Ask the teacher about the first rows of each task, at most ``teacher.limit``, and write nothing but replies."""
    from sdft_cli.llm import trial

    asked = _for_teacher(inputs, teacher)
    return [trial.try_out(task, prepared, teacher, inputs.data, inputs.options.seed) for task, prepared in asked]


def submit(inputs: Inputs, teacher: TeacherOptions) -> list[Submission]:
    """Submit what `prepare` would ask the teacher as batches, to be collected later."""
    from sdft_cli.llm import batch_generation

    return [
        batch_generation.submit(task, prepared, teacher, inputs.data, inputs.options.seed)
        for task, prepared in _for_teacher(inputs, teacher)
    ]


def _for_teacher(inputs: Inputs, teacher: TeacherOptions) -> list[tuple[Task, Prepared]]:
    """The tasks' rows as a teacher is asked about them."""
    options = replace(inputs.options, demonstrations="teacher")
    with hub.downloaded(inputs.sources) as local:
        read = _read(replace(inputs, sources=local.sources, options=options))
        return [(source.task, _asked(source.task, rows, options, teacher)) for source, rows in read]


def _asked(task: Task, prepared: Prepared, options: PrepareOptions, teacher: TeacherOptions) -> Prepared:
    """The rows as a teacher is asked about them; rows that cannot be won are found before anyone pays for them."""
    from sdft_cli.llm.asked_rows import asked

    if options.on_unwinnable != "keep":
        notes = prepared.notes
        prepared = replace(proof.prove(task, prepared, options.on_unwinnable).prepared, notes=notes)
    return asked(task, prepared, teacher)


def _read(inputs: Inputs) -> list[tuple[SourcedTask, Prepared]]:
    """The rows of every task, checked and de-duplicated."""
    _check(inputs)
    sourced = resolve.resolve(inputs.tasks, inputs.sources, inputs.columns)
    for source in sourced:
        check_target(inputs.data / source.task.name)
    prepared = [(source, _merged(_prepared(source, inputs), inputs.options)) for source in sourced]
    for source, rows in prepared:
        check_ids(source.task.name, rows)
        _check_bad_rows(source.task, rows, inputs.on_bad_row or ("error" if source.from_user_rows else "drop"))
    return [(source, _deduplicated(source.task, rows, inputs.options)) for source, rows in prepared]


def _prepared(source: SourcedTask, inputs: Inputs) -> Prepared:
    """The task's rows, with what is known of their sources."""
    prepared, name = source.prepare(inputs.options), source.task.name
    notes = [*inputs.notes.get(name, ()), *prepared.notes]
    return replace(prepared, licence=inputs.licences.get(name, prepared.licence), notes=notes)


def _merged(prepared: Prepared, options: PrepareOptions) -> Prepared:
    """With system texts before the user's, where that is asked for; a note counts them."""
    if not options.merge_system:
        return prepared
    changed, splits = 0, {}
    for split, rows in prepared.splits.items():
        prompts = [merged_system(row.prompt) for row in rows]
        changed += sum(prompt != row.prompt for prompt, row in zip(prompts, rows, strict=True))
        splits[split] = [replace(row, prompt=prompt) for row, prompt in zip(rows, prompts, strict=True)]
    note = f"--merge-system: in {changed} prompts the system text was put before the user's"
    return replace(prepared, splits=splits, notes=[*prepared.notes, note])


def _deduplicated(task: Task, prepared: Prepared, options: PrepareOptions) -> Prepared:
    """Without repeats and overlaps; a task that makes its own rows takes care of that itself."""
    return deduplicate(task.name, prepared, options, task.question) if task.needs_source else prepared


def _generate(dataset: _Dataset, inputs: Inputs, teacher: TeacherOptions) -> _Dataset:
    """The rows with what the teacher writes for them."""
    from sdft_cli.llm import batch_generation, data_generation
    from sdft_cli.llm.asked_rows import with_all_articles

    task, options = dataset.task, inputs.options
    prepared = _asked(task, dataset.prepared, options, teacher)
    if teacher.batch == "collect":
        batch_generation.collect(task, prepared, teacher, inputs.data, options.seed)
    generated, record = data_generation.generate(task, prepared, teacher, inputs.data, options.seed)
    generated = with_all_articles(generated, dataset.prepared)
    return _Dataset(dataset.source, _deduplicated(task, generated, options), {"teacher": record})


def _proven(dataset: _Dataset, options: PrepareOptions) -> _Dataset:
    """With what the task's rule says of the rows' own gold answers."""
    prepared, grading = proof.prove(dataset.task, dataset.prepared, options.on_unwinnable)
    extra: ManifestExtras = {**dataset.extra, "grading": grading} if grading else dataset.extra
    return dataset._replace(prepared=prepared, extra=extra)


def _check(inputs: Inputs) -> None:
    choices = {
        "--on-bad-row": (inputs.on_bad_row or ON_BAD_ROW[0], ON_BAD_ROW),
        "--on-overlap": (inputs.options.on_overlap, ON_OVERLAP),
        "--demonstrations": (inputs.options.demonstrations, DEMONSTRATIONS),
        "--on-unwinnable": (inputs.options.on_unwinnable, proof.ON_UNWINNABLE),
    }
    for flag, (value, allowed) in choices.items():
        if value not in allowed:
            raise choose(f"value for {flag}", value, allowed)


def _check_bad_rows(task: Task, prepared: Prepared, on_bad_row: str) -> None:
    """Refuse a task with too many bad rows (with "error", any at all)."""
    bad = [d for d in prepared.dropped if not is_filtered(d)]
    total = len(bad) + sum(len(rows) for split, rows in prepared.splits.items() if split != "corpus")
    if bad and on_bad_row == "error":
        raise bad_rows(bad, total, f"task {task.name!r}")
    if len(bad) > MAX_DROPPED * total:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(d.reason for d in bad).most_common())
        raise UsageError(
            f"task {task.name!r}: {len(bad)} of {total} rows are bad, more than {MAX_DROPPED:.0%} ({reasons}); "
            f"the first is {describe(bad[0])}; nothing was written",
            "look at the source: it may be cut off, or in another format than it seems",
        )


def _write(dataset: _Dataset, inputs: Inputs) -> Summary:
    task, prepared, folder = dataset.task, dataset.prepared, inputs.data / dataset.task.name
    extra: ManifestExtras = {"task_note": task.note}
    if task.grader is not None:
        extra |= {"grader": task.grader, "max_new_tokens": task.max_new_tokens, "columns": task.columns or {}}
    if prepared.rendered:
        extra |= {"gold_as_demonstration": prepared.rendered}
    extra |= {"sources": dataset.source.files(prepared), **dataset.extra}
    manifest = write_dataset(folder, task.name, prepared, inputs.options, extra)
    return {
        "task": task.name,
        "rows": manifest["rows"],
        "with_demonstration": manifest["with_demonstration"],
        "notes": manifest["notes"],
        "source": manifest["source"],
        "licence": manifest["licence"],
        "lengths": manifest["lengths"],
        "grading": manifest.get("grading"),
        "folder": str(folder),
        "dropped": [
            {"where": d.where, "reason": d.reason, "detail": d.detail} for d in prepared.dropped if not is_filtered(d)
        ],
        "filtered": manifest["filtered"]["reasons"],
    }


# --- for people -------------------------------------------------------------------------------------------------------


def print_dry_runs(results: Sequence[DryRun]) -> None:
    from sdft_cli.llm.dry_run import dry_run_text

    for result in results:
        print(dry_run_text(result))


def print_submissions(results: Sequence[Submission]) -> None:
    from sdft_cli.llm.batch_generation import submission_text

    for result in results:
        print(submission_text(result))


def print_trials(results: Sequence[Trial]) -> None:
    from sdft_cli.llm.trial import trial_text

    for result in results:
        print(trial_text(result))


def print_summaries(summaries: Sequence[Summary]) -> None:
    """One block per task: rows, what was left out and why, and every bad row by name."""
    for s in summaries:
        rows = ", ".join(f"{n} {split}" for split, n in s["rows"].items())
        print(f"{s['task']}: {rows}; {s['with_demonstration']} train rows have a demonstration -> {s['folder']}")
        for note in s["notes"]:
            print(f"    note: {note}")
        for line in lengths.lines(s["lengths"]):
            print(f"    {line}")
        for line in proof.grading_lines(s["grading"]):
            print(f"    {line}")
        for reason, count in s["filtered"].items():
            print(f"    {count} left out by design: {reason}")
        for row in s["dropped"]:
            print(f"    dropped {describe(Dropped(**row))}")
        if s["dropped"]:
            print(f"    {len(s['dropped'])} bad rows dropped")
        if not s["with_demonstration"] and s["rows"].get("train"):
            print(
                "    hint: no train row has a demonstration yet; `--demonstrations answer` renders the gold answers "
                "as demonstrations, `--teacher MODEL` has some written"
            )
