"""What a request comes to: the recipe it is measured under, and the units to measure. Checked before a model loads."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from sdft_cli import console, plugins
from sdft_cli.config.judge_section import check_judge
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Evaluation, build
from sdft_cli.data import dataset
from sdft_cli.data.completion_limits import DemonstratedLimit
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.cache import InRun
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.evaluation.units import Unit, suite_unit, task_unit
from sdft_cli.models import digests
from sdft_cli.runs.records import UnitSettings
from sdft_cli.types import Example, Task


class EvalPlan:
    """A request made concrete for its target.

    ``in_run``: the settings and data are those that the run itself is measured with, so the run keeps the scores.
    """

    def __init__(self, request: EvalRequest):
        self.request, self.target = request, request.target
        of_target = self.target.recipe
        self.recipe = build([of_target.model_dump(mode="json"), request.settings], "--set")
        check_judge(self.recipe.judge)
        if "engine" in request.settings:
            plugins.room("ENGINE").check(self.recipe.engine.name)
        self.data = request.data or Path(self.recipe.data)
        self.settings = _limited(self.recipe.evaluation, request)
        but_for_judge = self.recipe.model_copy(update={"judge": of_target.judge})
        same_settings = but_for_judge == of_target and self.settings == of_target.evaluation
        same_data = self.data.resolve() == Path(of_target.data).resolve()
        self.in_run = self.target.run is not None and request.cache and same_settings and same_data
        if "kl" in request.also and not (self.target.run or request.base):
            raise UsageError("--also kl needs a base model to compare with", "name it with --base")

    @property
    def names(self) -> list[str]:
        """The tasks and suites that are measured."""
        return [unit.title for unit in self.units]

    @property
    def covers_run(self) -> bool:
        """Whether the run's own tasks are measured as they were at its other stages, so that stages can be compared."""
        return self.in_run and all(unit.in_run for unit in self.units if unit.name in self.recipe.tasks)

    @cached_property
    def units(self) -> list[Unit]:
        """Raises `UsageError` for an unknown name or missing data."""
        suite, tasks = self._chosen()
        units = [self._task(name) for name in tasks]
        if suite:
            in_run = self.in_run and suite == self.recipe.suite
            units.append(Unit(suite_unit(suite), in_run, suite=plugins.SUITES.get(suite)))
        return units

    def _chosen(self) -> tuple[str | None, list[str]]:
        """The suite, if any, and the tasks."""
        suite, tasks = self.request.suite, list(self.request.tasks)
        if not tasks and (suite == "new" or (suite is None and self.target.run)):
            tasks = list(dict.fromkeys(self.recipe.tasks))
        if suite == "new" and not tasks:
            raise UsageError("--suite new means the tasks' own test splits, but no task is named", "add --tasks a,b,c")
        if self.request.draws and not tasks:
            raise UsageError("--pass-at samples answers to a task's questions, but no task is named", "add --tasks a,b")
        if suite is None:
            suite = self.recipe.suite if self.target.run else (None if tasks else "micro")
        return (None if suite == "new" else suite), tasks

    def _task(self, name: str) -> Unit:
        """A task with its rows. If the run was measured on other rows, it is scored beside the run."""
        kept = self.kept_in_run(name).find() if self.in_run and name in self.recipe.tasks else None
        if kept and not (self.data / name).is_dir():
            return Unit(name, in_run=True)
        task: Task = plugins.task(name, self.data)
        splits = self._usable(task, dataset.held_out(self.data / name, self.recipe.train.on_bad_row))
        in_run = self.in_run and name in self.recipe.tasks
        if kept and (split := _changed_split(name, splits, kept.settings)):
            file = self.data / name / f"{split}.jsonl"
            console.err.print(
                f"{file} has changed since {self.target.name} was evaluated on it: the scores are kept apart from it",
                soft_wrap=True,
            )
            in_run = False
        return Unit(name, in_run, task, splits=splits, validation=self._validation(task) if in_run else [])

    def _validation(self, task: Task) -> list[Example]:
        """The validation rows; a bad one among them is no reason not to score the test rows."""
        folder = self.data / task.name
        if "validation" not in dataset.available_splits(folder):
            return []
        return self._usable(task, {"validation": dataset.read_split(folder, "validation", "drop")[0]})["validation"]

    def _usable(self, task: Task, splits: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """The rows that the target can answer, where it is a run that was told to drop others: it was measured on these
        alone. Elsewhere such a row is refused when its turn comes."""
        if self.recipe.train.on_bad_row != "drop" or self.target.location is None:
            return splits
        from sdft_cli.models.pretrained import load_chat  # it needs transformers

        chat = load_chat(locate(self.target.location)).switched(self.recipe.views.student_thinking)
        conditions, usable = Conditions.of(self.recipe.views.student, self.settings), {}
        task = DemonstratedLimit(self.data / task.name, chat).of(task, self.settings.max_new_tokens)
        for split, rows in splits.items():
            bad = {row.where for row in conditions.unusable(chat, task, rows)}
            usable[split] = [row for row in rows if row.id not in bad]
        return usable

    def kept_in_run(self, unit: str) -> InRun:
        """Where the run keeps ``unit`` of its last stage."""
        assert self.target.run is not None
        return InRun(self.target.run, self.target.stage, unit)


def _limited(settings: Evaluation, request: EvalRequest) -> Evaluation:
    """The recipe's settings under the request's own limits."""
    limits = {"limit": request.limit, "max_new_tokens": request.max_new_tokens}
    return settings.model_copy(update={name: value for name, value in limits.items() if value is not None})


def _changed_split(task: str, splits: dict[str, list[Example]], settings: dict[str, UnitSettings]) -> str | None:
    """The first split whose rows are not those that were scored, by the recorded digest of them."""
    for split, rows in splits.items():
        recorded = settings.get(task_unit(task, split), {}).get("data")
        if recorded and recorded != digests.of_examples(rows):
            return split
    return None
