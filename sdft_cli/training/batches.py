"""Batches: which examples a step takes, what is written about them, who sees what, and what each token weighs.

Every random draw is a function of (seed, stage, phase, step), and of the row within a step, so a resumed stage needs no
stored generator state.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdft_cli.config.recipe import Recipe, Train
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.losses import token_weights
from sdft_cli.models.batching import Row
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import Engine
from sdft_cli.models.views import Attempts
from sdft_cli.runs.records import StepFacts
from sdft_cli.training import completions, silence
from sdft_cli.training.completions import Completion, CompletionSource
from sdft_cli.training.objective import silences
from sdft_cli.training.rendered_views import Prompts
from sdft_cli.types import Example, Rollout, Task


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def steps_in(train: Train, count: int, n: int = 1) -> int:
    """Optimizer steps of a phase with ``count`` examples and ``n`` completions per prompt."""
    return train.max_steps or max(1, math.ceil(count * n * train.epochs / train.batch)) * train.updates


def draw(count: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of batch ``step`` (from 0): epochs are seeded permutations laid end to end."""
    wanted = range(step * size, (step + 1) * size)
    orders = {}
    for epoch in {at // count for at in wanted}:
        orders[epoch] = list(range(count))
        random.Random(seed_of(seed, "epoch", epoch)).shuffle(orders[epoch])
    return [orders[at // count][at % count] for at in wanted]


class Batch(NamedTuple):
    """Rows with weights, and what their completions are like."""

    rows: list[Row]
    facts: StepFacts


class Batches:
    """The batches of one phase. ``where`` tells the phase from all others, for its seeds. `start` comes before the
    first batch is drawn."""

    def __init__(
        self,
        chat: Chat,
        recipe: Recipe,
        task: Task,
        examples: Sequence[Example],
        where: tuple[object, ...],
        max_new_tokens: int,
    ):
        self.chat, self.recipe, self.task, self.examples, self.where = chat, recipe, task, examples, where
        self.max_new_tokens = max_new_tokens
        self.steps = steps_in(recipe.train, len(examples), recipe.sampler.n)
        self.prompts = Prompts(chat, recipe.views)
        self.source = CompletionSource(chat, recipe.sampler, self.prompts, examples, max_new_tokens)

    def start(self, engine: Engine, stored: Sequence[Rollout] = ()) -> None:
        """Sample with ``engine`` from now on; ``stored`` are the completions of a teacher that wrote once."""
        self.source.start(engine, stored)

    def write_once(self, engine: Engine) -> list[Rollout]:
        """The completions of a teacher that writes once, before the phase."""
        return self.source.write_once(engine, self.seed("teacher"))

    def batch(self, number: int) -> Batch:
        """Batch ``number`` (from 0)."""
        return self.several([number])[0]

    def several(self, numbers: Sequence[int]) -> list[Batch]:
        """The batches ``numbers``, written together: a sampler's step costs many rows little more than a few. A phase
        is one draw, so what is written does not depend on which batches are written together."""
        n, size = self.recipe.sampler.n, max(1, self.recipe.train.batch // self.recipe.sampler.n)
        picked = [i for number in numbers for i in draw(len(self.examples), size, number, self.seed("data"))]
        rows = [number * size * n + at for number in numbers for at in range(size * n)]
        written = self.source.write([(i, k) for i in picked for k in range(n)], self.seed("sample"), rows)
        return [self._batch(written[at : at + size * n]) for at in range(0, len(written), size * n)]

    def trial(self, count: int, longest: int) -> Batch:
        """About ``count`` completions of up to ``longest`` tokens that no step trains on; the same at every call."""
        n = self.recipe.sampler.n
        picked = draw(len(self.examples), min(len(self.examples), max(1, count // n)), 0, self.seed("trial"))
        pairs = [(i, k) for i in picked for k in range(n)]
        return self._batch(self.source.write(pairs, self.seed("trial", "sample"), longest=longest))

    def settle(self, skip_first: int) -> None:
        """From now on leave so many tokens out, in place of ``objective.skip_first=auto``."""
        objective = self.recipe.objective.model_copy(update={"skip_first": skip_first})
        self.recipe = self.recipe.model_copy(update={"objective": objective})

    def seed(self, *parts: object) -> int:
        """A seed of this phase's own."""
        return seed_of(self.recipe.seed, *self.where, *parts)

    def demonstrations(self) -> dict[str, float]:
        """What the demonstrations are like (`completions.describe_demonstrations`)."""
        return completions.describe_demonstrations(self.examples, self.prompts)

    def _batch(self, written: list[Completion]) -> Batch:
        if self.recipe.reward:
            for completion in written:
                completion.text = self.chat.decode(completion.ids)
                completion.score = self.task.grade(completion.text, completion.example)
        rows = [Row(c.prompt, c.ids, [], sampled=c.logprobs or []) for c in written]
        self._add_advantages(written, rows)
        self._add_teacher_prompts(written, rows)
        masks = self._add_weights(written, rows)
        facts = completions.describe(written, self.chat)
        facts["signal"] = sum(any(r.weights) for r in rows) / max(1, len(rows))
        all_three = list(zip(written, rows, masks, strict=True))
        if silent := [silence.cause(self.recipe, c, r, mask_L) for c, r, mask_L in all_three if not any(r.weights)]:
            facts["silent"] = {cause: count / len(rows) for cause, count in Counter(silent).items()}
        return Batch(rows, facts)

    # what the teacher sees ----------------------------------------------------------------------------------

    def _add_teacher_prompts(self, written: list[Completion], rows: list[Row]) -> None:
        if not self.recipe.views.teacher:
            return
        for i, (completion, row) in enumerate(zip(written, rows, strict=True)):
            feedback = completion.score.why if completion.score and not _successful(self.recipe, completion) else None
            prompt = self.prompts.teacher(completion.example, Attempts(self._sibling(written, i), feedback))
            # a prompt that quotes a completion has no length before there is one
            completion.crowded = prompt is not None and len(prompt) + len(completion.ids) > self.chat.window
            row.teacher_prompt = None if completion.crowded else prompt

    def _sibling(self, written: list[Completion], i: int) -> str | None:
        """The next successful completion of the same prompt, never the row's own; thinking stripped."""
        n = self.recipe.sampler.n
        group = i // n * n
        for k in range(1, n):
            other = written[group + (i - group + k) % n]
            if _successful(self.recipe, other):
                return strip_thinking(other.text)
        return None

    # weights ------------------------------------------------------------------------------------------------

    def _add_advantages(self, written: list[Completion], rows: list[Row]) -> None:
        if self.recipe.reward is None:
            return
        rewards = [c.reward for c in written]
        advantages = token_weights.group_advantages(rewards, self.recipe.sampler.n, self.recipe.reward.epsilon)
        for row, advantage in zip(rows, advantages, strict=True):
            row.advantage = advantage

    def _add_weights(self, written: list[Completion], rows: list[Row]) -> list[Tensor]:
        """Masks, which it returns, and reduction over the whole batch; rows that can carry no signal are then left out
        of scoring."""
        goal = self.recipe.objective
        masks = [self.mask(completion, row) for completion, row in zip(written, rows, strict=True)]
        for row, weights in zip(rows, token_weights.reduce_weights(masks, goal.reduction), strict=True):
            row.weights = [0.0] * len(weights) if silences(goal, row.advantage) else weights.tolist()
        for completion, row, mask_L in zip(written, rows, masks, strict=True):
            if goal.skipped_tokens and not silence.unseen(self.recipe, completion, row):
                row.skipped = [own and not used for own, used in zip(completion.mask, mask_L.tolist(), strict=True)]
        return masks

    def mask(self, completion: Completion, row: Row) -> Tensor:
        """Which of a completion's tokens are loss positions, [L] bool."""
        goal, mask_L = self.recipe.objective, torch.tensor(completion.mask, dtype=torch.bool)
        if silence.unseen(self.recipe, completion, row):
            return torch.zeros_like(mask_L)
        thought = self.chat.thinking_length(completion.ids)
        return torch.cat((mask_L[:thought], token_weights.skip_first(mask_L[None, thought:], goal.skipped_tokens)[0]))


def _successful(recipe: Recipe, completion: Completion) -> bool:
    bar = recipe.reward.success if recipe.reward else 0.0
    return completion.reward is not None and completion.reward >= bar
