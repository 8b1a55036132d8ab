"""The verb `train`: a sequence of tasks, one stage each, with everything measured before and after every stage.

The run folder is the only state: whatever is whole there is not done again, which is all that ``--resume`` and
``--continue`` need.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdft_cli import plugins
from sdft_cli.config.locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.console import TrainingDisplay
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.evaluation import scoring
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES, Engine
from sdft_cli.models.policy import Policy
from sdft_cli.runs.folder import Checkpoint, Run, fresh_name, write_whole
from sdft_cli.training.batches import Batches, seed_of
from sdft_cli.training.checkpoints import Checkpointer
from sdft_cli.training.guards import Finding, Guards, NonFinite
from sdft_cli.training.preflight import StagePlan, check_recipe, complaints, context_window, plan
from sdft_cli.training.trainer import PhaseTrainer, build_trainer
from sdft_cli.types import Battery, Rollout, Suite

BASE = "base"  # the task name of stage 0


def train(recipe: Recipe, out: Path | None, display: TrainingDisplay, resume: bool = False) -> Run:
    """Run ``recipe`` into the folder ``out`` (a fresh one under runs/ when None); returns the run."""
    check_recipe(recipe)
    location = locate(recipe.model)
    plans = plan(recipe, pretrained.load_chat(location), context_window(location))
    if resume and out is None:
        raise UsageError("a run that is resumed needs its folder", "name it with --out")
    run = Run.open(out) if resume and out else Run.create(out or fresh_name(recipe), recipe)
    with run.alone():
        if resume:
            run.recover()
            run.change_recipe(recipe)
        return _Sequence(run, recipe, plans, display).go()


def extend(folder: Path, tasks: tuple[str, ...], display: TrainingDisplay) -> Run:
    """``--continue``: add ``tasks`` to a finished run; its matrix grows by rows and columns."""
    run = Run.open(folder)
    recipe = run.recipe
    for i, task in enumerate(recipe.tasks, 1):
        if run.finished(i, task) is None:
            raise UsageError(f"{folder}: stage {i} ({task}) is not finished", "finish it first with --resume")
    longer = recipe.model_copy(update={"tasks": (*recipe.tasks, *tasks)})
    check_recipe(longer)
    location = locate(longer.model)
    plans = plan(longer, pretrained.load_chat(location), context_window(location))
    with run.alone():
        (folder / "done.json").unlink(missing_ok=True)
        run.save_recipe(longer)
        return _Sequence(run, longer, plans, display).go()


class _Sequence:
    def __init__(self, run: Run, recipe: Recipe, plans: list[StagePlan], display: TrainingDisplay):
        self.run, self.recipe, self.plans, self.display = run, recipe, plans, display
        self.suite: Suite | Battery | None = plugins.SUITES.get(recipe.suite) if recipe.suite else None
        self.began = time.perf_counter()

    def go(self) -> Run:
        """Every stage that is not yet whole on disk, then every cell of the matrix that is not."""
        for line in complaints(self.plans):
            self.display.note(line)
        self._measure_missing(0, BASE, self.recipe.model)
        for number, stage in enumerate(self.plans, 1):
            if done := self.run.finished(number, stage.task.name):
                self._checkpointer(number, stage).tidy(done)
            else:
                done = self._train(number, stage)
            self._measure_missing(number, stage.task.name, str(done.model))
        seconds = time.perf_counter() - self.began
        write_whole(self.run.folder / "done.json", json.dumps({"seconds": seconds}) + "\n")
        return self.run

    # training -----------------------------------------------------------------------------------------------

    def _start(self, number: int) -> tuple[Policy, Checkpoint | None]:
        """The model that stage ``number`` begins with, and the checkpoint inside the stage, if there is one."""
        latest = self.run.latest()
        if latest and latest.stage == number:
            return self._load(str(latest.model)), latest
        return self._load(self._begins_with(number)), None

    def _begins_with(self, number: int) -> str:
        """The model that stage ``number`` takes over: the base, or that of the stage before."""
        if number == 1:
            return self.recipe.model
        before = self.run.finished(number - 1, self.recipe.tasks[number - 2])
        if before is None:
            raise UsageError(f"{self.run.folder}: stage {number - 1} has no final checkpoint", "start a new run")
        return str(before.model)

    def _load(self, name: str) -> Policy:
        torch.manual_seed(seed_of(self.recipe.seed, "adapter"))  # a new adapter's weights are drawn when it is made
        return pretrained.load(locate(name), self.recipe.runtime, self.recipe.lora)

    def _origin(self, number: int, start: str) -> dict[str, Tensor]:
        """The weights by name that a teacher starts from: the run's first, or those before stage ``number``."""
        before = self.run.finished(number - 1, self.recipe.tasks[number - 2]) if number > 1 else None
        first = start == "base" or before is None
        policy = self._load(self.recipe.model if first or before is None else str(before.model))
        return {n: p.detach() for n, p in policy.model.named_parameters()}

    def _engine(self, policy: Policy) -> Engine:
        settings = self.recipe.engine
        return ENGINES.get(settings.name)(policy, settings)

    def _train(self, number: int, data: StagePlan) -> Checkpoint:
        """Stage ``number`` to its end; measured here if it ends with the weights at hand."""
        policy, inside = self._start(number)
        engine = self._engine(policy)
        first, task = inside.step if inside else 0, data.task.name
        if inside:
            self.display.note(f"resumed at stage {number}, step {first}")
        self.run.rewind_metrics(number, first if inside else -1)
        self.display.start_stage(number, len(self.plans), task, data.steps)
        if self.recipe.train.eval_every and number == 1 and inside is None:
            self._evaluate(engine, policy, number, task, 0)
        begin, checkpointer = 0, self._checkpointer(number, data)
        for k, batches in enumerate(data.phases):
            # a stage that a guard stopped at its very end has still to be closed
            if first < begin + batches.steps or k == len(data.phases) - 1:
                at = self._phase(number, data, k, begin, policy, engine, inside, checkpointer)
            begin += batches.steps
        if checkpointer.marks:
            self._log("ending", number, task, at, checkpointer.story(at))
        chosen = checkpointer.ending(at)
        if chosen and chosen.step == at:
            final = checkpointer.close(at, policy.save)
            self._measure(engine, policy, number, task, self.recipe.tasks)
        else:
            earlier = self._load(str(checkpointer.model_at(chosen)) if chosen else self._begins_with(number))
            final = checkpointer.close(at, earlier.save)
        engine.close()
        return final

    def _checkpointer(self, number: int, data: StagePlan) -> Checkpointer:
        last_phase = data.steps - data.phases[-1].steps
        return Checkpointer(self.run, self.recipe.train, number, data.task.name, last_phase)

    def _phase(
        self,
        number: int,
        data: StagePlan,
        k: int,
        begin: int,
        policy: Policy,
        engine: Engine,
        inside: Checkpoint | None,
        checkpointer: Checkpointer,
    ) -> int:
        """Phase ``k`` of a stage, whose steps follow ``begin`` earlier ones; returns the stage's step it ended at."""
        batches, task = data.phases[k], data.task.name
        start = batches.recipe.teacher.start if batches.recipe.teacher else "student"
        every, evals = self.recipe.train.checkpoint_every, self.recipe.train.eval_every
        stage = build_trainer(
            policy,
            engine,
            batches,
            stored=self._written(number, task, k, batches, engine),
            origin=lambda: self._origin(number, start),
            quiet=lambda steps: self._due(begin + steps, every) or self._due(begin + steps, evals),
        )
        done, at = 0, begin
        if inside and inside.step > begin:
            stage.restore(inside.state)
            done, at = inside.step - begin, inside.step
        guards = Guards(batches.recipe, batches.demonstrations(), "second_phase." if k else "")
        for row in self.run.rows("step", number, begin):
            guards.look(row)  # what they had seen at the checkpoint; the rows after it are gone
        for step in range(done, batches.steps):
            at = begin + step + 1
            try:
                facts = stage.step(step)
            except NonFinite as error:
                self._heed(guards.look(error.row), number, task, at, stage, at - 1)
                raise
            self._log("step", number, task, at, {**facts})
            if "memory" in facts:
                self.display.note(facts["memory"])
            last = at == data.steps
            if evals and (last or self._due(at, evals)):
                checkpointer.see(self._evaluate(engine, policy, number, task, at))
            self._heed(guards.look(facts), number, task, at, stage, at)
            if checkpointer.lost():
                break
            if not last:
                checkpointer.keep(at, stage.save, stage.save_model, self._due(at, every) and stage.may_save(step + 1))
        stage.close()
        return at

    def _heed(self, findings: list[Finding], number: int, task: str, at: int, stage: PhaseTrainer, done: int) -> None:
        """Log what guards say of step ``at``; on a stop, save the state after ``done`` steps and give the run up."""
        if not findings:
            return
        first, back = findings[0], ""
        if first.level == "stop":
            saved = before = self.run.latest()
            if before is None or (before.stage, before.step) != (number, done):
                # The checkpoint before it is kept: it may be from before the collapse. In the midst of a batch that is
                # used several times it is saved as well; who goes on from here draws a new one.
                saved = self.run.write_checkpoint(number, task, done, stage.save)
                if before and before.stage == number:
                    back = f" (or from {before.folder.name}, once you have removed {saved.folder.name})"
        for finding in findings:
            facts = {"guard": finding.guard, "level": finding.level, "text": finding.text, "hint": finding.hint}
            self._log("guard", number, task, at, facts)
        if first.level == "stop" and saved:
            where = f"stage {number} ({task}) at step {at}"
            raise SdftError(
                f"{first.guard} stopped {where}: {first.text}; state saved in {saved.folder}",
                f"{first.hint}; --resume goes on from there{back}, with other settings by --set",
            )

    def _written(self, number: int, task: str, k: int, batches: Batches, engine: Engine) -> list[Rollout]:
        """The completions of a teacher that writes once, before the phase; stored before they are used."""
        if batches.recipe.sampler.source != "teacher":
            return []
        found = self.run.read_rollouts(number, task, k)
        if found is None:
            found = batches.write_once(engine)
            self.run.write_rollouts(number, task, k, found)
        return found

    @staticmethod
    def _due(step: int, every: int) -> bool:
        return bool(every) and step % every == 0

    def _log(self, kind: str, number: int, task: str, step: int, facts: dict[str, Any]) -> dict[str, Any]:
        done = sum(plan.steps for plan in self.plans[: number - 1])
        row = {"kind": kind, "stage": number, "task": task, "step": step, "global_step": done + step, **facts}
        self.run.log(row)
        getattr(self.display, kind)(row)
        return row

    # measuring ----------------------------------------------------------------------------------------------

    def _evaluate(self, engine: Engine, policy: Policy, number: int, task: str, step: int) -> dict[str, Any]:
        """A cheap look at every task (validation rows) and the suite, for curves; greedy, so nothing is disturbed."""
        limit, view = self.recipe.train.eval_limit, self.recipe.views.student
        chat = policy.chat.switched(self.recipe.views.student_thinking)
        scores: dict[str, Any] = {}
        for data in self.plans:
            conditions = Conditions(view, limit, self.recipe.evaluation.max_new_tokens)
            summary, _ = scoring.score_task(engine, chat, data.task, data.validation, conditions)
            scores[data.task.name] = {"accuracy": summary["accuracy"], "n": summary["n"]}
        facts: dict[str, Any] = {"scores": scores, "suite": None}
        if self.suite:
            few = self.recipe.evaluation.model_copy(update={"limit": max(1, limit // 4)})
            summary, _ = scoring.score_suite(engine, chat, self.suite, view, few)
            facts["suite"] = {"accuracy": summary["accuracy"], "n": summary["n"]}
        return self._log("eval", number, task, step, facts)

    def _measure_missing(self, number: int, task: str, model: str) -> None:
        """Evaluate the stage on whatever its ``scores.json`` lacks, loading its model only if something does."""
        have = self.run.read_scores(number, task) or {"tasks": {}}
        lacking = tuple(t for t in dict.fromkeys(self.recipe.tasks) if t not in have["tasks"])
        if lacking or (self.suite and not have.get("suite")):
            policy = self._load(model)
            engine = self._engine(policy)
            self._measure(engine, policy, number, task, lacking)
            engine.close()

    def _measure(self, engine: Engine, policy: Policy, number: int, task: str, names: tuple[str, ...]) -> None:
        began = time.perf_counter()
        scores = self.run.read_scores(number, task) or {"stage": number, "task": task, "tasks": {}, "suite": None}
        tests = {d.task.name: (d.task, d.tests) for d in self.plans if d.task.name in names}
        suite = None if scores["suite"] else self.suite
        view, settings = self.recipe.views.student, self.recipe.evaluation
        chat = policy.chat.switched(self.recipe.views.student_thinking)
        measured = scoring.measure(engine, chat, list(tests.values()), suite, view, settings)
        scores["tasks"] |= measured.summaries()
        scores["suite"] = measured.suite or scores["suite"]
        scores["settings"] = scores.get("settings", {}) | measured.settings
        scores["seconds"] = time.perf_counter() - began
        self.run.write_scores(number, task, scores, measured.items)
        self.display.note(_line(scores))


def _line(scores: dict[str, Any]) -> str:
    parts = [f"{t} {s['accuracy']:.3f}" for t, s in scores["tasks"].items() if s["accuracy"] is not None]
    if scores["suite"]:
        parts.append(f"prior suite {scores['suite']['accuracy']:.3f}")
    return f"after stage {scores['stage']} ({scores['task']}): " + ", ".join(parts)
