"""`sdft train`: a new run, a stopped one (``--resume``), a longer one (``--continue``), or none (``--dry-run``)."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.cli.options import (
    Data,
    File,
    Json,
    Method,
    Model,
    Moved,
    Plugin,
    Sampling,
    Seed,
    Sets,
    Tasks,
    Watched,
    at_its_place,
    choice,
    new_recipe,
    recipe_flags,
    recipe_of,
    say,
    split,
    with_engine,
)
from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Recipe


def train(
    recipe: File = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    base: Moved = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one under runs/ if not given.")] = None,
    suite: Watched = None,
    seed: Seed = None,
    engine: Sampling = None,
    sets: Sets = None,
    on_bad_row: Annotated[
        str | None,
        typer.Option(
            "--on-bad-row", help="What to do with rows that are too long or lack a field: error (default) or drop."
        ),
    ] = None,
    stop_if_prior_drops: Annotated[
        float | None,
        typer.Option(help="Stop a stage before the prior suite falls by more than this below the base, such as 0.03."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    continue_run: Annotated[
        Path | None, typer.Option("--continue", help="Add the tasks of --tasks to this finished run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen, and stop.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train on a sequence of tasks, and measure what is forgotten.

    Every task and the prior suite are measured before and after each stage.
    """
    sets = _sets(sets, engine, on_bad_row, stop_if_prior_drops)
    if continue_run:
        if resume:
            hint = "resume an unfinished run, continue a finished one"
            raise UsageError("--resume and --continue exclude each other", hint)
        return _extend(continue_run, split(tasks), sets, plugin, json, base)
    if resume:
        if out is None:
            raise UsageError("--resume needs to know which run", "name it with --out RUN")
        settings = at_its_place(recipe_of(out, plugin, sets), base, out)
    else:
        flags = recipe_flags(tasks, method, model, data, suite=suite, seed=seed)
        settings = at_its_place(new_recipe(recipe, flags, sets, plugin), base)
    _say_without_effect(settings, sets)
    if dry_run:
        from sdft_cli.commands.dry_run import dry_run as run_dry

        report = run_dry(settings, out)
        print(jsonlib.dumps(report.facts) if json else report.text)
        return
    from sdft_cli.commands.train import train as run_train
    from sdft_cli.training.display import TrainingDisplay

    with TrainingDisplay(quiet=json) as display:
        run = run_train(settings, out, display, resume)
    _show(run.folder, json)


def _say_without_effect(recipe: Recipe, sets: list[str]) -> None:
    """A line for each ``--set`` that does nothing in this run."""
    if not sets:
        return
    from sdft_cli.config.overrides import keys_of
    from sdft_cli.training.idle_settings import without_effect

    for line in without_effect(recipe, keys_of(sets)):
        say(f"note: {line}")


def _sets(
    sets: list[str] | None, engine: str | None, on_bad_row: str | None, stop_if_prior_drops: float | None
) -> list[str]:
    """``--set`` assignments, with the flags that are one as well."""
    sets = with_engine(sets, engine)
    if on_bad_row:
        choice("--on-bad-row", on_bad_row, ("drop", "error"))
        sets = [*sets, f"train.on_bad_row={on_bad_row}"]
    if stop_if_prior_drops is not None:
        sets = [*sets, f"train.stop_if_prior_drops={stop_if_prior_drops}"]
    return sets


def _extend(
    run: Path, tasks: list[str] | None, sets: list[str], plugin: list[Path] | None, json: bool, base: Path | None
) -> None:
    """``--continue``."""
    from sdft_cli.runs.folder import Run
    from sdft_cli.training.display import TrainingDisplay

    if not tasks:
        raise UsageError("--continue needs the tasks to add", "add --tasks NEW_TASK")
    if sets:
        raise UsageError(f"--continue keeps the run's settings: {sets[0]} has no effect", "leave out all but --tasks")
    Run.open(run)
    plugin_files = recipe_of(run, plugin, []).plugins
    from sdft_cli.commands.train import extend

    with TrainingDisplay(quiet=json) as display:
        extend(run, tuple(tasks), display, plugin_files, base)
    _show(run, json)


def _show(run: Path, json: bool) -> None:
    """Print the run's results."""
    from sdft_cli import console
    from sdft_cli.commands import report
    from sdft_cli.reporting import groups, results_json
    from sdft_cli.runs import results

    loaded = results.load_run(run)
    if json:
        print(jsonlib.dumps({"runs": {str(run): results_json.run_results(loaded)}}))
        return
    report.show(report.gather(groups.groups_of([loaded])))
    console.out.print(f"run: {run}   next: sdft report {run}", soft_wrap=True, highlight=False)
