"""`sdft sweep`: flags to one function."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.cli.options import (
    Data,
    Json,
    Judge,
    JudgeKeyEnv,
    JudgeUrl,
    Method,
    Model,
    Plugin,
    Sampling,
    Sets,
    Tasks,
    Watched,
    new_recipe,
    recipe_flags,
)
from sdft_cli.errors import SdftError, UsageError

if TYPE_CHECKING:
    from sdft_cli.config.sweep_grid import SweepArguments


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
    judge: Judge = None,
    judge_base_url: JudgeUrl = None,
    judge_key_env: JudgeKeyEnv = None,
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

    The choice is by validation accuracy under the one-standard-error rule, or by validation loss where nothing scores a
    task. Finished runs are not repeated.
    """
    from sdft_cli.commands.sweep import stored_arguments
    from sdft_cli.commands.sweep import sweep as run_sweep
    from sdft_cli.config.sweep_grid import SweepArguments

    judging = {"judge": judge, "judge_base_url": judge_base_url, "judge_key_env": judge_key_env}
    flags = recipe_flags(tasks, method, model, data, suite=suite, engine=engine, **judging)
    asked = None
    if resume and not (recipe or grid) and (stray := [*_given(flags), *(["--set"] if sets else [])]):
        hint = "leave it out, or repeat all flags of the sweep, its grid among them"
        raise UsageError(f"{stray[0]}: --resume goes on with the sweep's own settings", hint)
    if recipe or grid or sets or any(flags.values()) or not resume:
        base = new_recipe(recipe, flags, sets or [], plugin, {})
        flags |= {"model": base.model, "tasks": list(base.tasks)}
        numbers = _numbers("--seeds", seeds) if seeds else [base.seed]
        file, files = str(recipe.absolute()) if recipe else None, [str(p.absolute()) for p in plugin or []]
        asked = SweepArguments(file, flags, sets or [], files, grid or [], numbers, all_seeds)
    elif seeds or all_seeds or plugin:
        asked = _more(stored_arguments(out), seeds, all_seeds, plugin or [])
    record = run_sweep(asked, out, jobs, resume, quiet=json)
    if json:
        print(jsonlib.dumps(record))
    if record["failed"]:
        hint = f"sdft sweep --resume --out {record['out']} tries again"
        raise SdftError(f"failed runs: {', '.join(record['failed'])}", hint)


def _given(flags: Mapping[str, object]) -> list[str]:
    """The flags that were given, as they are written."""
    from sdft_cli.config.overrides import FLAGS

    return [FLAGS[key] for key, value in flags.items() if value is not None]


def _more(stored: SweepArguments, seeds: str | None, all_seeds: bool, plugin: list[Path]) -> SweepArguments:
    """The arguments of the sweep that is resumed, with more seeds or plug-ins."""
    files = dict.fromkeys([*stored.plugins, *(str(p.absolute()) for p in plugin)])
    numbers = _numbers("--seeds", seeds) if seeds else stored.seeds
    return replace(stored, seeds=numbers, all_seeds=all_seeds or stored.all_seeds, plugins=list(files))


def _numbers(flag: str, text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: not whole numbers", f"write {flag} 0,1,2") from error
