"""The flags that several verbs share, and how they become a recipe. Nothing heavy comes in before they are checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdft_cli.errors import UsageError, choose

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Recipe

MICRO_TASKS = "micro-tooluse,micro-science,micro-medical"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
File = Annotated[Path | None, typer.Argument(help="A recipe file (TOML); flags override it.")]
Tasks = Annotated[str | None, typer.Option("--tasks", help="Task names, separated by commas, in their order.")]
Method = Annotated[str | None, typer.Option(help="How to learn; `sdft methods` lists them.")]
Model = Annotated[str | None, typer.Option(help="A model folder or hub id; the embedded one when not given.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder that holds one dataset folder a task.")]
Watched = Annotated[str | None, typer.Option("--suite", help="Suite of prior skills to watch.")]
Seed = Annotated[int | None, typer.Option(help="Seed of data order and sampling.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="key=value of the recipe; repeatable.")]
Sampling = Annotated[
    str | None, typer.Option("--engine", help="What samples completions: transformers (default), vllm or vllm-server.")
]
Plugin = Annotated[list[Path] | None, typer.Option("--plugin", help="A .py file with a task, method, … of your own.")]


def split(text: str | None) -> list[str] | None:
    """The names in ``a,b,c``; None for a flag that was not given."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError("--tasks names no task", "write --tasks a,b,c")
    return names


def say(text: str) -> None:
    """One line for a person, where it does not disturb ``--json``."""
    print(text, file=sys.stderr)


def choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a ``value`` that is none of ``choices``."""
    if value not in choices:
        raise choose(flag, value, choices)


def with_engine(sets: list[str] | None, engine: str | None) -> list[str]:
    """``--set`` assignments with what ``--engine`` says as one of them."""
    from sdft_cli import plugins

    if engine is None:
        return sets or []
    if engine not in plugins.names("engine"):
        raise choose("engine", engine, plugins.names("engine"))
    return [*(sets or []), f"engine.name={engine}"]


def new_recipe(
    file: Path | None,
    flags: dict[str, Any],
    sets: list[str],
    plugin: list[Path] | None,
    point: dict[str, Any] | None = None,
) -> Recipe:
    """The recipe of a new run, or (with a ``point``) of a sweep; says which defaults it fell back on."""
    from sdft_cli.config.layers import assemble

    settled = assemble(file, flags, sets, plugin, point)
    if not settled.model:
        say("no model named: using the embedded micro model (--model PATH_OR_HUB_ID to choose)")
        settled = settled.model_copy(update={"model": "micro"})
    if not settled.tasks:
        say(f"no task named: using {MICRO_TASKS} (--tasks a,b,c to choose)")
        settled = settled.model_copy(update={"tasks": tuple(MICRO_TASKS.split(","))})
    return settled


def recipe_of(out: Path, plugin: list[Path] | None, sets: list[str]) -> Recipe:
    """The recipe of a run that goes on: the one it was started with, and ``sets`` where they can still change."""
    from sdft_cli import plugins
    from sdft_cli.config.overrides import change
    from sdft_cli.runs.folder import Run

    if not (out / "recipe.json").is_file():
        raise UsageError(f"{out} is not a run: it has no recipe.json", "leave --resume out to start one there")
    for path in plugin or []:
        plugins.load_file(path)
    settled = Run.open(out).recipe
    for name in settled.plugins:
        plugins.load_file(name)
    return change(settled, sets)
