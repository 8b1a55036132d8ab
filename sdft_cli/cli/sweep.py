"""`sdft sweep`: flags to one function."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.options import (
    Data,
    Json,
    Method,
    Model,
    Plugin,
    Sampling,
    Sets,
    Tasks,
    Watched,
    new_recipe,
    recipe_flags,
    with_engine,
)
from sdft_cli.errors import SdftError, UsageError


def sweep(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (TOML), which may hold a [grid] table.")] = None,
    grid: Annotated[
        list[str] | None, typer.Option("--grid", help="key=v1,v2,… with a key as in --set, or method; repeatable.")
    ] = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    suite: Watched = None,
    engine: Sampling = None,
    sets: Sets = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas: the first for every point, all for the chosen ones.")
    ] = None,
    all_seeds: Annotated[bool, typer.Option("--all-seeds", help="Run every point with every seed.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Concurrent runs; by default 1 on a GPU, else half the cores.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; a new one under runs/ if not given.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the sweep in --out; its settings need not be repeated.")
    ] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train every point of a grid, and choose the best settings.

    The choice is by validation accuracy under the one-standard-error rule. Finished runs are not repeated.
    """
    from sdft_cli.commands.sweep import sweep as run_sweep
    from sdft_cli.config.sweep_grid import SweepArguments

    sets = with_engine(sets, engine)
    flags = recipe_flags(tasks, method, model, data, suite=suite)
    asked = None
    if recipe or grid or sets or any(flags.values()) or not resume:
        base = new_recipe(recipe, flags, sets, plugin, {})
        flags |= {"model": base.model, "tasks": list(base.tasks)}
        numbers = _numbers("--seeds", seeds) if seeds else [base.seed]
        file, files = str(recipe) if recipe else None, [str(p) for p in plugin or []]
        asked = SweepArguments(file, flags, sets, files, grid or [], numbers, all_seeds)
    record = run_sweep(asked, out, jobs, resume, quiet=json)
    if json:
        print(jsonlib.dumps(record))
    if record["failed"]:
        hint = f"sdft sweep --resume --out {record['out']} tries again"
        raise SdftError(f"failed runs: {', '.join(record['failed'])}", hint)


def _numbers(flag: str, text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: not whole numbers", f"write {flag} 0,1,2") from error
