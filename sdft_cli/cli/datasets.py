"""`sdft data`: look at prepared datasets."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.options import Data, Json, Plugin
from sdft_cli.errors import UsageError

Method = Annotated[str | None, typer.Option(help="Method whose views are shown; sdft if not given.")]
Model = Annotated[str | None, typer.Option(help="Model (folder or hub id) whose chat template and tokens are used.")]

data = typer.Typer(name="data", help="Look at prepared datasets.", no_args_is_help=True, rich_markup_mode=None)


@data.command(name="list")
def list_(data: Data = None, plugin: Plugin = None, json: Json = False) -> None:
    """List datasets with their rows, demonstrations, grader and source."""
    from sdft_cli.commands.datasets import list_datasets, print_datasets

    entries = list_datasets(data or Path("data"))
    print(jsonlib.dumps({"datasets": entries})) if json else print_datasets(entries)


@data.command()
def stats(
    tasks: Annotated[list[str] | None, typer.Argument(help="Task names; all datasets if none is named.")] = None,
    data: Data = None,
    method: Method = None,
    model: Model = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show the lengths of what student and teacher see, what a constant answer scores, and why rows were left out."""
    from sdft_cli.commands.datasets import print_stats
    from sdft_cli.commands.datasets import stats as run_stats

    entries = run_stats(data or Path("data"), tasks or [], model, method)
    print(jsonlib.dumps({"datasets": entries})) if json else print_stats(entries)


@data.command()
def show(
    task: Annotated[str, typer.Argument(help="Task name.")],
    data: Data = None,
    row: Annotated[
        str | None, typer.Option(help="Id or line number (from 1) of the row; the first if not given.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split; train if not given.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to show, from the first; one by default.")] = None,
    method: Method = None,
    model: Model = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show rows as student and teacher will see them."""
    from sdft_cli.commands.datasets import print_rows
    from sdft_cli.commands.datasets import show as run_show

    if row is not None and limit is not None:
        raise UsageError("--limit shows rows from the first, and --row shows one", "leave out one of the two")
    rows = run_show(data or Path("data"), task, split, row, model, method, limit or 1)
    print(jsonlib.dumps({"rows": rows})) if json else print_rows(rows)
