"""The command line: flags to a recipe to one function. Nothing heavy is imported before the flags are checked."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sdft_cli.cli.datasets import data as look
from sdft_cli.cli.evaluate import Force, compare, evaluate, grade
from sdft_cli.cli.options import (
    Data,
    File,
    Json,
    Method,
    Model,
    Plugin,
    Sampling,
    Seed,
    Sets,
    Tasks,
    Watched,
    choice,
    new_recipe,
    recipe_of,
    say,
    split,
    with_engine,
)
from sdft_cli.cli.prepare import prepare
from sdft_cli.errors import GateError, SdftError, UsageError

app = typer.Typer(
    name="sdft",
    help="Teach a language model new skills by self-distillation, and prove that nothing old was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, results.json and report.html.")] = Path("runs/demo"),
    methods: Annotated[str, typer.Option(help="Methods to compare, separated by commas.")] = "sdft,sft",
    seed: Annotated[int, typer.Option(help="Seed of data order and sampling.")] = 0,
    world: Annotated[int, typer.Option(help="Which hidden rules the new tasks have.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only: shows that everything runs.")] = False,
    json: Json = False,
) -> None:
    """Learn three tasks in a row on the embedded model, with SDFT beside SFT, and report what was forgotten."""
    from sdft_cli.commands.demo import demo as run_demo

    results = run_demo(out, split(methods) or [], seed, world, quick, quiet=json)
    if json:
        print(jsonlib.dumps(results))


app.command()(prepare)
app.add_typer(look)


@app.command()
def probe(
    recipe: File = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many train rows a task.")] = 64,
    seed: Seed = None,
    engine: Sampling = None,
    sets: Sets = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there is a warning.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Before training: is the model, shown the demonstrations, a better teacher? What would training cost?"""
    flags: dict[str, Any] = {"tasks": split(tasks), "method": method, "model": model, "seed": seed}
    flags["data"] = str(data) if data else None
    settled = new_recipe(recipe, flags, with_engine(sets, engine), plugin)
    from sdft_cli.commands.probe import probe as run_probe
    from sdft_cli.reporting.probe import show

    facts = run_probe(settled, limit)
    if json:
        print(jsonlib.dumps(facts))
    show(facts, quiet=json)
    if strict and facts["warnings"]:
        raise GateError(f"{len(facts['warnings'])} warnings, and --strict was given", "see the warnings above")


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file (TOML); flags override it.")] = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; a fresh one under runs/ when not given.")] = None,
    suite: Watched = None,
    seed: Annotated[int | None, typer.Option(help="Seed of data order and sampling.")] = None,
    engine: Sampling = None,
    sets: Sets = None,
    on_bad_row: Annotated[str | None, typer.Option("--on-bad-row", help="error (default) or drop.")] = None,
    stop_if_prior_drops: Annotated[
        float | None,
        typer.Option(help="End a stage with its last step that kept the prior suite within so much, such as 0.03."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    continue_run: Annotated[
        Path | None, typer.Option("--continue", help="Add --tasks to a finished run; its matrix grows.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen and stop.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train a sequence of tasks, measuring every task and the prior suite before and after each stage."""
    from sdft_cli.training.display import TrainingDisplay

    if resume and continue_run:
        raise UsageError(
            "--resume and --continue exclude each other", "resume an unfinished run, continue a finished one"
        )
    sets = with_engine(sets, engine)
    if on_bad_row:
        choice("--on-bad-row", on_bad_row, ("drop", "error"))
        sets = [*sets, f"train.on_bad_row={on_bad_row}"]
    if stop_if_prior_drops is not None:
        sets = [*sets, f"train.stop_if_prior_drops={stop_if_prior_drops}"]
    if continue_run:
        _extend(continue_run, split(tasks), plugin, json)
        return
    if resume and out is None:
        raise UsageError("--resume needs to know which run", "name it with --out RUN")
    if resume and out is not None:
        settled = recipe_of(out, plugin, sets or [])
    else:
        flags: dict[str, Any] = {"tasks": split(tasks), "method": method, "model": model, "suite": suite, "seed": seed}
        flags["data"] = str(data) if data else None
        settled = new_recipe(recipe, flags, sets or [], plugin)
    if dry_run:
        from sdft_cli.commands.dry_run import dry_run as run_dry

        report = run_dry(settled)
        print(jsonlib.dumps(report.facts) if json else report.text)
        return
    from sdft_cli.commands.train import train as run_train

    with TrainingDisplay(quiet=json) as display:
        run = run_train(settled, out, display, resume)
    _show(run.folder, json)


def _extend(run: Path, tasks: list[str] | None, plugin: list[Path] | None, json: bool) -> None:
    from sdft_cli.runs.folder import Run
    from sdft_cli.training.display import TrainingDisplay

    if not tasks:
        raise UsageError("--continue needs the tasks to add", "add --tasks NEW_TASK")
    Run.open(run)
    recipe_of(run, plugin, [])
    from sdft_cli.commands.train import extend

    with TrainingDisplay(quiet=json) as display:
        extend(run, tuple(tasks), display)
    _show(run, json)


def _show(run: Path, json: bool) -> None:
    """Print what a run has come to."""
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


@app.command()
def sweep(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file (TOML), which may hold a [grid] table.")] = None,
    grid: Annotated[
        list[str] | None, typer.Option("--grid", help="key=v1,v2,… with a key as in --set, or method; repeatable.")
    ] = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    suite: Watched = None,
    sets: Sets = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas: the first at every point, all at the chosen.")
    ] = None,
    all_seeds: Annotated[bool, typer.Option("--all-seeds", help="Every seed at every point.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side; 1 on a GPU, else half the cores, when not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder; a fresh one under runs/ when not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out; it knows its grid.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train every point of a grid, choose by validation accuracy, and table them all. Finished runs are kept."""
    from sdft_cli.commands.sweep import sweep as run_sweep
    from sdft_cli.config.grid import Asked

    flags: dict[str, Any] = {"tasks": split(tasks), "method": method, "model": model, "suite": suite}
    flags["data"] = str(data) if data else None
    asked = None
    if recipe or grid or sets or any(flags.values()) or not resume:
        settled = new_recipe(recipe, flags, sets or [], plugin, {})
        flags |= {"model": settled.model, "tasks": list(settled.tasks)}
        numbers = _numbers("--seeds", seeds) if seeds else [settled.seed]
        file, files = str(recipe) if recipe else None, [str(p) for p in plugin or []]
        asked = Asked(file, flags, sets or [], files, grid or [], numbers, all_seeds)
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


app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(grade)


@app.command()
def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; the newest one when none is named.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, plots and tables.")] = None,
    single: Annotated[
        list[Path] | None, typer.Option(help="A run of one task alone, to tell intransigence against; repeatable.")
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Tables, plots and one self-contained HTML page from any runs."""
    from sdft_cli.commands import report as verb
    from sdft_cli.runs.folder import newest

    chosen = runs or [newest()]
    folder = out or (chosen[0] / "report" if len(chosen) == 1 else Path("report"))
    told = verb.report(chosen, folder, single or [], force)
    if json:
        print(jsonlib.dumps(told))
    else:
        verb.show(told)
        print(f"report: {folder / 'report.html'}")


@app.command()
def methods(json: Json = False) -> None:
    """List the methods: what each needs and does."""
    from sdft_cli import plugins

    found = [plugins.get("method", name) for name in plugins.names("method")]
    if json:
        print(jsonlib.dumps({m.name: m.model_dump(mode="json") for m in found}))
        return
    for m in found:
        print(f"{m.name:18} {m.summary}\n{'':18} {m.formula}\n{'':18} needs: {', '.join(m.needs)}; paper: {m.paper}\n")


@app.command()
def tasks() -> None:
    """List the tasks, and where their rows come from."""
    from sdft_cli import plugins

    for name in plugins.names("task"):
        task = plugins.get("task", name)
        print(f"{name:16} {task.summary}")


def _version(value: bool) -> None:
    if value:
        from sdft_cli import __version__

        print(f"sdft {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point: exit 0 fine, 1 the run failed, 2 wrong usage or bad input, 3 a gate was broken."""
    try:
        app()
    except SdftError as error:
        say(f"error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        sys.exit(error.code)
    except KeyboardInterrupt:
        say("interrupted; a run goes on with --resume, `sdft prepare` with the same command")
        sys.exit(130)


if __name__ == "__main__":
    main()
