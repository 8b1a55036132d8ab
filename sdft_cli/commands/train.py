"""The `train` command: a sequence of tasks, one stage each, with every task measured before and after every stage.

The run folder is the only state: whatever is complete there is not done again, which is all that ``--resume`` and
``--continue`` need.
"""

from __future__ import annotations

import time
from pathlib import Path

from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.stage_evaluator import StageEvaluator
from sdft_cli.models import pretrained
from sdft_cli.runs.folder import Run, fresh_name
from sdft_cli.runs.records import BASE, StageId
from sdft_cli.training.disk_space import check_disk
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.log import TrainingLog
from sdft_cli.training.preflight import StagePlan, complaints, notes_of, plan
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.training.stage import StageTrainer
from sdft_cli.training.stage_start import load_engine


def train(recipe: Recipe, out: Path | None, display: TrainingDisplay, resume: bool = False) -> Run:
    """Run ``recipe`` in the folder ``out`` (a new one under runs/ when None); returns the run."""
    plans = _plans(recipe)
    if resume and out is None:
        raise UsageError("--resume needs to know which run", "name it with --out RUN")
    folder = out or fresh_name(recipe)
    check_disk(recipe, locate(recipe.model), folder)
    run = Run.open(folder) if resume else Run.create(folder, recipe)
    with run.locked():
        if resume:
            run.checkpoints.recover()
            run.change_recipe(recipe)
        _train_stages(run, plans, display)
    return run


def extend(folder: Path, tasks: tuple[str, ...], display: TrainingDisplay, plugins: tuple[str, ...] = ()) -> Run:
    """``--continue``: add ``tasks`` to a finished run; its matrix grows by as many rows and columns. ``plugins`` are
    the files that it needs from now on, if they are not those of before."""
    run = Run.open(folder)
    for stage in run.stages():
        if run.checkpoints.of(stage).finished() is None:
            problem = f"stage {stage.number} ({stage.task}) is not finished"
            raise UsageError(f"{folder}: {problem}", "finish it first with --resume")
    longer = {"tasks": (*run.recipe.tasks, *tasks), "plugins": plugins or run.recipe.plugins}
    recipe = run.recipe.model_copy(update=longer)
    plans = _plans(recipe)
    check_disk(recipe, locate(recipe.model), folder)
    with run.locked():
        run.reopen()
        run.save_recipe(recipe)
        _train_stages(run, plans, display)
    return run


def _plans(recipe: Recipe) -> list[StagePlan]:
    """Everything that can be wrong and can be known before a model loads is raised here (`UsageError`)."""
    check_recipe(recipe)
    location = locate(recipe.model)
    return plan(recipe, pretrained.load_chat(location))


def _train_stages(run: Run, plans: list[StagePlan], display: TrainingDisplay) -> None:
    """Train and measure whatever is not complete on disk."""
    began = time.perf_counter()
    for line in complaints(plans):
        display.note(line)
    evaluator, log = StageEvaluator(run, plans), TrainingLog(run.metrics, plans, display)
    for note in run.add_notes(notes_of(plans)):
        display.note(f"note: {note}")
    _measure(run, BASE, run.recipe.model, evaluator, display)
    for stage, stage_plan in zip(run.stages(), plans, strict=True):
        trainer = StageTrainer(run, stage, stage_plan, log, evaluator)
        final = trainer.finished() or trainer.train()
        _measure(run, stage, str(final.model), evaluator, display)
    run.finish(time.perf_counter() - began)


def _measure(run: Run, stage: StageId, model: str, evaluator: StageEvaluator, display: TrainingDisplay) -> None:
    """Fill the stage's row of the matrix; the model is loaded only if something is missing."""
    if not evaluator.complete(stage):
        engine = load_engine(run.recipe, model)
        display.scores(evaluator.measure(engine, stage))
        engine.close()
