"""Measure units, or find them where they are kept. A model is loaded only if something is missing.

A run keeps its evaluations in its own folder, everything else is kept by digest below ``runs/evals/`` (`cache`). Each
unit is kept as soon as it is measured, so an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sdft_cli import console
from sdft_cli.evaluation import scoring, summaries
from sdft_cli.evaluation.answers import draw
from sdft_cli.evaluation.cache import CACHE, PARTS, InCache, Place
from sdft_cli.evaluation.conditions import PASS_AT, Conditions
from sdft_cli.evaluation.diagnostics import DIAGNOSTICS
from sdft_cli.evaluation.measurement import Measurement
from sdft_cli.evaluation.plan import EvalPlan
from sdft_cli.evaluation.summaries import Part
from sdft_cli.evaluation.unit_limits import UnitLimits
from sdft_cli.evaluation.units import Unit, samples_unit
from sdft_cli.runs.records import FurtherScores, ItemRecord, UnitSettings
from sdft_cli.runs.token_records import TokenLoss
from sdft_cli.types import Battery, Suite, Task

if TYPE_CHECKING:
    from pathlib import Path

    from sdft_cli.evaluation.judge import Judge
    from sdft_cli.evaluation.loaded_model import LoadedModel

#: Samples per question that are drawn, and kept, at a time.
BLOCK = 8


class Evaluator:
    """Measures the units of ``plan`` with its model."""

    def __init__(self, plan: EvalPlan):
        self.plan, self.settings, self.view = plan, plan.settings, plan.recipe.views.student
        self.conditions = Conditions.of(self.view, plan.settings)
        self.limits = UnitLimits(plan.data, plan.settings.max_new_tokens)

    @cached_property
    def model(self) -> LoadedModel:
        from sdft_cli.evaluation.loaded_model import LoadedModel  # torch comes in with it

        target = self.plan.target
        return LoadedModel(target.location, target.name, self.plan.recipe)

    @cached_property
    def base(self) -> LoadedModel:
        """The model that this one was trained from."""
        from sdft_cli.evaluation.loaded_model import LoadedModel

        name = self.plan.request.base or self.plan.recipe.model
        return LoadedModel(name, name, self.plan.recipe)

    @cached_property
    def judge(self) -> Judge | None:
        """The judge that is asked for, or the run's own."""
        from sdft_cli.evaluation.run_judging import judge_of

        run = self.plan.target.run
        return judge_of(self.plan.recipe, self.plan.data, run.folder if run else None)

    def measure(self, unit: Unit) -> Measurement:
        """Everything that is requested of a unit. A judge's scores are not kept: its replies are."""
        request, total = self.plan.request, Measurement()
        total.add(self.accuracy(unit))
        if unit.suite is None and request.draws:
            total.add(self.pass_at(unit, request.pass_at, request.draws))
        for name in request.also if unit.suite is None else ():
            total.add(self.diagnostic(unit, name))
        if self.judge is None or unit.task is None:
            return total
        from sdft_cli.evaluation.judged_units import rescored

        return rescored(self.judge, unit.task, total, samples=bool(request.draws))

    # accuracy -----------------------------------------------------------------------------------------------

    def accuracy(self, unit: Unit) -> Measurement:
        """The accuracy of a task on its test rows (and on those out of distribution), or of a suite."""
        if unit.in_run and (kept := self.plan.kept_in_run(unit.name).find()):
            return kept
        unit = self.limits.of(unit, self.model)
        settings = self._unit_settings(unit)
        place = self._place(unit, unit.name, settings)
        if not unit.in_run and (kept := place.find()):
            return kept
        self._say_what_fits(unit, settings)
        began = time.perf_counter()
        measurement = self._measure(unit)
        measurement.seconds = time.perf_counter() - began
        place.keep(measurement)
        return measurement

    def _unit_settings(self, unit: Unit) -> dict[str, UnitSettings]:
        if unit.suite:
            return scoring.suite_settings(self.model.chat, unit.suite, self.view, self.settings)
        return scoring.task_settings(self.model.chat, unit.graded, unit.splits, self.conditions)

    def _say_what_fits(self, unit: Unit, settings: dict[str, UnitSettings]) -> None:
        """Completions may be shorter than the task allows, where the model's window is small."""
        if not isinstance(graded := unit.suite or unit.task, Task | Suite):
            return
        wanted = self.conditions.tokens(graded)
        for name, of_unit in settings.items():
            if of_unit["max_new_tokens"] < wanted:
                fits = f"completions of up to {of_unit['max_new_tokens']} tokens, not {wanted}"
                console.err.print(f"{name}: {fits}, fit the model's window of {self.model.chat.window}", soft_wrap=True)

    def _measure(self, unit: Unit) -> Measurement:
        if isinstance(unit.suite, Battery):  # first, as its parts may all be kept: then no model is loaded
            return self._by_parts(unit, unit.suite)
        engine, chat = self.model.engine, self.model.chat
        if isinstance(unit.suite, Suite):
            return scoring.measure_suite(engine, chat, unit.suite, self.view, self.settings)
        measurement = scoring.measure_task(engine, chat, unit.graded, unit.splits, self.conditions)
        if loss := _loss(self.model, unit, self.conditions):
            measurement.tasks[unit.name]["loss"] = loss
        return measurement

    def _by_parts(self, unit: Unit, battery: Battery) -> Measurement:
        """A battery's parts, each kept as soon as it is done: some take hours."""
        parts = {name: self._part(unit, battery, name) for name in battery.parts(self.settings)}
        summary, records = summaries.summarize_suite(battery.name, parts, battery.note(self.settings))
        return Measurement(suite=summary, settings=self._unit_settings(unit), items={unit.name: records})

    def _part(self, unit: Unit, battery: Battery, name: str) -> Part:
        settings = {unit.name: battery.settings(self.settings, name)}
        place = self._cached(PARTS, f"{unit.name}-{name}", settings, unit)
        kept = place.find()
        if kept and kept.suite:
            return Part(kept.items[unit.name], kept.suite["parts"][name])
        part = scoring.run_part(self.model.engine, battery, self.settings, name)
        summary, records = summaries.summarize_suite(battery.name, {name: part})
        place.keep(Measurement(suite=summary, settings=settings, items={unit.name: records}))
        return part

    # on request ---------------------------------------------------------------------------------------------

    def pass_at(self, unit: Unit, ks: tuple[int, ...], count: int) -> Measurement:
        """pass@k of a task's test rows from ``count`` samples per question; those that are kept are reused."""
        unit = self.limits.of(unit, self.model)
        task, name = unit.graded, samples_unit(unit.name)
        conditions = Conditions.of(self.view, self.settings, PASS_AT)
        conditions = conditions.for_rows(self.model.chat, task, unit.splits["test"])
        rows = conditions.rows(task, unit.splits["test"])
        settings = {name: conditions.settings(self.model.chat, task, unit.splits["test"])}
        place = self._place(unit, name, settings)

        def measured(records: list[ItemRecord]) -> Measurement:
            scores: FurtherScores = {"pass_at": summaries.summarize_samples(records, ks)}
            return Measurement(settings=settings, items={name: records}, further={task.name: scores})

        kept = place.find()
        records = kept.items.get(name, []) if kept and kept.settings.get(name) == settings[name] else []
        drawn = _drawn(records, len(rows))
        records = [record for record in records if record["sample"] < drawn]
        for first in range(drawn, count, BLOCK):
            numbers = range(first, min(first + BLOCK, count))
            records += draw(self.model.engine, self.model.chat, task, rows, conditions, numbers)
            place.keep(measured(records))
        return measured([record for record in records if record["sample"] < count])

    def diagnostic(self, unit: Unit, name: str) -> Measurement:
        """One of `DIAGNOSTICS` on a task's test rows."""
        unit = self.limits.of(unit, self.model)
        task, rows, unit_name = unit.graded, unit.splits["test"], f"{unit.name}-{name}"
        diagnostic = DIAGNOSTICS[name]
        conditions = diagnostic.conditions(self.plan.recipe, self.settings)
        settings = {unit_name: conditions.settings(self.model.chat, task, rows)}
        if diagnostic.needs_base:
            settings[unit_name]["base"] = self.base.weights or self.base.place
        place = self._cached(PARTS, unit_name, settings, unit)
        if kept := place.find():
            return kept
        scores, records = diagnostic.measure(self.model, self.base, task, rows, conditions)
        items = {unit_name: records} if records else {}
        measurement = Measurement(settings=settings, items=items, further={task.name: scores})
        place.keep(measurement)
        return measurement

    # where it is kept ---------------------------------------------------------------------------------------

    def _place(self, unit: Unit, name: str, settings: dict[str, UnitSettings]) -> Place:
        return self.plan.kept_in_run(unit.name) if unit.in_run else self._cached(CACHE, name, settings, unit)

    def _cached(self, root: Path, name: str, settings: dict[str, UnitSettings], unit: Unit) -> InCache:
        identity = self.model.identity(settings, unit.grader)
        return InCache(root if self.plan.request.cache else None, name, identity)


def _drawn(records: Sequence[ItemRecord], rows: int) -> int:
    """How many samples ``records`` has for each of so many rows, without a gap."""
    found = Counter(record["sample"] for record in records)
    return next((number for number in range(len(found)) if found[number] != rows), len(found))


def _loss(model: LoadedModel, unit: Unit, conditions: Conditions) -> TokenLoss | None:
    """The loss beside a task's accuracy, as a run measures it after a stage."""
    from sdft_cli.evaluation import validation_loss

    splits: validation_loss.Splits = {"test": unit.splits["test"], "validation": unit.validation}
    texts = validation_loss.texts_of(unit.graded, splits, model.chat, validation_loss.at_stages(conditions))
    budget = model.recipe.train.micro_batch_budget
    return validation_loss.measure(model.engine.policy, texts, budget) if texts else None
