"""`sdft data`: flags to one function each. A part of the command line with a file of its own."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.options import Data, Json

Method = Annotated[str | None, typer.Option(help="Whose views are shown; sdft's when not given.")]
Model = Annotated[str | None, typer.Option(help="Use this model's chat template and tokenizer (a folder or hub id).")]

data = typer.Typer(name="data", help="Look at prepared datasets.", no_args_is_help=True, rich_markup_mode=None)


@data.command(name="list")
def list_(data: Data = None, json: Json = False) -> None:
    """List the datasets: rows, demonstrations, grading."""
    from sdft_cli.commands.datasets import list_datasets, print_datasets

    found = list_datasets(data or Path("data"))
    if json:
        print(jsonlib.dumps({"datasets": found}))
    else:
        print_datasets(found)


@data.command()
def stats(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks; all when none is named.")] = None,
    data: Data = None,
    method: Method = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Rows, lengths of what student and teacher see, and why rows were dropped."""
    from sdft_cli.commands.datasets import print_stats
    from sdft_cli.commands.datasets import stats as run_stats

    found = run_stats(data or Path("data"), tasks or [], model, method)
    if json:
        print(jsonlib.dumps({"datasets": found}))
    else:
        print_stats(found)


@data.command()
def show(
    task: Annotated[str, typer.Argument(help="The dataset.")],
    data: Data = None,
    row: Annotated[str | None, typer.Option(help="Its id, or its line from 1; the first when not given.")] = None,
    split: Annotated[str | None, typer.Option(help="train when not given.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many rows, from the first.")] = 1,
    method: Method = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Print rows as student and teacher will see them."""
    from sdft_cli.commands.datasets import print_rows
    from sdft_cli.commands.datasets import show as run_show

    found = run_show(data or Path("data"), task, split, row, model, method, limit)
    if json:
        print(jsonlib.dumps({"rows": found}))
    else:
        print_rows(found)
