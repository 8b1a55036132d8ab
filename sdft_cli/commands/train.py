"""The `train` command: a sequence of tasks, one stage each, with every task measured before and after every stage.

The run folder is the only state: whatever is complete there is not done again, which is all that ``--resume`` and
``--continue`` need.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdft_cli import console
from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.team import team
from sdft_cli.errors import SdftError, UsageError, explained
from sdft_cli.evaluation.judged_units import answers_wait
from sdft_cli.evaluation.run_judging import check_judge, judging_of
from sdft_cli.evaluation.stage_evaluator import StageEvaluator
from sdft_cli.models import pretrained
from sdft_cli.models.base_models import sign_run
from sdft_cli.runs import signals
from sdft_cli.runs.folder import Run, fresh_name
from sdft_cli.runs.records import BASE, StageId
from sdft_cli.runs.signals import Stopped
from sdft_cli.runs.stage_recipes import in_short
from sdft_cli.training.disk_space import check_disk
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.fit import check_memory, fit, fitted, is_begun
from sdft_cli.training.log import TrainingLog
from sdft_cli.training.memory_outlook import Hardware, Lengths, Model
from sdft_cli.training.preflight import complaints, most
from sdft_cli.training.run_inputs import check_inputs, settle
from sdft_cli.training.run_plan import RunPlan, plan_run
from sdft_cli.training.stage import StageTrainer
from sdft_cli.training.stage_start import load_measured


def train(recipe: Recipe, out: Path | None, display: TrainingDisplay, resume: bool = False) -> Run:
    """Run ``recipe`` in the folder ``out`` (a new one under runs/ when None); returns the run."""
    if resume and out is None:
        raise UsageError("--resume needs to know which run", "name it with --out RUN")
    if resume and out:
        return _resume(Run.open(out), recipe, display)
    folder = out or fresh_name(recipe)
    plan = _with_room(plan_run(recipe), folder)
    check_judge(recipe, plan.tasks, display.note)
    run = Run.create(folder, plan.recipe)
    with run.locked():
        _train_stages(run, plan, display)
    return run


def _resume(run: Run, recipe: Recipe, display: TrainingDisplay) -> Run:
    """``--resume``: under ``recipe``, which is the run's own, or one that may still take its place."""
    if is_complete(run):
        hint = f"to add tasks: sdft train --continue {run.folder} --tasks NEW_TASK"
        console.err.print(f"{run.folder} is already finished; {hint}", soft_wrap=True, markup=False)
        return run
    with run.locked():
        run.checkpoints.recover()
        plan = _with_room(plan_run(recipe, run), run.folder, run)
        check_judge(recipe, plan.tasks, display.note)
        _train_stages(run, plan, display)
    return run


def extend(folder: Path, recipe: Recipe, display: TrainingDisplay) -> Run:
    """``--continue``: train the tasks that ``recipe`` has beyond those of a finished run, with its settings; the run's
    matrix grows by as many rows and columns."""
    run = Run.open(folder)
    check_finished(run)
    if recipe.train.stop_if_prior_drops is not None and not any(row["suite"] for row in run.metrics.read().evals):
        problem = "the run has not logged the base model's accuracy on the prior suite during training"
        raise UsageError(f"--stop-if-prior-drops: {problem}", "leave it out, or start a new run with it")
    with run.locked():
        plan = _with_room(plan_run(recipe, run), folder, run)
        check_judge(recipe, plan.tasks, display.note)
        _train_stages(run, plan, display)
    return run


def _with_room(plan: RunPlan, folder: Path, run: Run | None = None) -> RunPlan:
    """The plan as it fits into memory (``train.fit``). Raise `UsageError` where the run in ``folder`` will not fit on
    the disk, or into memory."""
    check_disk(plan.recipe, plan.location, folder)
    if not plan.todo:
        return plan
    model, begun = Model.of(plan.recipe, plan.location, Hardware(team().size)), is_begun(run)
    check_memory(plan.recipe, model, begun)
    if team().size > 1:
        return plan  # what could be conceded depends on what several processes can do
    lengths = Lengths(*most([plan.stages[number - 1] for number in plan.todo]))
    return fitted(plan, fit(plan.recipe, model, lengths, begun))


def check_finished(run: Run) -> None:
    """Raise `UsageError` unless every stage is trained, so that further ones can be added."""
    for stage in run.stages():
        if run.checkpoints.of(stage).finished() is None:
            problem = f"stage {stage.number} ({stage.task}) is not finished"
            raise UsageError(f"{run.folder}: {problem}", f"finish it first: sdft train --resume --out {run.folder}")


def is_complete(run: Run) -> bool:
    """Whether every stage is trained, and everything measured at every one: nothing is left to do."""
    recipe = run.recipe
    if not run.done or any(run.checkpoints.of(stage).finished() is None for stage in run.stages()):
        return False
    if _answers_wait(run):
        return False
    measured = [run.evaluation(stage).scores() for stage in (BASE, *run.stages())]
    return all(
        scores is not None and scores["tasks"].keys() >= set(recipe.tasks) and (scores["suite"] or not recipe.suite)
        for scores in measured
    )


def _answers_wait(run: Run) -> bool:
    """Whether the run's judge has not scored all that it is to score."""
    stages = (BASE, *run.stages())
    return run.recipe.judge.model is not None and any(answers_wait(run.evaluation(s).folder) for s in stages)


def _train_stages(run: Run, plan: RunPlan, display: TrainingDisplay) -> None:
    """Train and measure whatever is not complete on disk, under the plan's recipe from now on. Errors say how to go
    on."""
    with _resumable(run):
        _train_missing(run, plan, display)


@contextmanager
def _resumable(run: Run) -> Iterator[None]:
    again = f"go on with: sdft train --resume --out {run.folder}"
    try:
        yield
    except Stopped as stop:
        raise Stopped(stop.number, stop.message, again) from None
    except KeyboardInterrupt:
        number = signals.last()
        raise Stopped(number, f"stopped by {number.name}: {_kept(run)}", again) from None
    except SdftError:
        raise
    except Exception as error:
        if told := explained(error, str(run.folder)):
            raise SdftError(told.message, f"{told.hint}; {again}") from error
        error.add_note(f"{_kept(run)}; {again}")
        raise


def _kept(run: Run) -> str:
    """How far the run has come, as it is on disk."""
    latest = run.checkpoints.latest()
    if latest is None:
        return f"no step of {run.folder} is trained and saved yet"
    what = "all of" if latest.stage_done else f"step {latest.step} of"
    return f"{run.folder} holds {what} stage {latest.stage.number} ({latest.stage.task})"


def _train_missing(run: Run, plan: RunPlan, display: TrainingDisplay) -> None:
    began = time.perf_counter()
    inputs = check_inputs(run, plan)
    for line in [*complaints(plan.stages), *inputs.notes]:
        display.note(line)
    if len(plan.recipe.tasks) > len(run.stages()):
        run.reopen()
    settle(run, inputs)
    sign_run(run.folder, plan.location, pretrained.version_of(plan.location))
    if changed := run.change_recipe(plan.recipe):
        display.note(f"other settings from here on, which the metrics record: {in_short(changed)}")
    judging = judging_of(run, [stage.task for stage in plan.stages], display.note)
    evaluator, log = StageEvaluator(run, plan.stages, judging), TrainingLog(run.metrics, plan.stages, display)
    log.notes(plan.notes)
    _measure(run, BASE, run.recipe.model, evaluator, display)
    for stage, stage_plan in zip(run.stages(), plan.stages, strict=True):
        trainer = StageTrainer(run, stage, stage_plan, log, evaluator)
        final = trainer.finished() or trainer.train()
        _measure(run, stage, str(final.model), evaluator, display)
    if not _answers_wait(run):
        run.finish(time.perf_counter() - began)


def _measure(run: Run, stage: StageId, model: str, evaluator: StageEvaluator, display: TrainingDisplay) -> None:
    """Fill the stage's row of the matrix; the model is loaded only if something is missing, and not for answers that
    only wait for the judge."""
    if not evaluator.complete(stage):
        engine = load_measured(run.recipe, model)
        display.scores(evaluator.measure(engine, stage))
        engine.close()
    elif evaluator.lacks_judge(stage):
        display.scores(evaluator.judge(stage))
