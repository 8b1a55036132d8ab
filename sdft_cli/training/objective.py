"""What a recipe's objective comes to at a step: the factors in force, whom they ask, and the loss of a micro-batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdft_cli.config.recipe import Objective, Recipe
from sdft_cli.losses import factors as token_factors
from sdft_cli.losses import token_weights
from sdft_cli.losses.divergence import Divergence
from sdft_cli.losses.factors import FACTOR_ROOM, LOG_RATIO, Factor, Need
from sdft_cli.losses.fused import Labels, Scored, TokenStats, fused_loss
from sdft_cli.losses.token_weights import ClipBounds, FactorMeans, Signals
from sdft_cli.models.batching import Targets


def factors_of(goal: Objective) -> list[Factor]:
    """The objective's factors, in order; `UsageError` names an unknown one."""
    named = [FACTOR_ROOM.get(name) for name in goal.factors]
    sampled = goal.target == "teacher" and goal.estimator == "sampled"
    return [*named, LOG_RATIO] if sampled else named


def needs_of(goal: Objective) -> set[Need]:
    """Everything that the objective needs at any step."""
    needs: set[Need] = {need for factor in factors_of(goal) for need in factor.needs}
    return needs | {"teacher"} if goal.target == "teacher" else needs


def silences(goal: Objective, advantage: float | None) -> bool:
    """Whether a completion of this advantage has a coefficient of 0 on every token."""
    return any(factor.silences(advantage or 0.0) for factor in factors_of(goal))


def divergence_of(goal: Objective) -> Divergence | None:
    """None where the target is the token: sampled tokens estimate a divergence through their weights."""
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


class GroupLoss(NamedTuple):
    """The loss of a micro-batch, with its graph, and what was found at its N tokens."""

    loss: Tensor
    stats: TokenStats
    logprob_gap: Tensor


class StepObjective:
    """The loss of one optimizer step. ``older`` says whether the batch may be older than the weights."""

    def __init__(self, recipe: Recipe, step: int):
        self.goal, self.sampler = recipe.objective, recipe.sampler
        self.older = recipe.train.updates > 1 or recipe.engine.prefetch > 0
        self.divergence = divergence_of(self.goal)
        self.factors = token_factors.active(factors_of(self.goal), self.goal.factor_settings, step)
        self.means = FactorMeans()

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher's distributions or log-probs are needed at this step."""
        return self.goal.target == "teacher" or any("teacher" in f.factor.needs for f in self.factors)

    @property
    def samples_as_scored(self) -> bool:
        """Whether the sampler's log-probs are of the distribution that the student's are: this student's, at the same
        temperature, with no token left out."""
        sampler = self.sampler
        same = sampler.temperature == self.goal.logits_temperature and sampler.top_p == 1 and not sampler.top_k
        return sampler.source == "student" and same

    def loss(self, targets: Targets, student: Scored, teacher: Scored | None) -> GroupLoss:
        """The micro-batch's part of the loss; its gradient is made on the way."""
        goal, signals = self.goal, self._signals(targets, student)
        clip = ClipBounds(**goal.clip.model_dump()) if goal.clip else None
        credit_N = self._credit(targets, student, teacher) if goal.estimator == "rao_blackwell" else None
        loss, stats = fused_loss(
            student,
            Labels(targets.tokens_N, targets.weights_N, credit_N),
            teacher,
            self.divergence,
            token_weights.make_coefficient(self.factors, signals, goal.importance_cap, clip, self.means),
            goal.logits_temperature,
        )
        sampled_N = stats.logprob_N if targets.sampled_N is None else targets.sampled_N
        return GroupLoss(loss, stats, (stats.logprob_N - sampled_N).abs().sum())

    def _signals(self, targets: Targets, student: Scored) -> Signals:
        goal, whole_N = self.goal, None
        if goal.importance_cap is not None and goal.importance == "sequence" and targets.sampled_N is not None:
            logprob_N = self.look(targets, student).logprob_N
            whole_N = token_weights.sequence_importance(
                logprob_N, targets.sampled_N, targets.rows_N, goal.importance_cap
            )
        old_N = targets.sampled_N if self.older else None
        return Signals(targets.advantage_N, targets.sampled_N, old_N, whole_N)

    def _credit(self, targets: Targets, student: Scored, teacher: Scored | None) -> Tensor:
        """Weights of -log p(y_i) whose gradient is that of sum_i sg(sum_{t>i} KL_t) log p(y_i): the Rao-Blackwellised
        estimator's second sum (arXiv 2601.19897, appendix A.1)."""
        value_N = self.look(targets, student, teacher).loss_N * targets.weights_N
        return -token_weights.later_sums(value_N, targets.rows_N)

    @torch.no_grad()
    def look(self, targets: Targets, student: Scored, teacher: Scored | None = None) -> TokenStats:
        """Per-token results ahead of the loss, for weights that need a whole sequence; no gradient."""
        labels = Labels(targets.tokens_N, targets.weights_N)
        divergence = self.divergence if teacher else None
        _, stats = fused_loss(student.detach(), labels, teacher, divergence, temperature=self.goal.logits_temperature)
        return stats
