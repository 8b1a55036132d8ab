"""What a run comes to before any weights are loaded: its stages as they will be trained, and whether its inputs are
those that it was started with."""

from __future__ import annotations

from dataclasses import dataclass

from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.evaluation.run_judging import check_rubrics
from sdft_cli.models import pretrained
from sdft_cli.models.chat import Chat
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.training.model_checks import check_model
from sdft_cli.training.preflight import StagePlan, notes_of, plan
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.types import Task


@dataclass(frozen=True)
class RunPlan:
    """``stages`` has a plan for every stage, ``todo`` the numbers (from 1) of those that are not finished, ``notes``
    what is worth saying before the first step."""

    recipe: Recipe
    location: str
    chat: Chat
    stages: list[StagePlan]
    todo: list[int]
    notes: list[str]

    @property
    def tasks(self) -> list[Task]:
        """The task of every stage."""
        return [stage.task for stage in self.stages]


def plan_run(recipe: Recipe, run: Run | None = None) -> RunPlan:
    """The plan of a new run, or of what is left of ``run`` under ``recipe``.

    Everything that can be wrong and can be known before a model loads is raised here (`UsageError`).
    """
    check_recipe(recipe)
    location = locate(recipe.model)
    chat = pretrained.load_chat(location)
    own = [finished_recipe(run, StageId(i, task)) for i, task in enumerate(recipe.tasks, 1)]
    recipes = [recipe if finished is None else _lenient(finished, recipe) for finished in own]
    stages = plan(recipe, chat, recipes)
    check_rubrics(recipe, [stage.task for stage in stages])
    todo = [i for i, finished in enumerate(own, 1) if finished is None]
    return RunPlan(recipe, location, chat, stages, todo, [*notes_of(stages), *check_model(recipe)])


def finished_recipe(run: Run | None, stage: StageId) -> Recipe | None:
    """What a finished ``stage`` of ``run`` was trained with; None where it is not finished."""
    if run is None or run.checkpoints.of(stage).finished() is None:
        return None
    return run.recipe_of(stage)


def _lenient(finished: Recipe, recipe: Recipe) -> Recipe:
    """A finished stage's recipe where ``recipe`` has the data and the model now. Its training rows are not trained on
    again, so a bad one among them stops nothing."""
    train = finished.train.model_copy(update={"on_bad_row": "drop"})
    return finished.model_copy(update={"train": train, "data": recipe.data, "model": recipe.model})
