"""`sdft prepare`; its flags about the teacher are in `teacher_options`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.cli import teacher_options as ask
from sdft_cli.cli.options import MICRO_TASKS, Data, Json, Plugin, Tasks, choice, split
from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.commands.prepare import Inputs
    from sdft_cli.llm.types import TeacherOptions
    from sdft_cli.types import PrepareOptions

Source = Annotated[
    list[str] | None,
    typer.Option(
        "--source", help="TASK=PATH (file or folder), TASK=hf:ORG/NAME, or hub: the tasks' public data; repeatable."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="What the columns of your own rows are: TASK:prompt=Frage,answer=Zahl, or TASK=FILE.toml; repeatable.",
    ),
]
Demonstrations = Annotated[
    str, typer.Option(help="source: only those in the sources; answer: use the gold answer where there is none.")
]
OnBadRow = Annotated[
    str | None,
    typer.Option(
        "--on-bad-row",
        help="drop (at most 5 %, each listed; default for known sources) or error (default for your own rows).",
    ),
]
OnOverlap = Annotated[
    str, typer.Option("--on-overlap", help="Training rows that ask what a test row asks: error, or drop them.")
]
OnUnwinnable = Annotated[
    str,
    typer.Option(
        "--on-unwinnable",
        help="Rows that the grader gives no credit for their own gold answer: keep them, drop them, or error.",
    ),
]
MergeSystem = Annotated[
    bool,
    typer.Option(
        "--merge-system", help="Put system texts before the user's, for a model whose template has no system role."
    ),
]
Measured = Annotated[str | None, typer.Option("--model", help="Also measure lengths in this model's tokens.")]
Seed = Annotated[int, typer.Option(help="Seed of the splits.")]
World = Annotated[
    int | None, typer.Option(help="Number of the micro world (0), which sets the hidden rules of its tasks.")
]
#: A ``--source`` that stands for the public data of each task.
HUB = "hub"


def prepare(
    tasks: Tasks = None,
    source: Source = None,
    columns: Columns = None,
    data: Data = None,
    demonstrations: Demonstrations = "source",
    on_bad_row: OnBadRow = None,
    on_overlap: OnOverlap = "error",
    on_unwinnable: OnUnwinnable = "keep",
    merge_system: MergeSystem = False,
    model: Measured = None,
    seed: Seed = 0,
    world: World = None,
    teacher: ask.Teacher = None,
    base_url: ask.BaseUrl = None,
    api_key_env: ask.KeyEnv = None,
    api_key_file: ask.KeyFile = None,
    samples: ask.Samples = None,
    at_once: ask.AtOnce = None,
    temperature: ask.Temperature = None,
    max_tokens: ask.MaxTokens = None,
    send: ask.Send = None,
    questions: ask.Questions = None,
    resample: ask.Resample = None,
    rpm: ask.Rpm = None,
    tpm: ask.Tpm = None,
    concurrency: ask.Concurrency = None,
    max_requests: ask.MaxRequests = None,
    max_cost: ask.MaxCost = None,
    price_in: ask.PriceIn = None,
    price_out: ask.PriceOut = None,
    timeout: ask.Timeout = None,
    batch: ask.Batch = None,
    dry_run: ask.DryRun = False,
    limit: ask.Limit = None,
    show: ask.Show = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Turn raw sources into dataset folders, one per task; every dropped row is listed."""
    flags = dict(locals())  # first, while the flags are the only locals: `teacher_options` takes its own from these
    from sdft_cli.types import PrepareOptions

    choice("--demonstrations", demonstrations, ("source", "answer"))
    choice("--on-bad-row", on_bad_row or "drop", ("drop", "error"))
    choice("--on-overlap", on_overlap, ("error", "drop"))
    choice("--on-unwinnable", on_unwinnable, ("keep", "drop", "error"))
    teacher_options = ask.teacher_options(flags)
    if model and (dry_run or show or batch == "submit"):
        hint = f"leave it out with {'--dry-run' if dry_run else '--show' if show else '--batch submit'}"
        raise UsageError("--model measures the rows that are written, and here none are", hint)
    options = PrepareOptions(demonstrations, seed, world or 0, on_overlap, merge_system, on_unwinnable)
    inputs = _inputs(tasks, source or [], columns or [], data or Path("data"), options, on_bad_row)
    _check_world(world, inputs.tasks)
    if teacher_options and show:
        _try(inputs, teacher_options, json)
    else:
        _run(inputs, teacher_options, model, dry_run, json)


def _inputs(
    tasks: str | None,
    source: list[str],
    columns: list[str],
    data: Path,
    options: PrepareOptions,
    on_bad_row: str | None,
) -> Inputs:
    from sdft_cli.commands.prepare import Inputs
    from sdft_cli.rows.column_flags import column_flags
    from sdft_cli.rows.hub import named

    from_hub = [text for text in source if text == HUB]
    sources = _sources([text for text in source if text != HUB])
    names = split(tasks) or list(sources) or MICRO_TASKS.split(",")
    if from_hub:
        sources = named(names if tasks else [], sources)
    return Inputs(names, sources, data, options, on_bad_row, column_flags(columns, names))


def _try(inputs: Inputs, teacher: TeacherOptions, json: bool) -> None:
    """Ask a teacher about a few rows, print everything, write no dataset."""
    from sdft_cli.commands import prepare as command

    trials = command.try_out(inputs, teacher)
    print(jsonlib.dumps({"tasks": trials})) if json else command.print_trials(trials)


def _run(inputs: Inputs, teacher: TeacherOptions | None, model: str | None, dry_run: bool, json: bool) -> None:
    """Prepare, or only show or submit what a teacher would be asked; print the results."""
    from sdft_cli.commands import prepare as command

    if teacher and dry_run:
        plans = command.dry_run(inputs, teacher)
        print(jsonlib.dumps({"tasks": plans})) if json else command.print_dry_runs(plans)
    elif teacher and teacher.batch == "submit":
        submissions = command.submit(inputs, teacher)
        print(jsonlib.dumps({"tasks": submissions})) if json else command.print_submissions(submissions)
    else:
        summaries = command.prepare(
            inputs.tasks,
            inputs.sources,
            inputs.data,
            inputs.options,
            inputs.on_bad_row,
            teacher,
            inputs.columns,
            model,
        )
        print(jsonlib.dumps({"tasks": summaries})) if json else command.print_summaries(summaries)


def _check_world(world: int | None, names: Sequence[str]) -> None:
    """Refuse ``--world`` where every task is made of sources, which have no world."""
    from sdft_cli.plugins import TASKS

    if world is not None and not any(name in TASKS.names() and not TASKS.get(name).needs_source for name in names):
        raise UsageError(
            f"--world {world}: {', '.join(names)} is made of sources", "it is for tasks such as micro-science"
        )


def _sources(flags: list[str]) -> dict[str, list[Path]]:
    """``TASK=PATH`` by task."""
    sources: dict[str, list[Path]] = {}
    for text in flags:
        task, equals, path = text.partition("=")
        if not equals or not task or not path:
            raise UsageError(f"--source {text}: not of the form TASK=PATH", "write --source science=raw/chemistry")
        sources.setdefault(task, []).append(Path(path))
    return sources
