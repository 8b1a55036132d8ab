"""Train one phase of a stage: the one loop that every method shares. A method chooses the parts, never their order.

batch (`rollout`: prompts, completions, views, weights) -> score (teacher without gradient, student with) ->
loss, backward -> optimizer -> teacher update -> engine sync
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdft_cli.config.recipe import Recipe
from sdft_cli.losses import token_weights
from sdft_cli.losses.divergence import Divergence
from sdft_cli.losses.fused import Head, TokenStats, fused_loss
from sdft_cli.losses.token_weights import ClipBounds, Signals
from sdft_cli.models.batching import Inputs, Row, Targets, collate, group_rows, targets
from sdft_cli.models.engine import Engine
from sdft_cli.models.policy import Policy
from sdft_cli.training.batches import Batches, seed_of
from sdft_cli.training.guards import NonFinite
from sdft_cli.training.micro_batches import MicroBatchBudget
from sdft_cli.training.optimizer import MasterAdamW, learning_rate
from sdft_cli.training.prefetch import Prefetcher
from sdft_cli.training.teacher import TeacherModel, keeps_offset
from sdft_cli.training.teacher_storage import choose_storage

#: What a student's view and a teacher's give for N loss positions: hidden states and head.
Scored = tuple[Tensor, Head]


class PhaseTrainer:
    """One phase of one task's training. ``origin`` loads the weights that the teacher starts from, by name;
    ``quiet(steps)`` says whether the caller will sample with the engine, or save, after so many steps."""

    def __init__(
        self,
        policy: Policy,
        engine: Engine,
        recipe: Recipe,
        batches: Batches,
        where: tuple[object, ...],
        origin: Callable[[], dict[str, Tensor]],
        quiet: Callable[[int], bool] = lambda steps: False,
    ):
        self.policy, self.engine, self.recipe, self.batches, self.where = policy, engine, recipe, batches, where
        self.steps, self.prefetcher = batches.steps, Prefetcher(batches, engine, quiet)
        goal = recipe.objective
        asks = goal.target == "teacher" or set(token_weights.ASK_TEACHER) & set(goal.factors)
        taught = choose_storage(policy, recipe) if asks else None
        self.optimizer = MasterAdamW(policy.model, recipe.train, watched=keeps_offset(taught, policy.lora))
        self.budget = MicroBatchBudget(policy, recipe, self.optimizer.held)
        self.teacher = TeacherModel(policy, taught, origin, self.optimizer.exact()) if taught else None
        self._held: tuple[int, list[Row], dict[str, Any]] | None = None

    # one step -----------------------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Any]:
        """Optimizer step ``step`` (from 0) of this phase; returns what there is to log.

        Raises `NonFinite` where loss or gradient is not finite; weights, optimizer and teacher are then as before.
        """
        began = time.perf_counter()
        rows, facts = self._batch(step)
        sampled_at = time.perf_counter()
        stats, loss = self._backward(rows, step)
        lr = learning_rate(self.recipe.train, step, self.steps)
        norm = self.optimizer.clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.discard()
            raise NonFinite(loss, norm)
        rounding = seed_of(self.recipe.seed, *self.where, "rounding", step)
        self.optimizer.step(lr, rounding, self.teacher.watcher(step + 1) if self.teacher else None)
        if self.teacher:
            self.teacher.update(step + 1, self.optimizer.exact())
        self.prefetcher.moved()
        seconds = time.perf_counter() - began
        tokens = sum(len(r.completion) for r in rows)
        return {
            "loss": loss,
            "kl": stats["kl"] if math.isfinite(stats["kl"]) else None,
            **facts,
            "entropy": stats["entropy"],
            "logprob_gap": stats["logprob_gap"],
            "tokens_per_second": tokens / seconds,
            "lr": lr,
            "grad_norm": norm,
            "seconds": seconds,
            "rollout_seconds": sampled_at - began,
            **self.budget.changes(),
            **getattr(self.engine, "facts", {}),
        }

    def _batch(self, step: int) -> tuple[list[Row], dict[str, Any]]:
        """The batch of ``step``; each is used for ``train.updates`` steps in a row."""
        number = step // self.recipe.train.updates
        if self._held is None or self._held[0] != number:
            self._held = (number, *self.prefetcher.take(number))
        return self._held[1], self._held[2]

    def may_save(self, step: int) -> bool:
        """Whether nothing but weights is in flight after ``step`` steps: a batch in use could not be drawn again."""
        return step % self.recipe.train.updates == 0

    def _backward(self, rows: list[Row], step: int) -> tuple[dict[str, float], float]:
        """Gradients of the whole batch, by micro-batches that fit; per-token means and the loss."""
        return self.budget.run(rows, lambda budget: self._passes(rows, step, budget), self.optimizer.discard)

    def _passes(self, rows: list[Row], step: int, budget: int) -> tuple[dict[str, float], float]:
        """All passes of a step, by micro-batches of at most ``budget`` tokens.

        The teacher sees the whole batch first: its hidden states are kept (its logits never), so that its weights are
        needed once a step. Sums stay on the device until the end.
        """
        torch.manual_seed(seed_of(self.recipe.seed, *self.where, "dropout", step))
        groups = group_rows(rows, budget, self.policy.packed)
        factors = self._factors(self._evidence_share(step))
        asked = self.recipe.objective.target == "teacher" or set(token_weights.ASK_TEACHER) & set(factors)
        taught = [self._teacher(group) if asked else None for group in groups]
        exact = self._divergence() is not None  # otherwise sampled: the mean of log p_S(y) - log p_T(y)
        sums_4, count = torch.zeros(4, dtype=torch.float64, device=self.policy.device), 0
        for group, teacher in zip(groups, taught, strict=True):
            loss, stats, logprob_gap = self._loss(group, teacher, step)
            loss.backward()
            self.policy.model.eval()
            kl_N = stats.loss_N if exact else stats.logprob_N - stats.teacher_N
            sums_4 += torch.stack((loss.detach(), kl_N.sum(), stats.entropy_N.sum(), logprob_gap))
            count += len(kl_N)
        total, *found = sums_4.tolist()
        return {k: v / max(1, count) for k, v in zip(("kl", "entropy", "logprob_gap"), found, strict=True)}, total

    def _loss(self, group: list[Row], teacher: Scored | None, step: int) -> tuple[Tensor, TokenStats, Tensor]:
        goal, known = self.recipe.objective, targets(group, self.policy.device)
        share = self._evidence_share(step)
        inputs = self._inputs([r.student_prompt for r in group], group)
        self.policy.train_mode(self.recipe.lora.dropout > 0)  # until the backward pass has remade its layers
        hidden_NH = self.policy.hidden_states(inputs)
        student = (hidden_NH, self.policy.head())
        signals = self._signals(known, student, share)
        clip = ClipBounds(**goal.clip.model_dump()) if goal.clip else None
        loss, stats = fused_loss(
            *student,
            known.tokens_N,
            known.weights_N,
            teacher,
            self._divergence(),
            token_weights.make_term(self._factors(share), signals, goal.importance_cap, clip),
            self._credit(known, student, teacher) if goal.estimator == "rao_blackwell" else None,
            goal.logits_temperature,
        )
        sampled_N = stats.logprob_N if known.sampled_N is None else known.sampled_N
        return loss, stats, (stats.logprob_N - sampled_N).abs().sum()

    def _teacher(self, group: list[Row]) -> Scored | None:
        if self.teacher is None:
            return None
        inputs = self._inputs([r.teacher_prompt or [] for r in group], group)
        return self.teacher.hidden_states(inputs), self.teacher.head()

    def _inputs(self, prompts: list[list[int]], group: list[Row]) -> Inputs:
        return collate(prompts, group, self.policy.chat.pad_id, self.policy.device, self.policy.packed)

    # what the method's objective comes to ------------------------------------------------------------------

    def _divergence(self) -> Divergence | None:
        """None where the target is the token: sampled tokens estimate a divergence through their weights."""
        goal = self.recipe.objective
        if goal.target == "token" or goal.estimator == "sampled":
            return None
        return Divergence(
            kind=goal.divergence,
            beta=goal.beta,
            temperature=goal.logits_temperature,
            top_k=goal.divergence_top_k,
            support=goal.support,
            tail=goal.tail,
            entry_clip=goal.entry_clip,
            token_clip=goal.token_clip,
        )

    def _evidence_share(self, step: int) -> float:
        goal = self.recipe.objective
        return goal.evidence_share * (max(0.0, 1 - step / goal.evidence_steps) if goal.evidence_steps else 1.0)

    def _factors(self, share: float) -> tuple[str, ...]:
        """The method's factors; without a share the evidence is nobody's business, and the teacher is not asked."""
        goal = self.recipe.objective
        factors = tuple(f for f in goal.factors if f != "evidence_ratio" or share)
        sampled = goal.target == "teacher" and goal.estimator == "sampled"
        return (*factors, "log_ratio") if sampled else factors

    def _signals(self, known: Targets, student: Scored, share: float) -> Signals:
        goal = self.recipe.objective
        whole = None
        if goal.importance_cap is not None and goal.importance == "sequence" and known.sampled_N is not None:
            logprob_N = self._look(known, student).logprob_N
            whole = token_weights.sequence_importance(logprob_N, known.sampled_N, known.rows_N, goal.importance_cap)
        older = self.recipe.train.updates > 1 or self.recipe.engine.prefetch
        old_N = known.sampled_N if older else None
        return Signals(known.advantage_N, known.sampled_N, old_N, whole, goal.evidence_clip, share)

    def _credit(self, known: Targets, student: Scored, teacher: Scored | None) -> Tensor:
        """Weights of -log p(y_i) whose gradient is that of sum_i sg(sum_{t>i} KL_t) log p(y_i): the Rao-Blackwellised
        estimator's second sum (arXiv 2601.19897, appendix A.1)."""
        value_N = self._look(known, student, teacher).loss_N * known.weights_N
        return -token_weights.later_sums(value_N, known.rows_N)

    @torch.no_grad()
    def _look(self, known: Targets, student: Scored, teacher: Scored | None = None) -> TokenStats:
        """Per-token results ahead of the loss, for weights that need a whole sequence; no gradient."""
        chosen = self._divergence() if teacher else None
        temperature = self.recipe.objective.logits_temperature
        return fused_loss(
            student[0].detach(),
            student[1].detach(),
            known.tokens_N,
            known.weights_N,
            teacher,
            chosen,
            temperature=temperature,
        )[1]

    # state --------------------------------------------------------------------------------------------------

    def save(self, model: Path, state: Path) -> None:
        """Everything that a resumed stage needs."""
        self.save_model(model)
        torch.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "teacher": self.teacher.state_dict() if self.teacher else None,
            },
            state / "state.pt",
        )

    def save_model(self, folder: Path) -> None:
        """The student alone."""
        self.policy.save(folder)

    def restore(self, state: Path) -> None:
        """Optimizer and teacher as `save` left them; the weights were loaded with the model."""
        saved = torch.load(state / "state.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.teacher:
            self.teacher.load_state_dict(saved["teacher"])

    def close(self) -> None:
        self.prefetcher.close()
        if self.teacher:
            self.teacher.close()
