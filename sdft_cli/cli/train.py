"""`sdft train`: a new run, a stopped one (``--resume``), a longer one (``--continue``), or none (``--dry-run``).

A flag is honoured in every one of these modes, or refused with its name (`config.run_changes`).
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.cli import ranks
from sdft_cli.cli.hardware_options import DeviceMemory, Gpus, check_memory_flag, hardware_of
from sdft_cli.cli.options import (
    Data,
    File,
    Json,
    Judge,
    JudgeKeyEnv,
    JudgeUrl,
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
    run_recipe,
    say,
)
from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Recipe
    from sdft_cli.config.run_changes import Given
    from sdft_cli.training.memory_outlook import Hardware


Out = Annotated[Path | None, typer.Option("--out", help="Run folder; a new one under runs/ if not given.")]
OnBadRow = Annotated[
    str | None,
    typer.Option(
        "--on-bad-row", help="What to do with rows that are too long or lack a field: error (default) or drop."
    ),
]
Floor = Annotated[
    float | None,
    typer.Option(
        "--stop-if-prior-drops",
        help="Stop a stage before the prior suite falls by more than this below the base, such as 0.03.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Resume the run in --out; rates, guards, the engine and the like may be given anew."),
]
Continue = Annotated[
    Path | None,
    typer.Option(
        "--continue",
        help="Add the tasks of --tasks to this finished run. Their stages may have another method, rates, batch, "
        "steps, seed or engine. With another --method, the run's [train] stays, and the method's other sections "
        "start from its defaults.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would happen, also after --resume or --continue, and stop.")
]


def train(
    recipe: File = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    base: Moved = None,
    out: Out = None,
    suite: Watched = None,
    judge: Judge = None,
    judge_base_url: JudgeUrl = None,
    judge_key_env: JudgeKeyEnv = None,
    seed: Seed = None,
    engine: Sampling = None,
    sets: Sets = None,
    on_bad_row: OnBadRow = None,
    stop_if_prior_drops: Floor = None,
    resume: Resume = False,
    continue_run: Continue = None,
    dry_run: DryRun = False,
    gpus: Gpus = None,
    device_memory: DeviceMemory = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train on a sequence of tasks, and measure what is forgotten.

    Every task and the prior suite are measured before and after each stage.
    """
    from sdft_cli.config.run_changes import Given

    check_memory_flag(device_memory, dry_run)
    if on_bad_row:
        choice("--on-bad-row", on_bad_row, ("drop", "error"))
    more = {"suite": suite, "seed": seed, "engine": engine, "on_bad_row": on_bad_row}
    more |= {"judge": judge, "judge_base_url": judge_base_url, "judge_key_env": judge_key_env}
    flags = recipe_flags(tasks, method, model, data, **more, stop_if_prior_drops=stop_if_prior_drops)
    given = Given(recipe, flags, sets or [], plugin or [])
    run = _run_of(resume, continue_run, out)
    if continue_run:
        settings = at_its_place(_continued(continue_run, given), base, continue_run)
    elif resume and out:
        settings = at_its_place(_resumed(out, given), base, out)
    else:
        settings = at_its_place(new_recipe(recipe, flags, sets or [], plugin), base)
    _say_without_effect(settings, sets or [])
    if dry_run:
        _dry_run(settings, run, None if run else out, json, hardware_of(gpus, device_memory))
        return
    ranks.relaunch(gpus)
    folder = _train(settings, out, resume, continue_run, json)
    _show(folder, json)


def _say_without_effect(recipe: Recipe, sets: list[str]) -> None:
    """A line for each ``--set`` that does nothing in this run."""
    if not sets:
        return
    from sdft_cli.config.overrides import keys_of
    from sdft_cli.training.idle_settings import without_effect

    for line in without_effect(recipe, keys_of(sets)):
        say(f"note: {line}")


def _run_of(resume: bool, continue_run: Path | None, out: Path | None) -> Path | None:
    """The run to go on with, None for a new one; `UsageError` where flags name several or none."""
    if resume and continue_run:
        hint = "resume an unfinished run, continue a finished one"
        raise UsageError("--resume and --continue exclude each other", hint)
    if resume and out is None:
        raise UsageError("--resume needs to know which run", "name it with --out RUN")
    if continue_run and out and out.resolve() != continue_run.resolve():
        hint = "leave out --out; to keep the run as it is, continue a copy of its folder"
        raise UsageError(f"--out {out}: --continue adds to {continue_run} itself", hint)
    return continue_run or (out if resume else None)


def _resumed(run: Path, given: Given) -> Recipe:
    """``--resume``: the run's recipe with what is given; a finished run can be given nothing that it has not."""
    before = run_recipe(run, "--resume")
    settings = recipe_of(run, list(given.plugin_files), list(given.sets), given.file, given.flags)
    from sdft_cli.commands.train import is_complete
    from sdft_cli.config.overrides import differences
    from sdft_cli.config.recipe_layers import absolute_paths
    from sdft_cli.runs.folder import Run

    changed = differences(absolute_paths(before), settings)
    if changed and is_complete(Run.open(run)):
        hint = f"to train further tasks with it: sdft train --continue {run} --tasks NEW_TASK"
        raise UsageError(f"{run} is already finished: {given.name_of(next(iter(changed)))} would change nothing", hint)
    return settings


def _continued(run: Path, given: Given) -> Recipe:
    """``--continue``: the run's recipe with the tasks to add, and what else is given for their stages."""
    from sdft_cli.config.run_changes import continued

    if given.flags["tasks"] is None and not given.file and not given.sets:
        raise UsageError("--continue needs the tasks to add", "add --tasks NEW_TASK")
    settings = continued(run_recipe(run, "--continue"), given)
    from sdft_cli.commands.train import check_finished
    from sdft_cli.runs.folder import Run

    check_finished(Run.open(run))
    return settings


def _dry_run(settings: Recipe, run: Path | None, out: Path | None, json: bool, hardware: Hardware) -> None:
    from sdft_cli.commands.dry_run import dry_run
    from sdft_cli.runs.folder import Run, check_unused

    if out:
        check_unused(out)
    report = dry_run(settings, out, Run.open(run) if run else None, hardware)
    print(jsonlib.dumps(report.facts) if json else report.text)


def _train(settings: Recipe, out: Path | None, resume: bool, continue_run: Path | None, json: bool) -> Path:
    """Train; returns the run's folder."""
    from sdft_cli.commands.train import extend, train
    from sdft_cli.training.display import TrainingDisplay
    from sdft_cli.training.several_processes import check_several

    check_several(settings)

    with TrainingDisplay(quiet=json) as display:
        if continue_run:
            return extend(continue_run, settings, display).folder
        return train(settings, out, display, resume).folder


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
