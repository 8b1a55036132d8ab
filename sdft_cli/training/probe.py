"""Measuring, before any training, whether a model that is shown demonstrations is a teacher worth learning from.

On rows of each task's train split: accuracy of the student and of the teacher (the same weights under the teacher's
view; that the teacher solves what the student does not is the assumption of arXiv 2601.19897, section 3.2), the
divergence between the two on the student's own completions, lengths of prompts, and the cost of real steps of the
method. It holds for the model as it is: the teacher of a later stage starts from weights that are trained by then.
Times are those of training steps; evaluations, checkpoints and loading come on top. No weight changes.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdft_cli import console
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import answers, divergences, summaries
from sdft_cli.evaluation.judge import judged
from sdft_cli.evaluation.run_judging import check_judge, judge_of
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row
from sdft_cli.models.engine import ENGINES, Engine
from sdft_cli.models.policy import Policy
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.records import ItemRecord
from sdft_cli.runs.token_records import Divergences
from sdft_cli.training import available_memory, first_tokens
from sdft_cli.training.batches import Batches, seed_of
from sdft_cli.training.cost_estimates import footprint, load_of, percentiles
from sdft_cli.training.micro_batches import DoesNotFit
from sdft_cli.training.preflight import StagePlan, most, notes_of, plan
from sdft_cli.training.probe_record import Measured, Pace, ProbeMemory, PromptLengths, TaskProbe, TrainingTime
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.training.row_checks import lengths_of
from sdft_cli.training.trainer import build_trainer
from sdft_cli.types import Example, Rollout

#: The teacher's view for a method without a teacher, or whose teacher sees completions of the batch.
DEMONSTRATION = "demonstration"
#: A learning rate too small to move any weight: a timed step does all of its work and changes nothing.
NO_MOVE = 1e-30


def measure(recipe: Recipe, limit: int) -> Measured:
    """Probe every task of ``recipe`` on at most ``limit`` train rows each.

    Rows that training would refuse are left out and counted, whatever ``train.on_bad_row`` says.
    """
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"on_bad_row": "drop"})})
    method = check_recipe(recipe)
    if recipe.sampler.source == "corpus":
        raise UsageError(
            f"method {method.name} learns from raw text: there are no prompts to probe",
            "see `sdft train --dry-run` for steps and sizes, or choose another --method",
        )
    location = locate(recipe.model)
    plans = plan(recipe, pretrained.load_chat(location))
    for note in notes_of(plans):
        console.err.print(f"note: {note}", soft_wrap=True, markup=False, highlight=False)
    check_judge(recipe, [stage.task for stage in plans], _say)
    before = available_memory.resident()
    policy = pretrained.load(location, recipe.runtime, recipe.lora)
    probe = _Probe(recipe, policy, limit)
    tasks = [probe.task(stage) for stage in plans]
    probe.engine.close()
    needs = footprint(recipe, location, len(plans), load_of(recipe, *most(plans)))
    peak, peak_of = _peak(policy.device)
    memory: ProbeMemory = {**needs, "peak_bytes": peak, "peak_of": peak_of, "before_bytes": before}
    return {
        "method": recipe.method,
        "model": recipe.model,
        "seed": recipe.seed,
        "limit": limit,
        "teacher_view": probe.teacher_view,
        "tasks": tasks,
        "steps": sum(task["training"]["steps"] for task in tasks),
        "seconds": _total([task["training"]["seconds"] for task in tasks]),
        "memory": memory,
    }


@dataclass
class _Row:
    """A row with the prompts of student and teacher; None where the teacher has no view that fits the window."""

    example: Example
    student: list[int]
    teacher: list[int] | None


class _Probe:
    def __init__(self, recipe: Recipe, policy: Policy, limit: int):
        self.recipe, self.policy, self.limit, self.window = recipe, policy, limit, policy.chat.window
        self.engine: Engine = ENGINES.get(recipe.engine.name)(policy, recipe.engine)
        view = recipe.views.teacher
        self.teacher_view = view if view and not VIEWS[view].needs_attempts else DEMONSTRATION
        self.judge = judge_of(recipe)

    def task(self, stage: StagePlan) -> TaskProbe:
        """Everything about one stage of the recipe."""
        seed = seed_of(self.recipe.seed, "probe", stage.task.name)
        rows = self._rows(stage, seed)
        taught = [row for row in rows if row.teacher is not None]
        self._note(stage, f"student on {len(rows)} train rows, greedy")
        student = self._grade(stage, rows, self._sample(stage, [row.student for row in rows], seed, greedy=True))
        self._note(stage, "student, temperature 1")
        rollouts = self._sample(stage, [row.student for row in rows], seed)
        self._note(stage, f"teacher ({self.teacher_view}) on {len(taught)} rows, greedy")
        prompts = [row.teacher or [] for row in taught]
        teacher = self._grade(stage, taught, self._sample(stage, prompts, seed, greedy=True))
        sampled = self._grade(stage, rows, rollouts)
        if self.judge:
            self.judge.release()  # a local one: the steps that are timed need the memory
        self._note(stage, "timing steps of the method")
        return {
            "task": stage.task.name,
            "rows": len(rows),
            "max_new_tokens": stage.max_new_tokens,
            "note": self.judge.note(student) if self.judge and stage.task.rubric else stage.task.note,
            "student": summaries.summarize(student),
            "student_sampled": summaries.summarize(sampled),
            "teacher": summaries.summarize(teacher),
            "gain": summaries.gain(student, teacher, seed),
            "kl": self._divergence(rows, rollouts, seed),
            "prompts": self._prompts(stage),
            "dropped": dict(Counter(row.reason for row in stage.dropped)),
            "training": self._training(stage, seed),
        }

    def _note(self, stage: StagePlan, text: str) -> None:
        _say(f"{stage.task.name}: {text}")

    # rows and completions -----------------------------------------------------------------------------------

    def _rows(self, stage: StagePlan, seed: int) -> list[_Row]:
        """A seeded choice of train rows, without those whose prompt leaves no room for a completion."""
        picked = random.Random(seed).sample(stage.train, min(self.limit, len(stage.train)))
        room = self.window - stage.max_new_tokens
        rows = []
        for example in picked:
            student = self._ids("student", self.recipe.views.student, example, room)
            if student is not None:
                rows.append(_Row(example, student, self._ids("teacher", self.teacher_view, example, room)))
        if not rows:
            raise UsageError(
                f"{stage.task.name}: no prompt leaves room for {stage.max_new_tokens} new tokens in a window of "
                f"{self.window}",
                "lower sampler.max_new_tokens",
            )
        return rows

    def _ids(self, who: str, view: str, example: Example, room: int) -> list[int] | None:
        messages = VIEWS[view](example)
        if messages is None:
            return None
        ids = self.policy.chat.view_ids(example, messages, getattr(self.recipe.views, f"{who}_thinking"))
        return ids if len(ids) <= room else None

    def _sample(self, stage: StagePlan, prompts: list[list[int]], seed: int, greedy: bool = False) -> list[Rollout]:
        """At temperature 1, the student's own distribution, whatever the method samples at."""
        return self.engine.sample(prompts, Sampler(), stage.max_new_tokens, seed, greedy) if prompts else []

    def _grade(self, stage: StagePlan, rows: list[_Row], rollouts: list[Rollout]) -> list[ItemRecord]:
        """Graded by the task, or judged where there is a judge and a rubric for it."""
        task = stage.task
        records = answers.graded([row.example for row in rows], rollouts, self.policy.chat, task.grade)
        return judged(self.judge, task.name, task.rubric, records) if self.judge and task.rubric else records

    def _divergence(self, rows: list[_Row], rollouts: list[Rollout], seed: int) -> Divergences | None:
        pairs = [
            Row(row.student, rollout.ids, [1.0] * len(rollout.ids), row.teacher)
            for row, rollout in zip(rows, rollouts, strict=True)
            if row.teacher is not None
        ]
        if not pairs:
            return None
        budget, goal = self.recipe.train.micro_batch_budget, self.recipe.objective
        skip = first_tokens.PAPER if goal.skip_first == "auto" else goal.skip_first  # what might be left out
        return divergences.summarize(divergences.per_token(self.policy, pairs, budget), skip, seed)

    # what training would need -------------------------------------------------------------------------------

    def _prompts(self, stage: StagePlan) -> PromptLengths:
        lengths = stage.lengths
        if self.teacher_view != self.recipe.views.teacher:
            views = self.recipe.views.model_copy(update={"teacher": self.teacher_view})
            recipe = self.recipe.model_copy(update={"views": views})
            lengths = [lengths_of(example, recipe, self.policy.chat) for example in stage.train]
        lengths, longest = [*lengths, *stage.too_long], self.recipe.train.max_prompt_tokens
        over = sum(max(pair) > longest for pair in stage.too_long)
        return {
            "rows": len(lengths),
            "student": percentiles([student for student, _ in lengths]),
            "teacher": percentiles([teacher for _, teacher in lengths if teacher]),
            "too_long": len(stage.too_long),
            "over_max_prompt_tokens": over,
            "over_window": len(stage.too_long) - over,
            "max_prompt_tokens": longest,
            "window": self.window,
        }

    def _training(self, stage: StagePlan, seed: int) -> TrainingTime:
        phases = [self._pace(phase, seed) for phase in stage.phases]
        return {"steps": stage.steps, "seconds": _total([phase["seconds"] for phase in phases]), "phases": phases}

    def _pace(self, phase: Batches, seed: int) -> Pace:
        try:
            return self._timed(phase, seed)
        except (torch.OutOfMemoryError, DoesNotFit):
            self.policy.model.zero_grad(set_to_none=True)
            return {
                "steps": phase.steps,
                "seconds": None,
                "step_seconds": None,
                "rollout_seconds": None,
                "once_seconds": None,
                "signal": None,
            }

    def _timed(self, phase: Batches, seed: int) -> Pace:
        """Two real steps on rows of their own batches: the first warms up, the second counts."""
        still = phase.recipe.train.model_copy(update={"lr": NO_MOVE, "schedule": "constant", "warmup_steps": 0})
        recipe = phase.recipe.model_copy(update={"train": still})
        count = min(len(phase.examples), 2 * max(1, still.batch // recipe.sampler.n))
        examples = random.Random(seed).sample(list(phase.examples), count)
        batches = Batches(self.policy.chat, recipe, phase.task, examples, phase.where, phase.max_new_tokens)
        began = time.perf_counter()
        written = batches.write_once(self.engine) if recipe.sampler.source == "teacher" else []
        once = (time.perf_counter() - began) * len(phase.examples) / count if written else 0.0
        # what a stage measures once, for objective.skip_first=auto, is no part of a step
        skip = first_tokens.PAPER
        origin = self._weights  # in a stage they may be the run's or the stage's first ones
        trainer = build_trainer(self.policy, self.engine, batches, stored=written, origin=origin, skip_first=skip)
        trainer.step(0)
        row = trainer.step(still.updates)  # the first step of the next batch: a batch is used for ``updates`` steps
        trainer.close()
        rollout = row["rollout_seconds"] / still.updates
        step = row["seconds"] - row["rollout_seconds"] + rollout
        return {
            "steps": phase.steps,
            "seconds": phase.steps * step + once,
            "step_seconds": step,
            "rollout_seconds": rollout,
            "once_seconds": once,
            "signal": row["signal"],
        }

    def _weights(self) -> dict[str, Tensor]:
        return {name: param.detach() for name, param in self.policy.model.named_parameters()}


def _say(text: str) -> None:
    console.err.print(text, soft_wrap=True, markup=False)


def _total(parts: Sequence[float | None]) -> float | None:
    numbers = [part for part in parts if part is not None]
    return sum(numbers) if len(numbers) == len(parts) else None


def _peak(device: torch.device) -> tuple[int, Literal["gpu", "process"]]:
    """The most memory that was held at once: of the GPU if there is one, otherwise of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "gpu"
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
