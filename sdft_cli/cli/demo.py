"""`sdft demo`: flags to one function."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.options import Json, Plugin, Sets, split


def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, results.json and report.html.")] = Path("runs/demo"),
    methods: Annotated[str, typer.Option(help="Methods to compare, separated by commas.")] = "sdft,sft",
    model: Annotated[
        str | None,
        typer.Option(help="A model folder, GGUF file or hub id, or smollm2; the embedded model if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of data order and sampling.")] = 0,
    world: Annotated[int | None, typer.Option(help="Which hidden rules the embedded model's tasks have.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only a few steps, to see that everything runs.")] = False,
    sets: Sets = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train a model with SDFT and SFT on three tasks in a row, and compare them.

    The report shows what each method learned and what it forgot. The embedded model takes a few minutes; any other
    learns tasks in plain English, which the first lines say how long will take.
    """
    from sdft_cli.commands.demo import Demo
    from sdft_cli.commands.demo import demo as run_demo

    names, model = split(methods, "--methods") or [], None if model == "micro" else model
    asked = Demo(names, seed, world, model, quick, sets or [], plugin or [])
    results = run_demo(out, asked, quiet=json)
    if json:
        print(jsonlib.dumps(results))
