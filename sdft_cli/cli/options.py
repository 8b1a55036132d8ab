"""The flags that several commands share, and how they become a recipe. Heavy imports come after they are checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.errors import UsageError, choose

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Recipe
    from sdft_cli.config.toml_tables import Layer

#: The flags whose recipe key has another name.
FLAG_KEYS = {
    "engine": "engine.name",
    "on_bad_row": "train.on_bad_row",
    "stop_if_prior_drops": "train.stop_if_prior_drops",
    "judge": "judge.model",
    "judge_base_url": "judge.base_url",
    "judge_key_env": "judge.key_env",
}
MICRO_TASKS = "micro-tooluse,micro-science,micro-medical"


def load_plugins(files: list[Path] | None) -> list[Path] | None:
    """Load plug-in files, as soon as ``--plugin`` is read and before any other flag: those may name what they bring."""
    from sdft_cli import plugins

    for file in files or []:
        plugins.load_file(file)
    return files


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
File = Annotated[Path | None, typer.Argument(help="Recipe file (TOML); flags override it.")]
Tasks = Annotated[str | None, typer.Option("--tasks", help="Task names in order, separated by commas.")]
Method = Annotated[str | None, typer.Option(help="Training method; `sdft methods` lists them.")]
Model = Annotated[str | None, typer.Option(help="Model folder or hub id; the embedded model if not given.")]
Moved = Annotated[
    Path | None,
    typer.Option("--base", help="Where the run's first model, or an adapter's base, is now if it has moved."),
]
Data = Annotated[Path | None, typer.Option("--data", help="Folder that holds one dataset folder per task.")]
Watched = Annotated[str | None, typer.Option("--suite", help="Suite of prior skills to watch.")]
Seed = Annotated[int | None, typer.Option(help="Seed of data order and sampling.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Set a recipe key, as key=value; repeatable.")]
Sampling = Annotated[
    str | None,
    typer.Option("--engine", help="Sampling engine: transformers (default), vllm, vllm-server or a plug-in's."),
]
Judge = Annotated[
    str | None, typer.Option("--judge", help="Model that judges open answers: its name at an endpoint, or local:PATH.")
]
JudgeUrl = Annotated[
    str | None, typer.Option("--judge-base-url", help="Endpoint of the judge; by default that of OpenAI.")
]
JudgeKeyEnv = Annotated[
    str | None,
    typer.Option(
        "--judge-key-env",
        help="Environment variable with the judge's API key; if not given, OPENAI_API_KEY at OpenAI's own host.",
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        callback=load_plugins,
        is_eager=True,
        help="Python file with a task, method, engine, … of your own; repeatable.",
    ),
]


def split(text: str | None, flag: str = "--tasks") -> list[str] | None:
    """The names in ``a,b,c``; None for a flag that was not given."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError(f"{flag} names nothing", f"write {flag} a,b,c")
    return names


def say(text: str) -> None:
    """One line for people, on stderr because stdout may be read by a program (``--json``)."""
    print(text, file=sys.stderr)


def choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a ``value`` that is none of ``choices``."""
    if value not in choices:
        raise choose(flag, value, choices)


def recipe_flags(
    tasks: str | None, method: str | None, model: str | None, data: Path | None, **more: object
) -> dict[str, object]:
    """The flags that are recipe keys, by dotted key; None for those not given. Paths become absolute, so that they mean
    the same wherever they are read again. Names are checked with the recipe's other names."""
    from sdft_cli.config import model_locations

    return {
        "tasks": split(tasks),
        "method": method,
        "model": model_locations.absolute(model) if model else model,
        "data": os.path.abspath(data) if data else None,
        **{FLAG_KEYS.get(name, name): value for name, value in more.items()},
    }


def new_recipe(
    file: Path | None,
    flags: Mapping[str, object],
    sets: list[str],
    plugin: list[Path] | None,
    point: Layer | None = None,
) -> Recipe:
    """The recipe of a new run, or (with a ``point``) of a sweep; reports the defaults it falls back on."""
    from sdft_cli.config.recipe_layers import assemble

    recipe = assemble(file, flags, sets, plugin, point)
    if not recipe.model:
        say("no model named: using the embedded micro model (--model PATH_OR_HUB_ID to choose)")
        recipe = recipe.model_copy(update={"model": "micro"})
    if not recipe.tasks:
        say(f"no task named: using {MICRO_TASKS} (--tasks a,b,c to choose)")
        recipe = recipe.model_copy(update={"tasks": tuple(MICRO_TASKS.split(","))})
    return recipe


def at_its_place(recipe: Recipe, base: Path | None, run: Path | None = None) -> Recipe:
    """The recipe with the place where its model is by now (``--base``); ``run`` is a run that is gone on with. A model
    that is named anew is looked for there alone."""
    from sdft_cli.config.model_locations import absolute
    from sdft_cli.models.base_models import move

    if run and recipe.model != absolute(run_recipe(run, "--base").model):
        if base:
            raise UsageError("--base and --model both name the run's model", "leave out one of them")
        return recipe
    return recipe.model_copy(update={"model": move(recipe.model, base, run)})


def recipe_of(
    run: Path,
    plugin: list[Path] | None,
    sets: list[str],
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
) -> Recipe:
    """The recipe of a run to go on with: the one it was started with, with plug-ins added, and whatever else is given
    if that can still change (`UsageError` if not)."""
    from sdft_cli.config.run_changes import Given, resumed

    return resumed(run_recipe(run, "--resume"), Given(file, flags or {}, sets, plugin or ()))


def run_recipe(run: Path, flag: str) -> Recipe:
    """The recipe of the run that ``flag`` is about."""
    from sdft_cli.runs.folder import Run

    if not (run / "recipe.json").is_file():
        raise UsageError(f"{run} is not a run: it has no recipe.json", f"leave out {flag} to start one there")
    return Run.open(run).recipe
