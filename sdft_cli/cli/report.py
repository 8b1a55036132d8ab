"""`sdft report`: flags to one function."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.eval_options import AtAccuracy, Force, levels_of
from sdft_cli.cli.options import Json, Plugin


def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; the newest run if none is named.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, plots and tables.")] = None,
    single: Annotated[
        list[Path] | None,
        typer.Option(help="A run on one task alone, the reference for intransigence; repeatable."),
    ] = None,
    at_accuracy: AtAccuracy = None,
    force: Force = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Make tables, plots and an HTML page from any runs."""
    from sdft_cli.commands import report as command
    from sdft_cli.runs.folder import newest

    chosen = runs or [newest()]
    folder = out or (chosen[0] / "report" if len(chosen) == 1 else Path("report"))
    tables = command.report(chosen, folder, single or [], force, levels_of(at_accuracy))
    if json:
        print(jsonlib.dumps(tables))
    else:
        command.show(tables)
        print(f"report: {folder / 'report.html'}")
