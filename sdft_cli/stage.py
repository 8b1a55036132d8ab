"""Train one stage: the one loop that every method shares. A method chooses the parts, never their order.

draw prompts -> sample completions -> build views -> score (teacher without gradient, student with) -> weights ->
loss, backward -> optimizer -> teacher update -> engine sync

Every random draw is a function of (seed, stage, step), so a resumed stage needs no stored generator state.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdft_cli import models, objective
from sdft_cli.batching import Row, collate, micro_batches, targets
from sdft_cli.divergence import Factor, TokenStats, fused_loss
from sdft_cli.errors import SdftError
from sdft_cli.models import Policy
from sdft_cli.optim import MasterAdamW, learning_rate
from sdft_cli.recipe import Recipe, Train
from sdft_cli.scoring import Engine
from sdft_cli.teacher import Teacher
from sdft_cli.templates import VIEWS
from sdft_cli.types import Example


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def steps_in(train: Train, count: int, n: int = 1) -> int:
    """Optimizer steps of a stage with ``count`` examples and ``n`` completions a prompt."""
    return train.max_steps or max(1, math.ceil(count * n * train.epochs / train.batch))


def draw(count: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of batch ``step`` (from 0): epochs are seeded permutations laid end to end."""
    wanted = range(step * size, (step + 1) * size)
    orders = {}
    for epoch in {at // count for at in wanted}:
        orders[epoch] = list(range(count))
        random.Random(seed_of(seed, "epoch", epoch)).shuffle(orders[epoch])
    return [orders[at // count][at % count] for at in wanted]


class Stage:
    """One task's training. ``number`` counts stages from 1; ``base`` loads the run's first weights by name."""

    def __init__(
        self,
        policy: Policy,
        engine: Engine,
        recipe: Recipe,
        number: int,
        examples: Sequence[Example],
        max_new_tokens: int,
        base: Callable[[], dict[str, Tensor]],
    ):
        self.policy, self.engine, self.recipe, self.number = policy, engine, recipe, number
        self.examples, self.max_new_tokens = examples, max_new_tokens
        self.steps = steps_in(recipe.train, len(examples), recipe.sampler.n)
        self.optimizer = MasterAdamW(policy.model, recipe.train)
        self.teacher = Teacher(policy, recipe.teacher, base) if recipe.teacher else None

    # one step -----------------------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Any]:
        """Optimizer step ``step`` (from 0); returns what there is to log."""
        began = time.perf_counter()
        rows, facts = self._rows(step)
        sampled_at = time.perf_counter()
        torch.manual_seed(seed_of(self.recipe.seed, self.number, "dropout", step))
        stats, loss = self._backward(rows)
        lr = learning_rate(self.recipe.train, step, self.steps)
        if not math.isfinite(loss):
            raise SdftError(f"the loss is {loss} at step {step + 1}", "lower train.lr, or raise train.warmup_steps")
        norm = self.optimizer.step(lr)
        if self.teacher:
            self.teacher.update(step + 1, self.optimizer.exact())
        self.engine.sync()
        seconds = time.perf_counter() - began
        tokens = sum(len(r.completion) for r in rows)
        return {
            "loss": loss,
            "kl": stats["loss"] if self.recipe.objective.target == "teacher" else None,
            **facts,
            "entropy": stats["entropy"],
            "mismatch": stats["mismatch"],
            "tokens_per_second": tokens / seconds,
            "lr": lr,
            "grad_norm": norm,
            "seconds": seconds,
            "rollout_seconds": sampled_at - began,
        }

    def _rows(self, step: int) -> tuple[list[Row], dict[str, float]]:
        """The batch as rows with weights, and facts about its completions."""
        recipe = self.recipe
        count = max(1, recipe.train.batch // recipe.sampler.n)
        picked = draw(len(self.examples), count, step, seed_of(recipe.seed, self.number, "data"))
        examples = [self.examples[i] for i in picked for _ in range(recipe.sampler.n)]
        prompts = [self._view(recipe.views.student, e) or [] for e in examples]
        rows, masks, finish = self._completions(step, examples, prompts)
        if recipe.views.teacher:
            for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
                row.teacher_prompt = self._view(recipe.views.teacher, example)
                if row.teacher_prompt is None:
                    masks[i] = torch.zeros_like(masks[i])
        kept = [objective.skip_first(m[None], recipe.objective.skip_first)[0] for m in masks]
        for row, weights in zip(rows, objective.reduce_weights(kept, recipe.objective.reduction), strict=True):
            row.weights = weights.tolist()
        lengths = [len(r.completion) for r in rows]
        truncated = sum(f == "length" for f in finish) / max(1, len(rows))
        return rows, {"completion_tokens": sum(lengths) / max(1, len(rows)), "truncated": truncated}

    def _completions(
        self, step: int, examples: Sequence[Example], prompts: list[list[int]]
    ) -> tuple[list[Row], list[Tensor], list[str]]:
        if self.recipe.sampler.source == "dataset":
            pairs = [self.policy.chat.completion(e) for e in examples]
            rows = [Row(p, ids, []) for p, (ids, _) in zip(prompts, pairs, strict=True)]
            return rows, [torch.tensor(mask) for _, mask in pairs], ["stop"] * len(rows)
        seed = seed_of(self.recipe.seed, self.number, "sample", step)
        rollouts = self.engine.sample(prompts, self.recipe.sampler, self.max_new_tokens, seed)
        rows = [Row(r.prompt_ids, r.ids, [], sampled=r.logprobs) for r in rollouts]
        return rows, [torch.ones(len(r.ids), dtype=torch.bool) for r in rollouts], [r.finish for r in rollouts]

    def _view(self, name: str, example: Example) -> list[int] | None:
        messages = VIEWS[name](example)
        return None if messages is None else self.policy.chat.prompt_ids(messages)

    def _backward(self, rows: list[Row]) -> tuple[dict[str, float], float]:
        """Gradients of the whole batch, by micro-batches; per-token means and the loss."""
        total, parts = 0.0, []
        for group in micro_batches(rows, self.recipe.train.micro_batch_tokens):
            loss, stats, mismatch = self._loss(group)
            loss.backward()
            total += loss.item()
            parts.append((*(x.sum().item() for x in stats[:2]), mismatch, len(stats.loss_N)))
        n = max(1, sum(p[3] for p in parts))
        means = {k: sum(p[i] for p in parts) / n for i, k in enumerate(("loss", "entropy", "mismatch"))}
        return means, total

    def _loss(self, group: list[Row]) -> tuple[Tensor, TokenStats, float]:
        policy, settings = self.policy, self.recipe.objective
        tokens_N, weights_N, sampled_N = targets(group, policy.device)
        teacher = None
        if self.teacher and settings.target == "teacher":
            inputs = collate([r.teacher_prompt or [] for r in group], group, policy.chat.pad_id, policy.device)
            teacher = (self.teacher.hidden_states(inputs), self.teacher.head())
        inputs = collate([r.student_prompt for r in group], group, policy.chat.pad_id, policy.device)
        policy.model.train(self.recipe.lora.dropout > 0)
        hidden_NH = models.hidden_states(policy, inputs)
        policy.model.eval()
        factor = self._factor(sampled_N)
        loss, stats = fused_loss(
            hidden_NH, models.head(policy), tokens_N, weights_N, teacher, settings.divergence, settings.beta, factor
        )
        mismatch = 0.0 if sampled_N is None else float((stats.logprob_N - sampled_N).abs().sum())
        return loss, stats, mismatch

    def _factor(self, sampled_N: Tensor | None) -> Factor | None:
        """The product of the method's row-local weights."""
        factors = [objective.FACTORS[name] for name in self.recipe.objective.factors]
        cap = self.recipe.objective.importance_cap
        if not factors and (cap is None or sampled_N is None):
            return None

        def product(logprob_C: Tensor, part: slice) -> Tensor:
            weight_C = torch.ones_like(logprob_C)
            for factor in factors:
                weight_C = weight_C * factor(logprob_C)
            if cap is not None and sampled_N is not None:
                weight_C = weight_C * objective.importance_weights(logprob_C, sampled_N[part], cap)
            return weight_C

        return product

    # state --------------------------------------------------------------------------------------------------

    def save(self, model: Path, state: Path) -> None:
        """Everything that a resumed stage needs."""
        models.save(self.policy, model)
        torch.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "teacher": self.teacher.state_dict() if self.teacher else None,
            },
            state / "state.pt",
        )

    def restore(self, state: Path) -> None:
        """Optimizer and teacher as `save` left them; the weights were loaded with the model."""
        saved = torch.load(state / "state.pt", map_location=self.policy.device, weights_only=True)
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.teacher:
            self.teacher.load_state_dict(saved["teacher"])

    def close(self) -> None:
        if self.teacher:
            self.teacher.close()
