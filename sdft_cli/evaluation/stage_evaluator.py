"""Measures a stage's model: on every task and the suite for the run's matrix, on a few rows of each in mid-training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from sdft_cli import plugins
from sdft_cli.evaluation import scoring
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import Engine
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import EvalFacts, Scores, ShortScore, StageId
from sdft_cli.types import Battery, Example, Suite, Task


class MeasuredTask(Protocol):
    """A task with its held-out rows; ``tests`` by split."""

    task: Task
    validation: list[Example]
    tests: dict[str, list[Example]]


class StageEvaluator:
    """``tasks`` are those of all stages of ``run``; a task that is trained twice is measured once."""

    def __init__(self, run: Run, tasks: Sequence[MeasuredTask]):
        self.run, self.recipe = run, run.recipe
        self.tasks = {t.task.name: t for t in tasks}
        self.suite: Suite | Battery | None = plugins.SUITES.get(self.recipe.suite) if self.recipe.suite else None

    def quick(self, engine: Engine) -> EvalFacts:
        """Accuracies on ``train.eval_limit`` validation rows of every task, and on a quarter as many items of every
        part of the suite. Greedy, so no generator's state is touched."""
        limit, view, chat = self.recipe.train.eval_limit, self.recipe.views.student, self._chat(engine)
        conditions = Conditions(view, limit, self.recipe.evaluation.max_new_tokens)
        scores: dict[str, ShortScore] = {}
        for name, measured in self.tasks.items():
            summary, _ = scoring.score_task(engine, chat, measured.task, measured.validation, conditions)
            scores[name] = {"accuracy": summary["accuracy"], "n": summary["n"]}
        if self.suite is None:
            return {"scores": scores, "suite": None}
        few = self.recipe.evaluation.model_copy(update={"limit": max(1, limit // 4)})
        summary, _ = scoring.score_suite(engine, chat, self.suite, view, few)
        return {"scores": scores, "suite": {"accuracy": summary["accuracy"], "n": summary["n"]}}

    def complete(self, stage: StageId) -> bool:
        """Whether everything is measured after ``stage``."""
        scores = self._scores(stage)
        return scores["tasks"].keys() >= self.tasks.keys() and not (self.suite and not scores["suite"])

    def measure(self, engine: Engine, stage: StageId) -> Scores:
        """Measure what the stage's ``scores.json`` lacks, and write it there; returns all of it."""
        began, scores = time.perf_counter(), self._scores(stage)
        tests = [(m.task, m.tests) for name, m in self.tasks.items() if name not in scores["tasks"]]
        suite = None if scores["suite"] else self.suite
        view, settings = self.recipe.views.student, self.recipe.evaluation
        measured = scoring.measure(engine, self._chat(engine), tests, suite, view, settings)
        scores["tasks"] |= measured.summaries()
        scores["suite"] = measured.suite or scores["suite"]
        scores["settings"] = scores.get("settings", {}) | measured.settings
        scores["seconds"] = time.perf_counter() - began
        self.run.evaluation(stage).write(scores, measured.items)
        return scores

    def _scores(self, stage: StageId) -> Scores:
        nothing: Scores = {"stage": stage.number, "task": stage.task, "tasks": {}, "suite": None}
        return self.run.evaluation(stage).scores() or nothing

    def _chat(self, engine: Engine) -> Chat:
        return engine.policy.chat.switched(self.recipe.views.student_thinking)
