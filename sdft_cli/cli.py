"""The command line: flags to a recipe to one function. Nothing heavy is imported before the flags are checked."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdft_cli.errors import SdftError, UsageError

if TYPE_CHECKING:
    from sdft_cli.recipe import Recipe

MICRO_TASKS = "micro-tooluse,micro-science,micro-medical"

app = typer.Typer(
    name="sdft",
    help="Teach a language model new skills by self-distillation, and prove that nothing old was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder that holds one dataset folder a task.")]
Tasks = Annotated[str | None, typer.Option("--tasks", help="Task names, separated by commas, in their order.")]
Plugin = Annotated[list[Path] | None, typer.Option("--plugin", help="A .py file with a task, method, … of your own.")]


def _split(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError("--tasks names no task", "write --tasks a,b,c")
    return names


def _say(text: str) -> None:
    print(text, file=sys.stderr)


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
    from sdft_cli.demo import demo as run_demo

    results = run_demo(out, _split(methods) or [], seed, world, quick, quiet=json)
    if json:
        print(jsonlib.dumps(results))


@app.command()
def prepare(
    tasks: Tasks = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="TASK=PATH of a file or folder; repeatable.")
    ] = None,
    data: Data = None,
    demonstrations: Annotated[
        str, typer.Option(help="'source': as the source has them; 'answer': render the gold answer as one.")
    ] = "source",
    on_bad_row: Annotated[str, typer.Option("--on-bad-row", help="drop (at most 5 %, all listed) or error.")] = "drop",
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    world: Annotated[int, typer.Option(help="Which hidden rules the micro tasks have.")] = 0,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Turn raw sources into dataset folders, one a task, with every dropped row listed."""
    from sdft_cli import plugins
    from sdft_cli.prepare import prepare as run_prepare
    from sdft_cli.prepare import print_summaries
    from sdft_cli.types import PrepareOptions

    _choice("--demonstrations", demonstrations, ("source", "answer"))
    _choice("--on-bad-row", on_bad_row, ("drop", "error"))
    for path in plugin or []:
        plugins.load_file(path)
    sources: dict[str, list[Path]] = {}
    for text in source or []:
        task, equals, path_text = text.partition("=")
        if not equals or not task or not path_text:
            raise UsageError(f"--source {text}: not of the form TASK=PATH", "write --source science=raw/chemistry")
        sources.setdefault(task, []).append(Path(path_text))
    names = _split(tasks) or list(sources) or MICRO_TASKS.split(",")
    options = PrepareOptions(demonstrations, seed, world)
    summaries = run_prepare(names, sources, data or Path("data"), options, on_bad_row)
    if json:
        print(jsonlib.dumps({"tasks": summaries}))
    else:
        print_summaries(summaries)


def _choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    from sdft_cli.errors import choose

    if value not in choices:
        raise choose(flag, value, choices)


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file (TOML); flags override it.")] = None,
    tasks: Tasks = None,
    method: Annotated[str | None, typer.Option(help="How to learn; `sdft methods` lists them.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder or hub id; the embedded one when not given.")
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; a fresh one under runs/ when not given.")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite of prior skills to watch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of data order and sampling.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="key=value of the recipe; repeatable.")] = None,
    on_bad_row: Annotated[str | None, typer.Option("--on-bad-row", help="error (default) or drop.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    continue_run: Annotated[
        Path | None, typer.Option("--continue", help="Add --tasks to a finished run; its matrix grows.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen and stop.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train a sequence of tasks, measuring every task and the prior suite before and after each stage."""
    from sdft_cli.console import TrainingDisplay

    if resume and continue_run:
        raise UsageError(
            "--resume and --continue exclude each other", "resume an unfinished run, continue a finished one"
        )
    if on_bad_row:
        _choice("--on-bad-row", on_bad_row, ("drop", "error"))
        sets = [*(sets or []), f"train.on_bad_row={on_bad_row}"]
    if continue_run:
        _extend(continue_run, _split(tasks), plugin, json)
        return
    if resume and out is None:
        raise UsageError("--resume needs to know which run", "name it with --out RUN")
    if resume and out is not None:
        settled = _settled(out, plugin)
    else:
        flags: dict[str, Any] = {"tasks": _split(tasks), "method": method, "model": model, "suite": suite, "seed": seed}
        flags["data"] = str(data) if data else None
        settled = _settle(recipe, flags, sets or [], plugin)
    if dry_run:
        from sdft_cli.dryrun import dry_run as run_dry

        report = run_dry(settled)
        print(jsonlib.dumps(report.facts) if json else report.text)
        return
    from sdft_cli.train import train as run_train

    with TrainingDisplay(quiet=json) as display:
        run = run_train(settled, out, display, resume)
    _show([run.folder], json)


def _settle(file: Path | None, flags: dict[str, Any], sets: list[str], plugin: list[Path] | None) -> Recipe:
    """The recipe of a new run; says which defaults it fell back on."""
    from sdft_cli.assemble import assemble

    settled = assemble(file, flags, sets, plugin)
    if not settled.model:
        _say("no model named: using the embedded micro model (--model PATH_OR_HUB_ID to choose)")
        settled = settled.model_copy(update={"model": "micro"})
    if not settled.tasks:
        _say(f"no task named: using {MICRO_TASKS} (--tasks a,b,c to choose)")
        settled = settled.model_copy(update={"tasks": tuple(MICRO_TASKS.split(","))})
    return settled


def _settled(out: Path, plugin: list[Path] | None) -> Recipe:
    """The recipe of a run that is resumed: the one it was started with."""
    from sdft_cli import plugins
    from sdft_cli.recipe import Recipe

    if not (out / "recipe.json").is_file():
        raise UsageError(f"{out} is not a run: it has no recipe.json", "leave --resume out to start one there")
    for path in plugin or []:
        plugins.load_file(path)
    settled = Recipe.load(out / "recipe.json")
    for name in settled.plugins:
        plugins.load_file(name)
    return settled


def _extend(run: Path, tasks: list[str] | None, plugin: list[Path] | None, json: bool) -> None:
    from sdft_cli.console import TrainingDisplay
    from sdft_cli.runs import Run

    if not tasks:
        raise UsageError("--continue needs the tasks to add", "add --tasks NEW_TASK")
    Run.open(run)
    _settled(run, plugin)
    from sdft_cli.train import extend

    with TrainingDisplay(quiet=json) as display:
        extend(run, tuple(tasks), display)
    _show([run], json)


def _show(runs: list[Path], json: bool) -> None:
    """Print the matrix of each run, and the methods side by side if there are several."""
    from sdft_cli import console, results

    loaded = [results.load_run(r) for r in runs]
    if json:
        print(jsonlib.dumps({"runs": {str(r): results.method_record(x) for r, x in zip(runs, loaded, strict=True)}}))
        return
    for run in loaded:
        console.out.print(console.matrix_table(run))
    if len(loaded) > 1:
        console.out.print(console.side_by_side(loaded, results.labels(loaded)))
    for path in runs:
        console.out.print(f"run: {path}   next: sdft report {path}", soft_wrap=True, highlight=False)


@app.command(name="eval")
def evaluate(
    target: Annotated[str | None, typer.Argument(help="A run folder, a model folder or a hub id; newest run.")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite to score; 'new' means the tasks' own test splits.")] = None,
    tasks: Tasks = None,
    data: Data = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows a task.")] = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Score a run's final model, or any model, on tasks and suites."""
    from sdft_cli import plugins
    from sdft_cli.evaluate import evaluate as run_evaluate
    from sdft_cli.evaluate import print_scores

    for path in plugin or []:
        plugins.load_file(path)
    if suite and suite != "new":
        plugins.get("suite", suite)
    for name in _split(tasks) or []:
        plugins.get("task", name)
    scores = run_evaluate(target, suite, _split(tasks), data, limit)
    if json:
        print(jsonlib.dumps(scores))
    else:
        print_scores(scores)


@app.command()
def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; the newest one when none is named.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, plots and tables.")] = None,
    json: Json = False,
) -> None:
    """Tables, plots and one self-contained HTML page from any runs."""
    from sdft_cli.report import report as run_report
    from sdft_cli.runs import newest

    chosen = runs or [newest()]
    folder = out or (chosen[0] / "report" if len(chosen) == 1 else Path("report"))
    facts = run_report(chosen, folder)
    if json:
        print(jsonlib.dumps(facts))
    else:
        _show(chosen, False)
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
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        sys.exit(error.code)
    except KeyboardInterrupt:
        _say("interrupted; add --resume to go on with a run")
        sys.exit(130)


if __name__ == "__main__":
    main()
