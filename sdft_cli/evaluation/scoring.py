"""A model on tasks and suites: sample, grade, summarize, and record under which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from sdft_cli.config.recipe import Evaluation
from sdft_cli.evaluation import summaries
from sdft_cli.evaluation.answers import answer
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.measurement import Measurement
from sdft_cli.evaluation.summaries import Part
from sdft_cli.evaluation.units import suite_unit, task_unit
from sdft_cli.models.chat import Chat
from sdft_cli.runs.records import ItemRecord, PartFacts, SuiteSummary, Summary, UnitSettings
from sdft_cli.types import Battery, Example, Suite, Task

if TYPE_CHECKING:
    from sdft_cli.models.engine import Engine

Splits = Mapping[str, Sequence[Example]]


def score_task(
    engine: Engine, chat: Chat, task: Task, examples: Sequence[Example], conditions: Conditions
) -> tuple[Summary, list[ItemRecord]]:
    """Summary and records of ``task`` on ``examples``, of which at most ``conditions.limit`` are used."""
    conditions = conditions.for_rows(chat, task, examples)
    records = answer(engine, chat, task, conditions.rows(task, examples), conditions)
    return summaries.summarize(records, task.note), records


def score_suite(
    engine: Engine, chat: Chat, suite: Suite | Battery, view: str, settings: Evaluation
) -> tuple[SuiteSummary, list[ItemRecord]]:
    """Summary and records of a suite, with at most ``settings.limit`` items per part."""
    if isinstance(suite, Suite):
        parts = _graded_parts(engine, chat, suite, Conditions.of(view, settings))
        return summaries.summarize_suite(suite.name, parts)
    parts = {part: run_part(engine, suite, settings, part) for part in suite.parts(settings)}
    return summaries.summarize_suite(suite.name, parts, suite.note(settings))


def _graded_parts(engine: Engine, chat: Chat, suite: Suite, conditions: Conditions) -> dict[str, Part]:
    """All parts of a suite of graded examples, sampled as one batch."""
    parts = suite.parts()
    conditions = conditions.for_rows(chat, suite, [example for part in parts.values() for example in part])
    rows = {name: conditions.rows(suite, examples) for name, examples in parts.items()}
    named = [(name, example) for name, examples in rows.items() for example in examples]
    records = answer(engine, chat, suite, [example for _, example in named], conditions)
    for record, (name, _) in zip(records, named, strict=True):
        record["part"] = name
    return {name: summaries.part_of([r for r in records if r["part"] == name]) for name in rows}


def run_part(engine: Engine, battery: Battery, settings: Evaluation, part: str) -> Part:
    """One part of a battery, measured by it."""
    records, reported = battery.measure(engine, settings, part)
    # a battery may be a plug-in's: its contract asks for plain dictionaries with the keys of these records
    return summaries.part_of(cast(list[ItemRecord], records), cast(PartFacts, reported))


# --- measurements ----------------------------------------------------------------------------------------------------


def measure(
    engine: Engine,
    chat: Chat,
    tests: Sequence[tuple[Task, Splits]],
    suite: Suite | Battery | None,
    view: str,
    settings: Evaluation,
) -> Measurement:
    """Tasks on their rows by split, and a suite if one is given."""
    total = Measurement()
    for task, splits in tests:
        total.add(measure_task(engine, chat, task, splits, Conditions.of(view, settings)))
    if suite:
        total.add(measure_suite(engine, chat, suite, view, settings))
    return total


def measure_task(engine: Engine, chat: Chat, task: Task, splits: Splits, conditions: Conditions) -> Measurement:
    """A task on its test rows, and on those out of distribution where it has them."""
    scored = {split: score_task(engine, chat, task, examples, conditions) for split, examples in splits.items()}
    return Measurement(
        tasks={task.name: scored["test"][0]},
        further={task.name: {"ood": scored["ood"][0]}} if "ood" in scored else {},
        settings=task_settings(chat, task, splits, conditions),
        items={task_unit(task.name, split): records for split, (_, records) in scored.items()},
    )


def measure_suite(engine: Engine, chat: Chat, suite: Suite | Battery, view: str, settings: Evaluation) -> Measurement:
    summary, records = score_suite(engine, chat, suite, view, settings)
    recorded = suite_settings(chat, suite, view, settings)
    return Measurement(suite=summary, settings=recorded, items={suite_unit(suite.name): records})


def task_settings(chat: Chat, task: Task, splits: Splits, conditions: Conditions) -> dict[str, UnitSettings]:
    """The settings of every unit that `measure_task` would measure."""
    return {task_unit(task.name, split): conditions.settings(chat, task, rows) for split, rows in splits.items()}


def suite_settings(chat: Chat, suite: Suite | Battery, view: str, settings: Evaluation) -> dict[str, UnitSettings]:
    """The settings of the unit that `measure_suite` would measure."""
    if isinstance(suite, Battery):
        return {suite_unit(suite.name): suite.settings(settings)}
    rows = [example for part in suite.parts().values() for example in part]
    return {suite_unit(suite.name): Conditions.of(view, settings).settings(chat, suite, rows)}
