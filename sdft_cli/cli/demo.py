"""`sdft demo`: flags to one function."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli.options import Json, Plugin, split


def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, results.json and report.html.")] = Path("runs/demo"),
    methods: Annotated[str, typer.Option(help="Methods to compare, separated by commas.")] = "sdft,sft",
    seed: Annotated[int, typer.Option(help="Seed of data order and sampling.")] = 0,
    world: Annotated[int, typer.Option(help="Which hidden rules the new tasks have.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Only a few steps, to see that everything runs.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Train the embedded model with SDFT and SFT, and compare them.

    Three tasks in a row, a few minutes; the report shows what each method learned and what it forgot.
    """
    from sdft_cli.commands.demo import demo as run_demo

    results = run_demo(out, split(methods, "--methods") or [], seed, world, quick, quiet=json, plugins=plugin or [])
    if json:
        print(jsonlib.dumps(results))
