"""The `demo` command: prepare, train with each method, report. It does nothing that these commands do not do alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdft_cli.commands.prepare import prepare
from sdft_cli.commands.report import report, show
from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import absolute_paths, assemble
from sdft_cli.errors import UsageError
from sdft_cli.reporting.results_json import DemoResults, demo_results
from sdft_cli.runs import results
from sdft_cli.runs.cores import cores
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.folder import Run
from sdft_cli.runs.parallel_runs import Job, train_all
from sdft_cli.types import PrepareOptions

TASKS = ("micro-tooluse", "micro-science", "micro-medical")


def demo(
    out: Path, methods: list[str], seed: int, world: int, quick: bool, quiet: bool = False, plugins: Sequence[Path] = ()
) -> DemoResults:
    """Train the embedded model on three tasks in a row, once with each method; returns what ``results.json`` holds.

    Finished runs in ``out`` are kept, so a demo that was interrupted goes on where it stopped.
    """
    began = time.perf_counter()
    recipes = {m: _recipe(out, m, seed, world, quick, plugins) for m in methods}
    _check(out, recipes)
    prepare(list(TASKS), {}, out / "data", PrepareOptions(world=world))
    runs = _train(out, recipes, quiet)
    seconds = time.perf_counter() - began
    record = demo_results([results.load_run(run) for run in runs], seed, world, seconds)
    summary = report(runs, out)
    write_whole(out / "results.json", json.dumps(record, indent=1) + "\n")
    if not quiet:
        show(summary)
        print(f"report:  {out / 'report.html'}\nresults: {out / 'results.json'}   ({seconds / 60:.1f} minutes)")
    return record


def _recipe(out: Path, method: str, seed: int, world: int, quick: bool, plugins: Sequence[Path]) -> Recipe:
    flags = {"method": method, "model": "micro", "tasks": list(TASKS), "suite": "micro", "seed": seed, "world": world}
    sets = ["threads=1"]  # a tiny model gains nothing from more, and figures then do not depend on their number
    sets += ["max_steps=4", "evaluation.limit=16", "eval_every=2", "eval_limit=8"] if quick else []
    return assemble(None, {**flags, "data": str(out / "data")}, sets, plugins)


def _check(out: Path, recipes: Mapping[str, Recipe]) -> None:
    """Refuse a folder whose runs have other settings."""
    for method, recipe in recipes.items():
        folder = out / method
        if (folder / "recipe.json").is_file() and absolute_paths(Run.open(folder).recipe) != recipe:
            raise UsageError(f"{out} holds a demo with other settings", "name another folder with --out, or remove it")


def _train(out: Path, recipes: Mapping[str, Recipe], quiet: bool) -> list[Path]:
    """Every method's run, side by side as far as there are cores."""
    for method, recipe in recipes.items():
        if not (out / method / "recipe.json").is_file():
            Run.create(out / method, recipe)
        if not quiet:
            print(f"{method}: {' -> '.join(recipe.tasks)}", file=sys.stderr)
    jobs = [Job(m, out / m, (r.train.max_steps or 0) * len(r.tasks)) for m, r in recipes.items()]
    train_all(jobs, min(len(jobs), cores()), quiet)
    return [job.folder for job in jobs]
