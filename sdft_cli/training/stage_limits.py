"""How long the completions of a stage may be, in training samples and in evaluations: one number, unless the user says
otherwise.

A task's own limit holds for both; where that is ``auto``, it follows from the demonstrations (`completion_limits`). An
evaluation's limit never follows from the sampler's, because methods sample with different ones and some do not sample
at all: their models are compared, and need the same room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from sdft_cli.config.recipe import Recipe
from sdft_cli.data.completion_limits import DemonstratedLimit, tokens_of
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.chat import Chat
from sdft_cli.training.batches import Batches
from sdft_cli.types import Task


class StageLimits:
    """The limits of a stage on ``task``, whose dataset is in ``folder``, under ``recipe``."""

    def __init__(self, task: Task, folder: Path, recipe: Recipe, chat: Chat):
        self.task, self.recipe = task, recipe
        self.demonstrated = DemonstratedLimit(folder, chat.switched(recipe.views.student_thinking))
        self.by_teacher = DemonstratedLimit(folder, chat.switched(recipe.views.teacher_thinking))

    @cached_property
    def scored(self) -> Task:
        """The task with the limit of its evaluations."""
        return self.demonstrated.of(self.task, self.recipe.evaluation.max_new_tokens)

    def sampled(self, phase: Recipe) -> Task:
        """The task with the limit of a phase's completions."""
        thinks = phase.sampler.source == "teacher" and phase.views.teacher_thinking
        limit = self.by_teacher if thinks else self.demonstrated
        return limit.of(self.task, phase.sampler.max_new_tokens)

    @property
    def without_demonstrations(self) -> Task:
        """The task with the limit of completions of other prompts than its own."""
        return replace(self.task, max_new_tokens=tokens_of(self.task))

    def notes(self, phases: Sequence[Batches]) -> list[str]:
        """What to say of the limits before the first step."""
        first = phases[0]
        samples = first.recipe.sampler.source in ("student", "teacher")
        asked = [self.recipe.evaluation.max_new_tokens, *([first.recipe.sampler.max_new_tokens] if samples else [])]
        said = [self.demonstrated.note(self.task, *asked)]
        scored = Conditions.of(self.recipe.views.student, self.recipe.evaluation).tokens(self.scored)
        if samples and first.max_new_tokens > scored:
            said.append(
                f"{self.task.name}: training samples have up to {first.max_new_tokens} tokens, and evaluations cut "
                f"completions at {scored} (--set evaluation.max_new_tokens={first.max_new_tokens} scores them whole)"
            )
        return [note for note in said if note]
