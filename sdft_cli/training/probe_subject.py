"""What is probed: a model on one task, with the rows that were drawn for it, and the ways to sample and to grade."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import answers, summaries
from sdft_cli.evaluation.judge import Judge, judged
from sdft_cli.models.batching import Row
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.models.engine import Engine
from sdft_cli.models.policy import Policy
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.records import ItemRecord
from sdft_cli.training.batches import seed_of
from sdft_cli.training.cost_estimates import percentiles
from sdft_cli.training.preflight import StagePlan
from sdft_cli.training.probe_record import Rate, WrittenLengths
from sdft_cli.training.rendered_views import Prompts
from sdft_cli.types import Example, Rollout


class ProbeRow(NamedTuple):
    """A row with the student's prompt."""

    example: Example
    prompt: list[int]


@dataclass
class Subject:
    """``policy`` on the task of ``stage``; at most ``limit`` of its train rows."""

    recipe: Recipe
    policy: Policy
    engine: Engine
    judge: Judge | None
    stage: StagePlan
    limit: int

    @property
    def seed(self) -> int:
        """That of everything drawn for this task."""
        return seed_of(self.recipe.seed, "probe", self.stage.task.name)

    @cached_property
    def rows(self) -> list[ProbeRow]:
        """A seeded choice of train rows, without those whose prompt leaves no room for a completion; `UsageError` where
        none does."""
        picked = random.Random(self.seed).sample(self.stage.train, min(self.limit, len(self.stage.train)))
        prompts = [self.prompt("student", self.recipe.views.student, example) for example in picked]
        rows = [ProbeRow(e, prompt) for e, prompt in zip(picked, prompts, strict=True) if prompt is not None]
        if not rows:
            raise UsageError(
                f"{self.stage.task.name}: no prompt leaves room for {self.stage.max_new_tokens} new tokens in a window "
                f"of {self.policy.chat.window}",
                "lower sampler.max_new_tokens",
            )
        return rows

    @cached_property
    def demonstrations(self) -> list[Row]:
        """The rows' demonstrations as SFT would train them; without those that a row lacks, the template cannot write,
        or the window does not hold."""
        return [written for row in self.rows if (written := self._demonstration(row))]

    def _demonstration(self, row: ProbeRow) -> Row | None:
        if not row.example.demonstration:
            return None
        try:
            ids, mask = Prompts(self.policy.chat, self.recipe.views).demonstrated(row.example)
        except TemplateRefusal:
            return None
        fits = len(row.prompt) + len(ids) <= self.policy.chat.window
        return Row(row.prompt, ids, [float(counts) for counts in mask]) if fits and any(mask) else None

    def prompt(self, who: str, view: str, example: Example) -> list[int] | None:
        """The ids of a view; None where it has nothing to show of ``example``, the template refuses it, or it leaves no
        room for a completion."""
        messages = VIEWS[view](example)
        if messages is None:
            return None
        try:
            ids = self.policy.chat.view_ids(example, messages, getattr(self.recipe.views, f"{who}_thinking"))
        except TemplateRefusal:
            return None
        return ids if len(ids) <= self.policy.chat.window - self.stage.max_new_tokens else None

    def sample(
        self,
        prompts: list[list[int]],
        greedy: bool = False,
        max_new_tokens: int | None = None,
        sampler: Sampler | None = None,
    ) -> list[Rollout]:
        """At temperature 1 unless ``sampler`` says otherwise: the model's own distribution, whatever the method samples
        at."""
        longest = self.stage.max_new_tokens if max_new_tokens is None else max_new_tokens
        return self.engine.sample(prompts, sampler or Sampler(), longest, self.seed, greedy) if prompts else []

    def grade(self, examples: Sequence[Example], rollouts: Sequence[Rollout]) -> list[ItemRecord]:
        """Graded by the task, or judged where there is a judge and a rubric for it."""
        task = self.stage.task
        records = answers.graded(examples, rollouts, self.policy.chat, task.grade)
        return judged(self.judge, task.name, task.rubric, records) if self.judge and task.rubric else records


def rate(records: Sequence[ItemRecord]) -> Rate:
    """How many of the graded completions are right."""
    summary = summaries.summarize(records)
    ends = summary["interval"]
    return {"accuracy": summary["accuracy"], "interval": (ends[0], ends[1]) if ends else None, "n": summary["n"]}


def written_lengths(rollouts: Sequence[Rollout]) -> WrittenLengths:
    """The lengths of completions, and how many ended by themselves."""
    ended = [rollout.finish == "stop" for rollout in rollouts]
    lengths = percentiles([len(rollout.ids) for rollout in rollouts])
    return {"tokens": lengths, "ended": sum(ended) / len(ended) if ended else None}
