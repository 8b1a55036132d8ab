"""`sdft prepare`: flags to one function. A part of the command line with a file of its own, for it has many flags."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli import teacher_options as ask
from sdft_cli.cli.options import MICRO_TASKS, Data, Json, Plugin, Tasks, choice, split
from sdft_cli.errors import UsageError

Source = Annotated[
    list[str] | None,
    typer.Option("--source", help="TASK=PATH of a file or folder, or TASK=hf:ORG/NAME; repeatable."),
]
Columns = Annotated[
    list[str] | None, typer.Option("--columns", help="TASK=FILE.toml that names the columns of your own rows.")
]
OnBadRow = Annotated[
    str | None,
    typer.Option("--on-bad-row", help="drop (at most 5 %, all listed; known sources) or error (your own rows)."),
]
OnOverlap = Annotated[
    str, typer.Option("--on-overlap", help="Train rows that ask what a test row asks: error, or drop them.")
]
Measured = Annotated[str | None, typer.Option("--model", help="Count tokens under this model's template, too.")]


def prepare(
    tasks: Tasks = None,
    source: Source = None,
    columns: Columns = None,
    data: Data = None,
    demonstrations: Annotated[
        str, typer.Option(help="'source': as the source has them; 'answer': render the gold answer as one.")
    ] = "source",
    on_bad_row: OnBadRow = None,
    on_overlap: OnOverlap = "error",
    model: Measured = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    world: Annotated[int, typer.Option(help="Which hidden rules the micro tasks have.")] = 0,
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
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Turn raw sources into dataset folders, one a task, with every dropped row listed."""
    flags = dict(locals())  # before anything else is one: `teacher_options` takes its own from these
    from sdft_cli import plugins
    from sdft_cli.commands import prepare as verb
    from sdft_cli.types import PrepareOptions

    choice("--demonstrations", demonstrations, ("source", "answer"))
    choice("--on-bad-row", on_bad_row or "drop", ("drop", "error"))
    choice("--on-overlap", on_overlap, ("error", "drop"))
    asked = ask.teacher_options(flags)
    if asked and demonstrations == "answer":
        raise UsageError("--demonstrations answer leaves a teacher nothing to write", "leave out one of the two")
    for path in plugin or []:
        plugins.load_file(path)
    sources = _sources(source or [])
    names = split(tasks) or list(sources) or MICRO_TASKS.split(",")
    tables = _tables(columns or [], names)
    options, folder = PrepareOptions(demonstrations, seed, world, on_overlap), data or Path("data")
    if asked and (dry_run or asked.batch == "submit"):
        plans = verb.plan(names, sources, folder, options, asked, on_bad_row, tables, hand_over=not dry_run)
        print(jsonlib.dumps({"tasks": plans})) if json else verb.print_plans(plans)
        return
    summaries = verb.prepare(names, sources, folder, options, on_bad_row, asked, tables, model)
    print(jsonlib.dumps({"tasks": summaries})) if json else verb.print_summaries(summaries)


def _sources(given: list[str]) -> dict[str, list[Path]]:
    """``TASK=PATH`` by task."""
    sources: dict[str, list[Path]] = {}
    for text in given:
        task, equals, path = text.partition("=")
        if not equals or not task or not path:
            raise UsageError(f"--source {text}: not of the form TASK=PATH", "write --source science=raw/chemistry")
        sources.setdefault(task, []).append(Path(path))
    return sources


def _tables(given: list[str], names: list[str]) -> dict[str, Path]:
    """``TASK=FILE.toml`` by task; the task's name may be left out where there is one task."""
    tables: dict[str, Path] = {}
    for text in given:
        task, equals, path = text.rpartition("=")
        if not equals and len(names) == 1:
            task = names[0].partition(".")[0]
        if not task or not path:
            raise UsageError(f"--columns {text}: not of the form TASK=FILE.toml", "write --columns mytask=mytask.toml")
        tables[task] = Path(path)
    return tables
