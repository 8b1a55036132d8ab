"""The judge of a run: at every evaluation in training, and over the whole matrix of a run that has been trained.

In training the judge goes as far as it can. Where a limit is reached or its endpoint fails, the answers that are left
wait, a note says so, and training goes on. `fill` judges whatever a run holds, by one judge throughout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config.judge_section import NO_RUBRIC, JudgeSettings
from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.evaluation import judged_units, summaries
from sdft_cli.evaluation.judge import UNREAD, Judge, judgement_of, overruled
from sdft_cli.evaluation.judged_units import JudgedStage
from sdft_cli.evaluation.measurement import Measurement
from sdft_cli.llm.progress import Progress, ProgressDisplay
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.runs import sweeps
from sdft_cli.runs.evaluations import evaluation_files, stage_folders
from sdft_cli.runs.files import write_together
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import ItemRecord, NoteRow, ShortScore, StageId
from sdft_cli.types import Task

#: Counts what was sent to the judge and paid for, in the run's folder, or in the sweep's that the run is part of.
LEDGER = "judge-requests.jsonl"
#: Seconds after a failure in which mid-training evaluations do not ask the judge again.
REST = 600.0
RESTS = "the judge is not asked again within ten minutes of a failure"
Say = Callable[[str], None]


def options_of(judge: JudgeSettings, ledger: Path | None = None) -> TeacherOptions | None:
    """The judge's model, endpoint and limits; None where there is no judge."""
    if judge.model is None:
        return None
    return TeacherOptions(
        model=judge.model,
        base_url=judge.base_url,
        api_key_env=judge.key_env or TeacherOptions.api_key_env,
        samples=1,
        temperature=0.0,
        concurrency=judge.concurrency,
        max_requests=judge.max_requests,
        max_cost=judge.max_cost,
        price_in=judge.price_in,
        price_out=judge.price_out,
        timeout=judge.timeout,
        ledger=ledger,
    )


def judge_of(recipe: Recipe, data: Path | None = None, run: Path | None = None, say: Say | None = None) -> Judge | None:
    """The judge of a recipe; None where it has none. What is spent is counted for the ``run``, if one is named. With
    ``say``, nothing is shown but remarks, which it is handed."""
    options = options_of(recipe.judge, ledger_of(run) if run else None)
    if options is None:
        return None
    folder = Path(recipe.judge.replies) if recipe.judge.replies else (data or Path(recipe.data)) / ".judge"
    return Judge(options, folder, _Remarks(say).opened if say else ProgressDisplay)


def ledger_of(run: Path) -> Path:
    """One for all runs of a sweep, whose limits are the sweep's."""
    return (run.parent if (run.parent / sweeps.FILE).is_file() else run) / LEDGER


class _Remarks(Progress):
    """Hands on what there is to remark, and shows nothing else."""

    def __init__(self, say: Say, name: str = "", prompts: int = 0):
        super().__init__(prompts)
        self.say, self.name = say, name

    def note(self, text: str) -> None:
        self.say(f"{self.name}: {text}")

    @contextmanager
    def opened(self, name: str, prompts: int) -> Iterator[Progress]:
        """A progress of its own for every evaluation; what was remarked once is not remarked again."""
        each = _Remarks(self.say, name, prompts)
        each.noted = self.noted
        yield each


def check_judge(recipe: Recipe, tasks: Sequence[Task], say: Say) -> None:
    """Find out before the first step whether the recipe's judge, if it has one, can judge anything at all: one of the
    tasks has a rubric, and the judge replies to a trivial question.

    Raises `SdftError` if not.
    """
    check_rubrics(recipe, tasks)
    judge, rubric = judge_of(recipe, say=say), next((task.rubric for task in tasks if task.rubric), None)
    if judge and rubric and (remark := judge.try_out(rubric)):
        say(f"note: {remark}")


def check_rubrics(recipe: Recipe, tasks: Sequence[Task]) -> None:
    """Raise `UsageError` where a judge is named, and none of the tasks has a rubric for it."""
    if recipe.judge.model is not None and not any(task.rubric for task in tasks):
        names = ", ".join(dict.fromkeys(task.name for task in tasks))
        raise UsageError(
            f"--judge needs a task with a rubric, and {names} has none",
            NO_RUBRIC,
        )


# --- in training -----------------------------------------------------------------------------------------------------


class RunJudging:
    """Has a run's evaluations judged while it trains. Raises nothing for a judge that fails: answers then wait."""

    def __init__(self, run: Run, judge: Judge, tasks: Sequence[Task], say: Say):
        self.run, self.judge, self.say = run, judge, say
        self.tasks = {task.name: task for task in tasks if task.rubric}
        self.tried: set[StageId] = set()
        self.failed_at: float | None = None
        self.failure = ""  # what went wrong then

    def waiting(self, measured: Measurement) -> Measurement:
        """What was measured, before the judge is asked."""
        return judged_units.waiting(self.judge, measured, self.tasks)

    def lacks(self, stage: StageId) -> bool:
        """Whether answers of a stage are not this judge's yet, and have not been tried by this process."""
        evaluation = self.run.evaluation(stage)
        if stage in self.tried or (scores := evaluation.scores()) is None:
            return False
        ours = judged_units.units_of(scores.get("settings", {}), self.judge, list(self.tasks.values()))
        return not ours or judged_units.answers_wait(evaluation.folder)

    def stage(self, stage: StageId) -> None:
        """Judge what a stage's evaluation holds, as far as possible, and write it there."""
        self.tried.add(stage)
        judged = judged_units.judge_stage(self.run.evaluation(stage).folder, self.judge, list(self.tasks.values()))
        self.judge.release()
        if judged.items:
            self.run.evaluation(stage).write(judged.scores, judged.items)
        if judged.failure:
            self._failed(judged.failure)
            self._note(stage, f"after stage {stage.number} ({stage.task}), {self._left(judged)}")

    def quick(self, task: Task, records: list[ItemRecord]) -> tuple[ShortScore, str]:
        """The judge's accuracy on a mid-training evaluation's records, and why there is none, if so. A few of the
        answers would be other ones at every evaluation, so it is all of them or none."""
        if self.failed_at is not None and time.monotonic() - self.failed_at < REST:
            return {"accuracy": None, "n": 0}, f"{RESTS}: {self.failure}"
        assert task.rubric is not None
        answers = [judgement_of(r["prompt"], r["answer"], r["completion"]) for r in records]
        scores, failure = self.judge.outcome(task.name, task.rubric, answers)
        if failure:
            self._failed(failure)
            return {"accuracy": None, "n": 0}, f"not judged: {failure.message}"
        summary = summaries.summarize([overruled(r, score) for r, score in zip(records, scores, strict=True)])
        return {"accuracy": summary["accuracy"], "n": summary["n"]}, ""

    def _failed(self, failure: SdftError) -> None:
        self.failed_at, self.failure = time.monotonic(), failure.message

    def _left(self, judged: JudgedStage) -> str:
        folder, model = self.run.folder, self.judge.options.model
        hint = judged.failure.hint if judged.failure else ""
        raised = " with a higher limit" if "judge.max_" in hint else ""
        return (
            f"{judged.left} of {judged.answers} answers are not judged: {judged.failure}; "
            f"`sdft train --resume --out {folder}` or `sdft eval {folder} --judge {model}` goes on{raised}"
        )

    def _note(self, stage: StageId, text: str) -> None:
        """One line on the terminal, and one in the metrics."""
        self.say(f"note: {text}")
        if text not in self.run.metrics.notes():
            row: NoteRow = {"kind": "note", "stage": stage.number, "task": stage.task, "step": 0, "text": text}
            self.run.metrics.append(row)


def judging_of(run: Run, tasks: Sequence[Task], say: Say) -> RunJudging | None:
    """What judges the run's evaluations; None where its recipe names no judge."""
    judge = judge_of(run.recipe, run=run.folder, say=say)
    return RunJudging(run, judge, tasks, say) if judge else None


# --- afterwards ------------------------------------------------------------------------------------------------------


def fill(run: Run, recipe: Recipe, judge: Judge) -> None:
    """Have every stage of ``run`` judged by ``judge``, the one of ``recipe``, which is the run's judge from then on.

    What the run holds is judged, so no model is loaded. Another judge's scores are replaced once all of them can be:
    nothing is written before. Raises `SdftError` where the judge fails; its replies are stored, and the same call goes
    on.
    """
    tasks: list[Task] = [plugins.task(name, Path(recipe.data)) for name in dict.fromkeys(recipe.tasks)]
    stages: list[JudgedStage] = []
    for folder in stage_folders(run.folder).values():
        stages.append(judged_units.judge_stage(folder, judge, tasks))
        if stages[-1].failure:
            break
    judge.release()
    failure, name = stages[-1].failure if stages else None, judge.model_id["model"]
    if failure is None:
        _check_verdicts(stages, str(name))
    if failure is None or all(stage.before <= {name} for stage in stages):
        changed = [stage for stage in stages if stage.items]
        write_together({p: t for s in changed for p, t in evaluation_files(s.folder, s.scores, s.items).items()})
    if failure:
        raise failure
    run.change_recipe(run.recipe.model_copy(update={"judge": recipe.judge}))


def _check_verdicts(stages: Sequence[JudgedStage], name: str) -> None:
    """Raise `SdftError` where not one reply of the judge called ``name`` was a verdict: there is nothing to fill a
    matrix with, and what it holds stays."""
    records = [record for stage in stages for items in stage.items.values() for record in items]
    unread = [record["why"] for record in records if record["why"].startswith(UNREAD)]
    if unread and all(record["value"] is None for record in records):
        raise SdftError(
            f"none of the judge's {len(unread)} replies could be read: {name} replied{unread[0].removeprefix(UNREAD)}",
            "the run's scores stay as they were; name a judge that answers with one word (--judge)",
        )
