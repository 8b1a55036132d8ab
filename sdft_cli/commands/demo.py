"""The `demo` command: prepare, train with each method, report. It does nothing that these commands do not do alone.

Without a model it trains the embedded one on three tasks of its own made-up world; with one, three tasks in plain
English (`sdft_cli.desk`), under the recipe beside them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft_cli import console
from sdft_cli.commands.prepare import prepare
from sdft_cli.commands.report import report, show
from sdft_cli.config.overrides import unlike
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

DESK = Path(__file__).parents[1] / "desk" / "demo.toml"
MICRO_TASKS = ("micro-tooluse", "micro-science", "micro-medical")
#: A tiny model gains nothing from more threads, and its figures then do not depend on their number.
MICRO_SETS = ("threads=1",)
MICRO_QUICK = ("max_steps=2", "batch=8", "evaluation.limit=4", "eval_every=2", "eval_limit=4")
DESK_QUICK = ("max_steps=2", "evaluation.limit=4")


@dataclass(frozen=True)
class Demo:
    """What a demo trains. ``model``: a folder, a GGUF file or a hub id; the embedded model if None, of which ``world``
    (0 if None) chooses the hidden rules. ``sets`` are settings of every run, as for ``--set``."""

    methods: Sequence[str]
    seed: int = 0
    world: int | None = None
    model: str | None = None
    quick: bool = False
    sets: Sequence[str] = ()
    plugins: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if self.model and self.world is not None:
            problem = f"--world {self.world}: only the embedded model's tasks have hidden rules"
            raise UsageError(problem, "leave out --world, or --model")

    def recipes(self, data: Path) -> dict[str, Recipe]:
        """A recipe for every method."""
        return {method: self._recipe(method, data) for method in self.methods}

    def _recipe(self, method: str, data: Path) -> Recipe:
        flags: dict[str, object] = {"method": method, "seed": self.seed, "data": str(data)}
        if self.model:
            return self._assemble(DESK, {**flags, "model": self.model}, (), DESK_QUICK)
        flags |= {"model": "micro", "tasks": list(MICRO_TASKS), "suite": "micro", "world": self.world or 0}
        return self._assemble(None, flags, MICRO_SETS, MICRO_QUICK)

    def _assemble(
        self, file: Path | None, flags: Mapping[str, object], sets: Sequence[str], quick: Sequence[str]
    ) -> Recipe:
        recipe = assemble(file, flags, [*sets, *(quick if self.quick else ()), *self.sets], self.plugins)
        if recipe.method != flags["method"]:
            raise UsageError("--set method: a demo compares several methods", "name them with --methods a,b")
        return recipe


def demo(out: Path, asked: Demo, quiet: bool = False) -> DemoResults:
    """Train one model on three tasks in a row, once with each method; returns what ``results.json`` holds.

    Finished runs in ``out`` are kept, so a demo that was interrupted goes on where it stopped.
    """
    began = time.perf_counter()
    recipes = asked.recipes(out / "data")
    _check(out, recipes)
    first = next(iter(recipes.values()))
    prepare(list(first.tasks), {}, Path(first.data), PrepareOptions(world=first.world))
    at_once = _outlook(out, recipes) if asked.model else min(len(recipes), cores())
    runs = _train(out, recipes, at_once, quiet)
    seconds = time.perf_counter() - began
    record = demo_results([results.load_run(run) for run in runs], first, seconds)
    summary = report(runs, out)
    write_whole(out / "results.json", json.dumps(record, indent=1) + "\n")
    if not quiet:
        show(summary)
        print(f"report:  {out / 'report.html'}\nresults: {out / 'results.json'}   ({seconds / 60:.1f} minutes)")
    return record


def _check(out: Path, recipes: Mapping[str, Recipe]) -> None:
    """Refuse a folder whose runs have other settings."""
    for method, recipe in recipes.items():
        folder = out / method
        if (folder / "recipe.json").is_file() and unlike(absolute_paths(Run.open(folder).recipe), recipe):
            raise UsageError(f"{out} holds a demo with other settings", "name another folder with --out, or remove it")


def _outlook(out: Path, recipes: Mapping[str, Recipe]) -> int:
    """How many of the runs that are left are trained side by side: as many as there are cores and memory for. Says how
    long they will take. Whatever can be wrong with them is raised here, before any of them starts."""
    from sdft_cli.training import run_time, side_by_side
    from sdft_cli.training.run_plan import plan_run

    begun = {m: Run.open(out / m) for m in recipes if (out / m / "recipe.json").is_file()}
    plans = {m: plan_run(r, begun.get(m)) for m, r in recipes.items() if not (m in begun and begun[m].done)}
    if not plans:
        return 1
    at_once = side_by_side.most(list(plans.values()), min(len(plans), cores()))
    console.err.print("timing the model on a few prompts, to say how long the demo will take")
    speed = run_time.speed(next(iter(plans.values())), max(1, cores() // at_once))
    seconds = {method: run_time.seconds(plan, speed) for method, plan in plans.items()}
    console.err.print(_said(seconds, at_once), soft_wrap=True, markup=False)
    return at_once


def _said(seconds: Mapping[str, float], at_once: int) -> str:
    """How long the runs will take, in a line."""
    total = max([*seconds.values(), sum(seconds.values()) / at_once])
    how = "side by side" if at_once > 1 else "one after the other"
    each = ", ".join(f"{method} {console.duration(s)}" for method, s in seconds.items())
    return f"about {console.duration(total)} on this machine" + (f" ({each}; {how})" if len(seconds) > 1 else "")


def _train(out: Path, recipes: Mapping[str, Recipe], at_once: int, quiet: bool) -> list[Path]:
    """Every method's run, ``at_once`` side by side."""
    for method, recipe in recipes.items():
        if not (out / method / "recipe.json").is_file():
            Run.create(out / method, recipe)
        if not quiet:
            print(f"{method}: {' -> '.join(recipe.tasks)}", file=sys.stderr)
    waiting = {m: r for m, r in recipes.items() if not Run.open(out / m).done}
    train_all([Job(m, out / m, (r.train.max_steps or 0) * len(r.tasks)) for m, r in waiting.items()], at_once, quiet)
    return [out / method for method in recipes]
