"""`sdft probe`: flags to one function."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.hardware_options import DeviceMemory, Gpus, bytes_of, hardware_of
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
    at_its_place,
    new_recipe,
    recipe_flags,
    say,
)
from sdft_cli.errors import GateError, SdftError, UsageError


def probe(
    recipe: File = None,
    tasks: Tasks = None,
    method: Method = None,
    model: Model = None,
    data: Data = None,
    base: Moved = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum training rows per task.")] = 64,
    seed: Seed = None,
    engine: Sampling = None,
    judge: Judge = None,
    judge_base_url: JudgeUrl = None,
    judge_key_env: JudgeKeyEnv = None,
    sets: Sets = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Leave out other views, lower temperatures, the teacher taking over, and the cost of other methods.",
        ),
    ] = False,
    write_recipe: Annotated[
        Path | None, typer.Option("--write-recipe", help="Write the recommended recipe to this new file (TOML).")
    ] = None,
    gpus: Gpus = None,
    device_memory: DeviceMemory = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there is a warning.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Check before training whether the model can teach itself, and with which settings.

    Compares the student with the teacher under every view that the rows can show, and ends in a verdict and a recipe.
    Predicts steps, time and memory.
    """
    if gpus is not None and device_memory is None:
        raise UsageError(f"--gpus {gpus}: a probe runs on one device", "add --device-memory to plan for others")
    if device_memory is not None:
        bytes_of(device_memory)
    judging = {"judge": judge, "judge_base_url": judge_base_url, "judge_key_env": judge_key_env}
    flags = recipe_flags(tasks, method, model, data, seed=seed, engine=engine, **judging)
    settings = at_its_place(new_recipe(recipe, flags, sets or [], plugin), base)
    from sdft_cli.commands.probe import probe as run_probe
    from sdft_cli.reporting.probe import show

    hardware = None if device_memory is None else hardware_of(gpus, device_memory)
    report = run_probe(settings, limit, quick, write_recipe, hardware)
    if json:
        print(jsonlib.dumps(report))
    show(report, quiet=json)
    if write_recipe:
        if not report["recipe"]:
            raise SdftError("no recipe was written: there is no task to train", "see the verdicts above")
        say(f"recipe written to {write_recipe}")
    if strict and report["warnings"]:
        raise GateError(f"{len(report['warnings'])} warnings, and --strict was given", "see the warnings above")
