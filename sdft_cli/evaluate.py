"""The verb `eval`: a run's final model, or any model, on tasks and suites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdft_cli import console, dataset, models, plugins, scoring
from sdft_cli.errors import UsageError
from sdft_cli.locations import locate
from sdft_cli.recipe import Evaluation, Recipe
from sdft_cli.runs import RUNS, Run, newest
from sdft_cli.templates import VIEWS
from sdft_cli.types import Example, Suite, Task

Tests = list[tuple[Task, dict[str, list[Example]]]]


def evaluate(
    target: str | None, suite: str | None, tasks: list[str] | None, data: Path | None, limit: int | None
) -> dict[str, Any]:
    """Scores of ``target`` (a run, a model folder, a hub id; None: the newest run, else the embedded model).

    ``suite='new'`` means the test splits of the tasks. Without suite and tasks, a run is scored on its own tasks
    and suite, a model on the suite ``micro``. What a run already holds is read, not computed again.
    """
    run, model = _resolve(target)
    recipe = run.recipe if run else Recipe(model=model)
    names = list(tasks or [])
    if not tasks and (suite == "new" or (suite is None and run)):
        names = list(dict.fromkeys(recipe.tasks))
    if suite == "new" and not names:
        raise UsageError("--suite new means the tasks' own test splits, but no task is named", "add --tasks a,b,c")
    suite_name = suite if suite != "new" else None
    if suite is None:
        suite_name = recipe.suite if run else (None if names else "micro")
    chosen: Suite | None = plugins.get("suite", suite_name) if suite_name else None
    folder = data or Path(recipe.data)
    tests = [(plugins.get("task", n), dataset.held_out(folder / n)) for n in names]
    return _Target(run, model, recipe).scores(tests, chosen, limit)


def _resolve(target: str | None) -> tuple[Run | None, str]:
    if target is None:
        if any(RUNS.glob("*/recipe.json")):
            target = str(newest())
            console.err.print(f"nothing named: the newest run, {target}")
        else:
            console.err.print("nothing named and no run in runs/: the embedded micro model")
            return None, "micro"
    if (Path(target) / "recipe.json").is_file():
        return Run.open(Path(target)), ""
    return None, target


class _Target:
    def __init__(self, run: Run | None, model: str, recipe: Recipe):
        self.run, self.model, self.recipe = run, model, recipe

    def scores(self, tests: Tests, suite: Suite | None, limit: int | None) -> dict[str, Any]:
        """What is known from disk, and the rest measured now; a run keeps what is new and unlimited."""
        if self.run is None:
            found, _ = self._measure(self.model, tests, suite, limit)
            return {"model": self.model, **found}
        number, task, location = self._final(self.run)
        known = self.run.read_scores(number, task) or {"stage": number, "task": task, "tasks": {}, "suite": None}
        if limit:
            known = {**known, "tasks": {}, "suite": None}
        have_suite = suite is None or (known["suite"] or {}).get("name") == suite.name
        lacking = [(t, splits) for t, splits in tests if t.name not in known["tasks"]]
        wanted = {t.name for t, _ in tests}
        if lacking or not have_suite:
            found, items = self._measure(location, lacking, None if have_suite else suite, limit)
            known = {**known, "tasks": known["tasks"] | found["tasks"], "suite": found["suite"] or known["suite"]}
            if not limit and known["suite"] is not None and self.recipe.suite in (None, known["suite"]["name"]):
                self.run.write_scores(number, task, known, items)
        shown = {n: s for n, s in known["tasks"].items() if n in wanted}
        return {
            "run": str(self.run.folder),
            "stage": number,
            "tasks": shown,
            "suite": known["suite"] if suite else None,
        }

    @staticmethod
    def _final(run: Run) -> tuple[int, str, str]:
        recipe = run.recipe
        for number, task in reversed(list(enumerate(recipe.tasks, 1))):
            if done := run.finished(number, task):
                return number, task, str(done.model)
        return 0, "base", recipe.model

    def _measure(
        self, location: str, tests: Tests, suite: Suite | None, limit: int | None
    ) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        policy = models.load(locate(location), self.recipe.runtime)
        engine = plugins.get("engine", self.recipe.engine.name)(policy, self.recipe.engine.max_batch)
        settings = Evaluation(limit=limit, max_new_tokens=self.recipe.evaluation.max_new_tokens)
        view = VIEWS[self.recipe.views.student]
        chat = policy.chat.switched(self.recipe.views.student_thinking)
        return scoring.measure(engine, chat, tests, suite, view, settings)


def print_scores(scores: dict[str, Any]) -> None:
    """One line a task, the suite's parts below."""
    console.out.print(f"{scores.get('run') or scores.get('model')}", highlight=False, soft_wrap=True)
    for name, summary in scores["tasks"].items():
        print(_line(name, summary))
        for key, value in summary.get("extra", {}).items():
            print(f"  {key:20} {value:.3f}")
        if "ood" in summary:
            print(_line("  ood", summary["ood"]))
        if summary["note"]:
            print(f"    {summary['note']}")
    if scores["suite"]:
        print(_line(f"suite {scores['suite']['name']}", scores["suite"]))
        for name, summary in scores["suite"]["parts"].items():
            print(_line(f"  {name}", summary))


def _line(name: str, summary: dict[str, Any]) -> str:
    if summary["accuracy"] is None:
        return f"{name:22} not scored ({summary['unscored']} rows)"
    low, high = summary["interval"]
    return f"{name:22} {summary['accuracy']:.3f}  [{low:.3f}, {high:.3f}]  n {summary['n']}"
