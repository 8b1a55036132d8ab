"""Whole units under a judge: its scores in place of the grader's in records, summaries and settings.

An answer that a judge is to score, and has not yet, waits: it is unscored, and its reason says so. So whatever was
measured can be written down before the judge is asked, and an interrupted evaluation goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdft_cli.config import json_files
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.evaluation import summaries
from sdft_cli.evaluation.judge import WAITING, Judge, judged, judgement_of, overruled, waits
from sdft_cli.evaluation.measurement import Items, Measurement
from sdft_cli.evaluation.units import samples_unit, task_unit
from sdft_cli.runs.evaluations import hint, item_rows, read_scores
from sdft_cli.runs.records import FurtherScores, ItemRecord, Scores, Summary, TaskSummary, UnitSettings
from sdft_cli.types import SPLITS, Json, Rubric, Score, Task


def is_judged(settings: Mapping[str, Json], judge: Judge, rubric: Rubric) -> bool:
    """Whether a unit with these ``settings`` has this judge's scores, under this rubric."""
    return settings.items() >= judge.settings(rubric).items()


def rescored(judge: Judge, task: Task, measured: Measurement, samples: bool = True) -> Measurement:
    """One task's measurement with the judge's scores in all of its units, and the judge among their settings. Units
    that have its scores already stay as they are, and without ``samples`` those for pass@k, which may be very many."""
    if task.rubric is None:
        return measured
    name, rubric = task.name, task.rubric
    units = [unit for unit in measured.items if samples or unit != samples_unit(name)]
    new = [unit for unit in units if not is_judged(measured.settings.get(unit, {}), judge, rubric)]
    items = {unit: judged(judge, name, rubric, measured.items[unit]) for unit in new}
    return _with_items(judge, rubric, name, measured, items)


def waiting(judge: Judge, measured: Measurement, tasks: Mapping[str, Task]) -> Measurement:
    """A measurement in which all answers to tasks with a rubric wait for the judge."""
    for name in measured.tasks:
        if (task := tasks.get(name)) and task.rubric:
            units = [unit for unit in (task_unit(name, split) for split in SPLITS) if unit in measured.items]
            unasked = Score(None, None, WAITING)
            items = {unit: [overruled(record, unasked) for record in measured.items[unit]] for unit in units}
            measured = _with_items(judge, task.rubric, name, measured, items)
    return measured


def _with_items(judge: Judge, rubric: Rubric, name: str, measured: Measurement, items: Items) -> Measurement:
    """``measured`` with other ``items`` of the task ``name``, which the judge has scored, or is to score."""
    tasks, further = dict(measured.tasks), measured.further.get(name, FurtherScores()).copy()
    for unit, records in items.items():
        summary = summaries.summarize(records, judge.note(records))
        match unit.removeprefix(name).removeprefix("-"):
            case "":
                tasks[name] = {**tasks[name], **summary}
            case "ood" | "oracle" | "ceiling" as part:
                further[part] = summary
            case "samples" if records:
                pass_at = further.get("pass_at") or measured.tasks[name]["pass_at"]
                further["pass_at"] = summaries.summarize_samples(records, [int(k) for k in pass_at["values"]])
    ours = {unit: {**of_unit, **judge.settings(rubric)} for unit, of_unit in measured.settings.items() if unit in items}
    return Measurement(
        tasks, measured.suite, measured.settings | ours, measured.items | items, {**measured.further, name: further}
    )


# --- on disk ---------------------------------------------------------------------------------------------------------


@dataclass
class JudgedStage:
    """What becomes of a stage's evaluation: its scores, and the records of the units that change.

    ``answers`` is how many the judge was to score, ``left`` how many of them wait, and ``failure`` why. ``before`` are
    the judges of the units that change (None: the grader alone).
    """

    folder: Path
    scores: Scores
    items: Items = field(default_factory=dict)
    answers: int = 0
    left: int = 0
    failure: SdftError | None = None
    before: set[Json] = field(default_factory=set)


def judge_stage(folder: Path, judge: Judge, tasks: Sequence[Task]) -> JudgedStage:
    """Have the answers judged that a stage's evaluation in ``folder`` holds and this judge has not scored; writes
    nothing. No model is needed. Where the judge fails, the other answers of the stage wait, unasked."""
    stage = JudgedStage(folder, read_scores(folder))
    for task in tasks:
        if task.rubric and task.name in stage.scores["tasks"]:
            for split in SPLITS:
                _judge_unit(stage, judge, task, task.rubric, split)
    return stage


def _judge_unit(stage: JudgedStage, judge: Judge, task: Task, rubric: Rubric, split: str) -> None:
    unit, scores = task_unit(task.name, split), stage.scores
    path = stage.folder / f"{unit}.jsonl"
    if not json_files.exists(path):
        if split == "test":
            raise UsageError(f"{stage.folder} holds no answers to {unit}, so none can be judged", hint(stage.folder))
        return
    settings, records = scores.get("settings", {}).get(unit, {}), item_rows(path, ItemRecord)
    ours = is_judged(settings, judge, rubric)
    records = records if ours or "judge" not in settings else [restored(record) for record in records]
    asked = [i for i, record in enumerate(records) if not ours or waits(record)]
    if not asked:
        return
    answers = [judgement_of(records[i]["prompt"], records[i]["answer"], records[i]["completion"]) for i in asked]
    if stage.failure:
        verdicts = [Score(None, None, f"{WAITING}: {stage.failure.message}")] * len(asked)
    else:
        verdicts, stage.failure = judge.outcome(task.name, rubric, answers)
    for i, score in zip(asked, verdicts, strict=True):
        records[i] = overruled(records[i], score)
    stage.items[unit] = records
    stage.answers, stage.left = stage.answers + len(asked), stage.left + sum(map(waits, records))
    stage.before.add(settings.get("judge"))
    _summarize(scores, task.name, split, summaries.summarize(records, judge.note(records)))
    scores["settings"] = {**scores.get("settings", {}), unit: {**settings, **judge.settings(rubric)}}


def _summarize(scores: Scores, name: str, split: str, summary: Summary) -> None:
    """Put the summary of a task's split into a stage's scores."""
    of_task = scores["tasks"][name]
    if split == "test":
        further: TaskSummary = {**of_task}
        further.pop("extra", None)
        scores["tasks"][name] = {**further, **summary}
    else:
        scores["tasks"][name] = {**of_task, "ood": summary}


def restored(record: ItemRecord) -> ItemRecord:
    """A judged record with its grader's value, as far as it was kept: that of the judge is gone."""
    extra = {key: value for key, value in record.get("extra", {}).items() if key != "lenient"}
    value = extra.pop("without judge", None)
    plain: ItemRecord = {**record, "value": value, "extracted": None, "why": ""}
    if extra:
        plain["extra"] = extra
    else:
        plain.pop("extra", None)
    return plain


def answers_wait(folder: Path) -> bool:
    """Whether an evaluation holds answers that wait for a judge."""
    if not json_files.exists(folder / "scores.json"):
        return False
    tasks = read_scores(folder)["tasks"]
    units = [name for name, summary in tasks.items() if summary.get("unscored")]
    units += [task_unit(name, "ood") for name, summary in tasks.items() if summary.get("ood", {}).get("unscored")]
    paths: list[Path] = [folder / f"{unit}.jsonl" for unit in units]
    return any(waits(row) for path in paths if json_files.exists(path) for row in item_rows(path, ItemRecord))


def units_of(settings: Mapping[str, UnitSettings], judge: Judge, tasks: Sequence[Task]) -> bool:
    """Whether all units of ``tasks`` with a rubric, among those with ``settings``, are this judge's."""
    named = [(task_unit(task.name, split), task.rubric) for task in tasks for split in SPLITS]
    return all(is_judged(settings[unit], judge, rubric) for unit, rubric in named if rubric and unit in settings)
