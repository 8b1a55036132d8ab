"""Batches: which examples a step takes, what is written about them, who sees what, and what each token weighs.

Every random draw is a function of (seed, stage, phase, step), so a resumed stage needs no stored generator state.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdft_cli.config.recipe import Recipe, Train
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.losses import token_weights
from sdft_cli.models.batching import Row
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import Engine
from sdft_cli.models.views import ROLLOUT_VIEWS, VIEWS
from sdft_cli.types import Example, Message, Rollout, Score, Task

NGRAM = 4  # length of the runs whose repetition is counted


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def steps_in(train: Train, count: int, n: int = 1) -> int:
    """Optimizer steps of a phase with ``count`` examples and ``n`` completions a prompt."""
    return train.max_steps or max(1, math.ceil(count * n * train.epochs / train.batch)) * train.updates


def draw(count: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of batch ``step`` (from 0): epochs are seeded permutations laid end to end."""
    wanted = range(step * size, (step + 1) * size)
    orders = {}
    for epoch in {at // count for at in wanted}:
        orders[epoch] = list(range(count))
        random.Random(seed_of(seed, "epoch", epoch)).shuffle(orders[epoch])
    return [orders[at // count][at % count] for at in wanted]


@dataclass
class Written:
    """A completion about an example: its loss mask, how it ended, and, where asked for, log-probs and grade."""

    example: Example
    prompt: list[int]
    ids: list[int]
    mask: list[bool]
    finish: str = "stop"
    logprobs: list[float] | None = None
    score: Score | None = None
    text: str = ""


#: Rows with weights, and facts about their completions.
Batch = tuple[list[Row], dict[str, Any]]


class Batches:
    """The batches of one phase. ``start`` gives it an engine before the first is drawn; ``written`` holds the
    completions of a teacher that wrote once, example by example."""

    def __init__(
        self,
        chat: Chat,
        recipe: Recipe,
        task: Task,
        examples: Sequence[Example],
        where: tuple[object, ...],
        max_new_tokens: int,
    ):
        self.chat, self.recipe, self.task, self.examples = chat, recipe, task, examples
        self.where, self.max_new_tokens = where, max_new_tokens
        self.steps = steps_in(recipe.train, len(examples), recipe.sampler.n)
        self.engine: Engine | None = None
        self.written: Sequence[Rollout] = ()

    def start(self, engine: Engine, written: Sequence[Rollout] = ()) -> None:
        """Sample with ``engine`` from now on."""
        self.engine, self.written = engine, written

    def batch(self, number: int) -> Batch:
        """Batch ``number`` (from 0) as rows with weights, and facts about its completions."""
        return self.several([number])[0]

    def several(self, numbers: Sequence[int]) -> list[Batch]:
        """The batches ``numbers``, written together: a sampler's step costs many rows little more than a few. What is
        written depends on all the numbers."""
        n, size = self.recipe.sampler.n, max(1, self.recipe.train.batch // self.recipe.sampler.n)
        picked = [i for number in numbers for i in draw(len(self.examples), size, number, self._seed("data"))]
        items = self._write(numbers[0], [(i, k) for i in picked for k in range(n)])
        return [self._batch(items[at : at + size * n]) for at in range(0, len(items), size * n)]

    def _batch(self, items: list[Written]) -> Batch:
        if self.recipe.reward:
            for item in items:
                item.text = self.chat.decode(item.ids)
                item.score = self.task.grade(item.text, item.example)
        rows = [Row(w.prompt, w.ids, [], sampled=w.logprobs or []) for w in items]
        self._advantages(items, rows)
        self._teacher_views(items, rows)
        self._weigh(items, rows)
        return rows, self._facts(items, rows)

    def _seed(self, *parts: object) -> int:
        return seed_of(self.recipe.seed, *self.where, *parts)

    # completions --------------------------------------------------------------------------------------------

    def _write(self, number: int, picked: list[tuple[int, int]]) -> list[Written]:
        source, n = self.recipe.sampler.source, self.recipe.sampler.n
        examples = [self.examples[i] for i, _ in picked]
        if source == "corpus":
            return [Written(e, e.meta["before"], e.meta["ids"], [True] * len(e.meta["ids"])) for e in examples]
        prompts = [self._ids(self._view(self.recipe.views.student, e), "student") or [] for e in examples]
        if source == "dataset":
            pairs = [self.chat.completion(e) for e in examples]
            return [Written(e, p, *pair) for e, p, pair in zip(examples, prompts, pairs, strict=True)]
        if source == "teacher":
            rollouts = [self.written[i * n + k] for i, k in picked]
        else:
            seed = self._seed("sample", number)
            assert self.engine is not None, "start() comes before the first batch"
            rollouts = self.engine.sample(prompts, self.recipe.sampler, self.max_new_tokens, seed)
        own = source == "student"  # another view's log-probs are no measure of this student
        return [
            Written(e, p, r.ids, [True] * len(r.ids), r.finish, r.logprobs if own else None)
            for e, p, r in zip(examples, prompts, rollouts, strict=True)
        ]

    def write_once(self, engine: Engine) -> list[Rollout]:
        """The teacher's completions of every example, under its own view, with the weights of the phase's start."""
        views = [self._ids(self._view(self.recipe.views.teacher or "prompt", e), "teacher") for e in self.examples]
        prompts = [v or [] for v in views for _ in range(self.recipe.sampler.n)]
        return engine.sample(prompts, self.recipe.sampler, self.max_new_tokens, self._seed("teacher"))

    # views --------------------------------------------------------------------------------------------------

    def _view(
        self, name: str, example: Example, sibling: str | None = None, feedback: str | None = None
    ) -> list[Message] | None:
        if name in ROLLOUT_VIEWS:
            return ROLLOUT_VIEWS[name](example, sibling, feedback)
        return VIEWS[name](example)

    def _ids(self, messages: list[Message] | None, who: str) -> list[int] | None:
        thinking = getattr(self.recipe.views, f"{who}_thinking")
        return None if messages is None else self.chat.prompt_ids(messages, thinking)

    def _teacher_views(self, items: list[Written], rows: list[Row]) -> None:
        name = self.recipe.views.teacher
        if not name:
            return
        for i, (item, row) in enumerate(zip(items, rows, strict=True)):
            feedback = item.score.why if item.score and not self._success(item) else None
            row.teacher_prompt = self._ids(self._view(name, item.example, self._sibling(items, i), feedback), "teacher")

    def _success(self, item: Written) -> bool:
        bar = self.recipe.reward.success if self.recipe.reward else 0.0
        return item.score is not None and item.score.value is not None and item.score.value >= bar

    def _sibling(self, items: list[Written], i: int) -> str | None:
        """The next successful completion of the same prompt, never the row's own; thinking stripped."""
        n = self.recipe.sampler.n
        group = i // n * n
        for k in range(1, n):
            other = items[group + (i - group + k) % n]
            if self._success(other):
                return strip_thinking(other.text)
        return None

    # weights ------------------------------------------------------------------------------------------------

    def _advantages(self, items: list[Written], rows: list[Row]) -> None:
        if self.recipe.reward is None:
            return
        rewards = [w.score.value if w.score else None for w in items]
        found = token_weights.group_advantages(rewards, self.recipe.sampler.n, self.recipe.reward.epsilon)
        for row, advantage in zip(rows, found, strict=True):
            row.advantage = advantage

    def _weigh(self, items: list[Written], rows: list[Row]) -> None:
        """Masks and reduction over the whole batch; rows that can carry no signal are then left out of scoring."""
        goal = self.recipe.objective
        masks = [self._mask(item, row) for item, row in zip(items, rows, strict=True)]
        for row, weights in zip(rows, token_weights.reduce_weights(masks, goal.reduction), strict=True):
            silent = "group_advantage" in goal.factors and not row.advantage
            row.weights = [0.0] * len(weights) if silent else weights.tolist()

    def _mask(self, item: Written, row: Row) -> Tensor:
        goal, mask_L = self.recipe.objective, torch.tensor(item.mask, dtype=torch.bool)
        blind = self.recipe.views.teacher is not None and row.teacher_prompt is None
        if blind or (goal.mask_truncated and item.finish == "length"):
            return torch.zeros_like(mask_L)
        thought = self.chat.thinking_length(item.ids)
        return torch.cat((mask_L[:thought], token_weights.skip_first(mask_L[None, thought:], goal.skip_first)[0]))

    # facts --------------------------------------------------------------------------------------------------

    def _facts(self, items: list[Written], rows: list[Row]) -> dict[str, Any]:
        count = max(1, len(items))
        facts: dict[str, Any] = {
            "completion_tokens": sum(len(w.ids) for w in items) / count,
            "truncated": sum(w.finish == "length" for w in items) / count,
            "repeated": sum(repeated(w.ids) for w in items) / count,
            "distinct": distinct([w.prompt for w in items], [w.ids for w in items]),
            "signal": sum(any(r.weights) for r in rows) / count,
        }
        if thoughts := [n for w in items if (n := self.chat.thinking_length(w.ids))]:
            facts["thinking_tokens"] = sum(thoughts) / count
        if self.recipe.reward:
            known = [w.score.value for w in items if w.score and w.score.value is not None]
            facts["reward"] = sum(known) / len(known) if known else None
        return facts

    def demonstrations(self) -> dict[str, float]:
        """What the demonstrations are like, under the names of `_facts`, from at most 64 of them; empty without any.

        Those of several turns are left out: what the student writes is one turn.
        """
        shown = [e for e in self.examples if isinstance(e.demonstration, str) and e.demonstration][:64]
        if not shown:
            return {}
        ids = [self.chat.completion(e)[0] for e in shown]
        prompts = [self.chat.prompt_ids(e.prompt) for e in shown]
        return {
            "completion_tokens": sum(map(len, ids)) / len(ids),
            "repeated": sum(map(repeated, ids)) / len(ids),
            "distinct": distinct(prompts, ids),
        }


def distinct(prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> float:
    """Different completions for each different prompt, at most 1: near 0 where all prompts get the same."""
    return min(1.0, len(set(map(tuple, completions))) / max(1, len(set(map(tuple, prompts)))))


def repeated(ids: Sequence[int]) -> float:
    """The share of a completion's 4-grams that occurred in it before; 0 for one too short to have two."""
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0
