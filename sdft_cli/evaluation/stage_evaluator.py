"""Measures a stage's model: on every task and the suite for the run's matrix, on a few rows of each in mid-training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sdft_cli import plugins
from sdft_cli.evaluation import scoring, summaries, validation_loss
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.run_judging import RunJudging
from sdft_cli.evaluation.validation_loss import Splits, Texts
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import Engine
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import EvalFacts, ItemRecord, Scores, ShortScore, StageId
from sdft_cli.runs.token_records import TokenLoss
from sdft_cli.types import Example, Task


class MeasuredTask(Protocol):
    """A task with its held-out rows; ``tests`` by split."""

    task: Task
    validation: list[Example]
    tests: dict[str, list[Example]]


class StageEvaluator:
    """``tasks`` are those of all stages of ``run``; a task that is trained twice is measured once. With ``judging``,
    the run's judge scores the answers to tasks with a rubric."""

    def __init__(self, run: Run, tasks: Sequence[MeasuredTask], judging: RunJudging | None = None):
        self.run, self.recipe, self.judging = run, run.recipe, judging
        self.tasks = {t.task.name: t for t in tasks}
        self.texts: dict[tuple[str, str], Texts | None] = {}
        self.suite = plugins.SUITES.get(self.recipe.suite) if self.recipe.suite else None

    def quick(self, engine: Engine) -> EvalFacts:
        """Accuracies and losses on ``train.eval_limit`` validation rows of every task, and accuracies on a quarter as
        many items of every part of the suite. Greedy, so no generator's state is touched."""
        limit, view, chat = self.recipe.train.eval_limit, self.recipe.views.student, self._chat(engine)
        conditions = replace(Conditions.of(view, self.recipe.evaluation), limit=limit)
        scores: dict[str, ShortScore] = {}
        records: dict[str, list[ItemRecord]] = {}
        for name, measured in self.tasks.items():
            summary, records[name] = scoring.score_task(engine, chat, measured.task, measured.validation, conditions)
            scores[name] = summaries.short(summary)
            if loss := self._validation_loss(engine, measured, conditions):
                scores[name]["loss"] = loss
        facts: EvalFacts = {"scores": scores, "suite": None}
        self._judge_quickly(facts, records)
        if self.suite is not None:
            few = self.recipe.evaluation.model_copy(update={"limit": max(1, limit // 4)})
            suite, _ = scoring.score_suite(engine, chat, self.suite, view, few)
            facts["suite"] = summaries.short(suite)
        return facts

    def _judge_quickly(self, facts: EvalFacts, records: Mapping[str, list[ItemRecord]]) -> None:
        """Put the judge's accuracies into ``facts``, for the tasks that it judges, and a note where it has none."""
        if self.judging is None:
            return
        notes = []
        for name in self.judging.tasks:
            score, note = self.judging.quick(self.tasks[name].task, records[name])
            facts["scores"][name] = {**facts["scores"][name], **score}
            notes += [f"{name}: {note}"] if note else []
        if notes:
            facts["note"] = "; ".join(notes)
        self.judging.judge.release()

    def complete(self, stage: StageId) -> bool:
        """Whether everything is measured after ``stage``."""
        scores = self._scores(stage)
        return scores["tasks"].keys() >= self.tasks.keys() and not (self.suite and not scores["suite"])

    def measure(self, engine: Engine, stage: StageId) -> Scores:
        """Measure what the stage's ``scores.json`` lacks, and write it there; returns all of it. Answers are written
        before the judge is asked about them, so that none has to be sampled again."""
        began, scores = time.perf_counter(), self._scores(stage)
        tests = [(m.task, m.tests) for name, m in self.tasks.items() if name not in scores["tasks"]]
        suite = None if scores["suite"] else self.suite
        view, settings = self.recipe.views.student, self.recipe.evaluation
        measured = scoring.measure(engine, self._chat(engine), tests, suite, view, settings)
        if self.judging:
            measured = self.judging.waiting(measured)
        scores["tasks"] |= measured.summaries()
        for name in measured.tasks:
            if loss := self._stage_loss(engine, self.tasks[name]):
                scores["tasks"][name]["loss"] = loss
        scores["suite"] = measured.suite or scores["suite"]
        scores["settings"] = scores.get("settings", {}) | measured.settings
        scores["seconds"] = time.perf_counter() - began
        self.run.evaluation(stage).write(scores, measured.items)
        return self.judge(stage)

    def lacks_judge(self, stage: StageId) -> bool:
        """Whether answers after ``stage``, which is measured, wait for the run's judge."""
        return self.judging is not None and self.judging.lacks(stage)

    def judge(self, stage: StageId) -> Scores:
        """Have the answers judged that wait, as far as possible; returns all scores of the stage. Needs no model."""
        if self.judging:
            self.judging.stage(stage)
        return self._scores(stage)

    def _validation_loss(self, engine: Engine, task: MeasuredTask, conditions: Conditions) -> TokenLoss | None:
        """The loss on the validation rows of ``conditions``; None where these have nothing to be answered with."""
        texts = self._texts("validation", task, {"validation": task.validation}, conditions, self._chat(engine))
        budget = self.recipe.train.micro_batch_budget
        return validation_loss.measure(engine.policy, texts, budget, with_interval=False) if texts else None

    def _stage_loss(self, engine: Engine, task: MeasuredTask) -> TokenLoss | None:
        """The loss for the run's matrix: on test rows, or on validation rows where these alone have demonstrations."""
        conditions = validation_loss.at_stages(Conditions.of(self.recipe.views.student, self.recipe.evaluation))
        splits: Splits = {"test": task.tests["test"], "validation": task.validation}
        texts = self._texts("stage", task, splits, conditions, self._chat(engine))
        return validation_loss.measure(engine.policy, texts, self.recipe.train.micro_batch_budget) if texts else None

    def _texts(self, when: str, task: MeasuredTask, splits: Splits, conditions: Conditions, chat: Chat) -> Texts | None:
        """The texts of a task's loss, which are the same at every evaluation of a kind, and are made once."""
        key = when, task.task.name
        if key not in self.texts:
            self.texts[key] = validation_loss.texts_of(task.task, splits, chat, conditions)
        return self.texts[key]

    def _scores(self, stage: StageId) -> Scores:
        nothing: Scores = {"stage": stage.number, "task": stage.task, "tasks": {}, "suite": None}
        return self.run.evaluation(stage).scores() or nothing

    def _chat(self, engine: Engine) -> Chat:
        return engine.policy.chat.switched(self.recipe.views.student_thinking)
