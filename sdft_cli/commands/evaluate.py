"""The verb `eval`: a run's final model, or any model, on tasks and suites.

What is measured once is not measured again: a run keeps its evaluations in its own folder, everything else is kept by
digest below ``runs/evals/`` (see `evaluations`). Each unit (a task, a suite, a block of samples) is kept as soon as it
is measured, so an evaluation that was interrupted goes on where it stopped. A model is loaded only if something lacks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli import console, plugins
from sdft_cli.config.recipe import Recipe, build
from sdft_cli.data import dataset
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import contrasts, scoring
from sdft_cli.evaluation.cache import CACHE, PARTS, SAMPLES, InCache, InRun, Items, Place, Row
from sdft_cli.models import digests
from sdft_cli.models.views import VIEWS
from sdft_cli.reporting import comparisons
from sdft_cli.runs.folder import RUNS, Run, newest, write_evaluation
from sdft_cli.runs.results import RunResult, load_run
from sdft_cli.types import Battery, Example, Suite, Task

if TYPE_CHECKING:
    from sdft_cli.evaluation.judge import Judge
    from sdft_cli.evaluation.loaded_model import LoadedModel
    from sdft_cli.llm.types import TeacherOptions

#: So many samples of every question are drawn, and kept, at a time.
BLOCK = 8
Splits = dict[str, list[Example]]


@dataclass(frozen=True)
class Asked:
    """What `sdft eval` was asked. ``suite='new'`` means the test splits of the tasks.

    Without suite and tasks, a run is scored on its own tasks and suite, a model on the suite ``micro``. What is None
    is as the run has it. ``pass_at`` holds the k of pass@k, from ``samples`` completions of each question (None: the
    largest k). Without ``cache`` nothing that is known is read, and nothing kept. ``settings`` is a layer for the
    recipe: how the harness, the engine and the machine are used. ``judge`` scores the tasks that have a rubric;
    ``also`` names `contrasts`, for which ``base`` is the base model (None: the run's).
    """

    target: str | None = None
    suite: str | None = None
    tasks: tuple[str, ...] = ()
    data: Path | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    pass_at: tuple[int, ...] = ()
    samples: int | None = None
    out: Path | None = None
    cache: bool = True
    settings: Row = field(default_factory=dict)
    judge: TeacherOptions | None = None
    also: tuple[str, ...] = ()
    base: str | None = None


@dataclass(frozen=True)
class Unit:
    """One thing that is measured and kept as a whole: a task, with its rows by split, or a suite.

    ``own``: it is part of the run, and asked for under the run's settings. A task that the run holds and whose data is
    not here any more is a unit without task or suite: it can be read, not measured.
    """

    name: str
    own: bool
    task: Task | None = None
    suite: Suite | Battery | None = None
    splits: Splits = field(default_factory=dict, repr=False)

    @property
    def tests(self) -> list[tuple[Task, Splits]]:
        return [(self.task, self.splits)] if self.task else []

    @property
    def grader(self) -> str:
        """A digest of what its completions are graded by: code, and the data of a task that is made of data."""
        if isinstance(self.suite, Battery):
            return digests.of_grader(type(self.suite).measure)
        thing = self.task or self.suite
        return digests.of([digests.of_grader(thing.grade), self.task and self.task.grader]) if thing else ""


class Evaluator:
    """What was asked, made out: the run or model, its settings, the units. Names and data are checked when the units
    are asked for (`UsageError`), and a model is loaded when one of them has to be measured."""

    def __init__(self, asked: Asked):
        self.asked = asked
        self.run, model = _resolve(asked.target)
        started = self.run.recipe if self.run else Recipe(model=model)
        self.recipe = build([started.model_dump(mode="json"), asked.settings], "--set")
        self.number, self.stage, self.location = _final(self.run) if self.run else (0, "", model)
        self.name = str(self.run.folder) if self.run else model
        self.data = asked.data or Path(self.recipe.data)
        own = self.recipe.evaluation
        same = self.recipe == started
        said = {"limit": asked.limit, "max_new_tokens": asked.max_new_tokens}
        self.settings = own.model_copy(update={key: value for key, value in said.items() if value is not None})
        same = same and self.settings == own and self.data.resolve() == Path(self.recipe.data).resolve()
        self.own = self.run is not None and asked.cache and same
        self.samples = asked.samples or max(asked.pass_at, default=0)
        for file in filter(Path.is_file, map(Path, self.recipe.plugins)):  # what is read only needs no plugin
            plugins.load_file(file)
        if "engine" in asked.settings:
            plugins.room("ENGINE").check(self.recipe.engine.name)
        if "kl" in asked.also and not (self.run or asked.base):
            raise UsageError("the divergence from the base model needs one", "name it with --base")

    @cached_property
    def loaded(self) -> LoadedModel:
        from sdft_cli.evaluation.loaded_model import (
            LoadedModel,  # torch comes in with it: a gate on what a run holds does without
        )

        return LoadedModel(self.location, self.name, self.recipe)

    @cached_property
    def base(self) -> LoadedModel:
        """The model that this one came from, for ``kl``."""
        from sdft_cli.evaluation.loaded_model import LoadedModel

        name = self.asked.base or self.recipe.model
        return LoadedModel(name, name, self.recipe)

    @cached_property
    def judge(self) -> Judge | None:
        from sdft_cli.evaluation.judge import Judge

        return Judge(self.asked.judge, self.data / ".judge") if self.asked.judge else None

    @property
    def names(self) -> list[str]:
        """The tasks and suites that are asked for."""
        return [unit.suite.name if unit.suite else unit.name for unit in self.units]

    @property
    def whole_run(self) -> bool:
        """Whether the run's own tasks are asked for as it was measured on them: then its stages can be compared."""
        own = self.own and self.asked.judge is None
        return own and all(unit.own for unit in self.units if unit.name in self.recipe.tasks)

    # what is to be measured ---------------------------------------------------------------------------------

    @cached_property
    def units(self) -> list[Unit]:
        suite, names = self.asked.suite, list(self.asked.tasks)
        if not names and (suite == "new" or (suite is None and self.run)):
            names = list(dict.fromkeys(self.recipe.tasks))
        if suite == "new" and not names:
            raise UsageError("--suite new means the tasks' own test splits, but no task is named", "add --tasks a,b,c")
        if suite is None:
            suite = self.recipe.suite if self.run else (None if names else "micro")
        if self.samples and not names:
            raise UsageError("--pass-at draws answers to a task's questions, but no task is named", "add --tasks a,b,c")
        units = [self._task(name) for name in names]
        if suite and suite != "new":
            own = self.own and suite == self.recipe.suite
            units.append(Unit(scoring.suite_unit(suite), own, suite=plugins.SUITES.get(suite)))
        return units

    def _task(self, name: str) -> Unit:
        """A task with its rows. One that the run was measured on with other rows is not the run's own any more."""
        own = self.own and name in self.recipe.tasks
        known = self._in_run(name).find() if own else None
        if known and not (self.data / name).is_dir():
            return Unit(name, own)
        task: Task = plugins.task(name, self.data)
        splits = dataset.held_out(self.data / name)
        if known and (split := _changed(name, splits, known[0]["settings"])):
            said = f"{self.data / name}/{split}.jsonl is not what {self.name} was measured on: scored anew, beside it"
            console.err.print(said, soft_wrap=True)
            own = False
        return Unit(name, own, task, splits=splits)

    # where it is kept ---------------------------------------------------------------------------------------

    def _in_run(self, name: str) -> InRun:
        assert self.run is not None
        return InRun(self.run, self.number, self.stage, name)

    def _place(self, unit: Unit, name: str, settings: dict[str, Any]) -> Place:
        if unit.own:
            return self._in_run(unit.name)
        identity = self.loaded.identity(settings, unit.grader)
        return InCache(CACHE if self.asked.cache else None, name, identity)

    # measuring ----------------------------------------------------------------------------------------------

    def story(self) -> tuple[Row, RunResult | None]:
        """The scores, as JSON; where they are a run's own also its metrics, their curves over stages, and the run."""
        found = self.scores()
        if not self.whole_run or not any(Path(self.name).glob("evals/*/scores.json")):
            return found, None
        run = load_run(self.name)
        ends = {name: comparisons.cell(run.metrics[name], run.metric_intervals[name]) for name in run.metrics}
        return {**found, "metrics": ends, "curves": comparisons.curves(run)}, run

    def scores(self) -> Row:
        """What is known from disk, and the rest measured now; each unit is kept as soon as it is there."""
        found: Row = {"run": self.name, "stage": self.number} if self.run else {"model": self.name}
        found |= {"tasks": {}, "suite": None, "settings": {}}
        items: Items = {}
        for unit in self.units:
            _add(found, items, *self._judged(unit, *self._measured(unit)))
            if unit.suite is not None:
                continue
            if self.samples:
                _add(found, items, *self._judged(unit, *self._sampled(unit)))
            for kind in self.asked.also:
                _add(found, items, *self._judged(unit, *self._contrast(unit, kind)))
        if self.asked.out:
            write_evaluation(self.asked.out, found, items)
        return found

    def _measured(self, unit: Unit) -> tuple[Row, Items]:
        if unit.own and (known := self._in_run(unit.name).find()):
            return known
        what = (unit.tests, unit.suite, self.recipe.views.student, self.settings)
        place = self._place(unit, unit.name, scoring.unit_settings(self.loaded.chat, *what))
        if not unit.own and (kept := place.find()):
            return kept
        began = time.perf_counter()
        if isinstance(unit.suite, Battery):
            scores, items = self._by_parts(unit, unit.suite)
        else:
            scores, items = scoring.measure(self.loaded.engine, self.loaded.chat, *what)
        place.keep({**scores, "seconds": time.perf_counter() - began}, items)
        return scores, items

    def _by_parts(self, unit: Unit, battery: Battery) -> tuple[Row, Items]:
        """A battery's parts, each kept when it is done: some take hours."""
        settings = {unit.name: battery.settings(self.settings)}
        found: scoring.Parts = {}
        for part in battery.parts(self.settings):
            identity = self.loaded.identity(battery.settings(self.settings, part), unit.grader)
            place = InCache(PARTS if self.asked.cache else None, f"{unit.name}-{part}", identity)
            if (kept := place.find()) is None:
                rows, facts = battery.measure(self.loaded.engine, self.settings, part)
                kept = {"facts": facts}, {unit.name: rows}
                place.keep(*kept)
            found[part] = kept[1][unit.name], kept[0]["facts"]
        summary, rows = scoring.summarize_suite(battery.name, found, battery.note(self.settings))
        return {"tasks": {}, "suite": summary, "settings": settings}, {unit.name: rows}

    def _judged(self, unit: Unit, scores: Row, items: Items) -> tuple[Row, Items]:
        """The judge's scores in place of the task's own. They are not kept: the judge's replies are."""
        if self.judge is None or unit.task is None:
            return scores, items
        from sdft_cli.evaluation.judge import rescored

        return rescored(self.judge, unit.task, scores, items)

    def _contrast(self, unit: Unit, kind: str) -> tuple[Row, Items]:
        """One of `contrasts.KINDS` on a task's test rows."""
        if unit.task is None:
            raise UsageError(f"{self.data / unit.name} is not there: nothing to ask again", "name it with --data")
        task, rows, name, limit = unit.task, unit.splits["test"], f"{unit.name}-{kind}", self.settings.limit
        view, longest = contrasts.view_of(kind, self.recipe), self.settings.max_new_tokens or task.max_new_tokens
        settings = {name: scoring.settings_of(self.loaded.chat, view, limit, longest, rows)}
        if kind == "kl":
            settings[name] |= {"decoding": "temperature 1", "base": self.base.weights or self.base.place}
        place = InCache(PARTS if self.asked.cache else None, name, self.loaded.identity(settings, unit.grader))
        if kept := place.find():
            return kept
        if kind == "kl":
            summary = contrasts.drift(self.loaded, self.base, rows[:limit], longest, view)
            items: Items = {}
        else:
            summary, records = contrasts.conditioned(self.loaded, task, rows[:limit], longest, view)
            items = {name: records}
        scores: Row = {"tasks": {task.name: {kind: summary}}, "suite": None, "settings": settings}
        place.keep(scores, items)
        return scores, items

    def _sampled(self, unit: Unit) -> tuple[Row, Items]:
        """pass@k of a task's test rows. Of samples that are kept, whole blocks are used again."""
        if unit.task is None:
            raise UsageError(f"{self.data / unit.name} is not there: nothing to ask for pass@k", "name it with --data")
        task, splits = unit.task, unit.splits
        view, limit, name = self.recipe.views.student, self.settings.limit, unit.name + SAMPLES
        longest, rows = self.settings.max_new_tokens or task.max_new_tokens, splits["test"][:limit]
        how = f"temperature {scoring.PASS_AT.temperature:g}, top-p {scoring.PASS_AT.top_p:g}"
        settings = {name: scoring.settings_of(self.loaded.chat, view, limit, longest, splits["test"], how)}
        place = self._place(unit, name, settings)
        known, items = place.find() or ({"settings": {}}, {})
        found = items.get(name, []) if known["settings"].get(name) == settings[name] else []
        for first in range(0, self.samples, BLOCK):
            count = min(BLOCK, self.samples - first)
            there = sum(first <= row["sample"] < first + BLOCK for row in found)
            if there not in (BLOCK * len(rows), count * len(rows)):
                found = [row for row in found if row["sample"] < first]
                found += scoring.samples(
                    self.loaded.engine, self.loaded.chat, task, rows, longest, VIEWS[view], first, count
                )
                place.keep(self._of_samples(task, settings, found), {name: found})
        found = [row for row in found if row["sample"] < self.samples]
        return self._of_samples(task, settings, found), {name: found}

    def _of_samples(self, task: Task, settings: Row, rows: list[Row]) -> Row:
        summary = {"pass_at": scoring.summarize_samples(rows, self.asked.pass_at)}
        return {"tasks": {task.name: summary}, "suite": None, "settings": settings}


def _resolve(target: str | None) -> tuple[Run | None, str]:
    """The run, or else the model, that ``target`` names."""
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


def _final(run: Run) -> tuple[int, str, str | None]:
    """Number, task and model of the last stage that was trained or evaluated; the model may be gone since."""
    recipe = run.recipe
    for number, task in reversed(list(enumerate(recipe.tasks, 1))):
        done = run.finished(number, task)
        if done or run.read_scores(number, task):
            return number, task, str(done.model) if done else None
    return 0, "base", recipe.model


def _changed(task: str, splits: Splits, settings: Row) -> str | None:
    """The first split whose rows are not those that were scored, by the digest that was recorded of them."""
    for split, rows in splits.items():
        recorded = settings.get(scoring.unit_of(task, split), {}).get("data")
        if recorded and recorded != digests.of_examples(rows):
            return split
    return None


def _add(found: Row, items: Items, scores: Row, more: Items) -> None:
    """Lay one unit's scores and items over what was found before."""
    for name, summary in scores["tasks"].items():
        found["tasks"][name] = {**found["tasks"].get(name, {}), **summary}
    found["suite"] = scores["suite"] or found["suite"]
    found["settings"] |= scores["settings"]
    items |= more
