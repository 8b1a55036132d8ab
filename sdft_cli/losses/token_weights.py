"""Token weights: masks, advantages, coefficients, the trust region, and the reduction over the global batch.

One loss covers every method (`fused`): sum_t w_t * c_t * l_t. The mask and the reduction's denominator are folded
into w, which comes from the whole global batch, so that splitting into micro-batches changes nothing. The coefficient
c is the product of the method's factors (`factors`), bounded by its trust region; it is detached and signed.
Shapes: B sequences, L tokens, N loss positions, C positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdft_cli.losses.factors import ActiveFactor
from sdft_cli.losses.fused import Chunk, Coefficient

REDUCTIONS = ("token_mean", "sequence_mean")


def skip_first(mask_BL: Tensor, count: int) -> Tensor:
    """Leave the first ``count`` true positions of every row out of the loss.

    SDFT masks the first 3 completion tokens: they carry "Based on the text ..." of the teacher's view.
    """
    position_BL = mask_BL.long().cumsum(-1)
    return mask_BL & (position_BL > count)


def reduce_weights(masks: Sequence[Tensor], reduction: str) -> list[Tensor]:
    """Float weights [n] of each sequence of the *global* batch; their product with the losses sums to the mean.

    ``masks`` holds one bool vector per sequence (its completion tokens). token_mean: 1/(all tokens);
    sequence_mean: 1/(the sequence's tokens * sequences that have any). Sequences without a token get zeros.
    """
    counts = [int(m.sum()) for m in masks]
    total, rows = sum(counts), sum(c > 0 for c in counts)
    if reduction == "token_mean":
        return [m.float() / max(total, 1) for m in masks]
    if reduction == "sequence_mean":
        return [m.float() / max(c * rows, 1) for m, c in zip(masks, counts, strict=True)]
    raise ValueError(f"unknown reduction {reduction!r}: one of {', '.join(REDUCTIONS)}")


def group_advantages(rewards: Sequence[float | None], n: int, epsilon: float = 1e-6) -> list[float]:
    """(R - mean) / (std + epsilon) within each group of ``n`` neighbours, unbiased std (GRPO, arXiv 2402.03300).

    A group whose rewards are all equal carries no signal: its advantages are 0. So is that of a completion without a
    reward (None), which is left out of its group's mean and std.
    """
    advantages: list[float] = []
    for i in range(0, len(rewards), n):
        group = rewards[i : i + n]
        graded = torch.tensor([r for r in group if r is not None], dtype=torch.float64)
        spread = float(graded.std()) if len(graded) > 1 else 0.0
        mean = float(graded.mean()) if len(graded) else 0.0
        advantages += [(r - mean) / (spread + epsilon) if spread and r is not None else 0.0 for r in group]
    return advantages


# --- signals: what a coefficient may depend on besides the chunk's own log-probs --------------------------------------


@dataclass
class Signals:
    """Facts of a micro-batch's N tokens, all [N] and detached (None where there is none)."""

    advantage_N: Tensor | None = None
    sampled_N: Tensor | None = None  # log-probs under the sampler
    old_N: Tensor | None = None  # log-probs before this batch's first update; None while there was none
    sequence_ratio_N: Tensor | None = None  # importance of whole sequences, which a chunk cannot know by itself


@dataclass(frozen=True)
class ChunkTokens:
    """The tokens of one chunk of the fused pass, as factors see them (`factors.Tokens`)."""

    chunk: Chunk
    signals: Signals

    @property
    def logprob_C(self) -> Tensor:
        return self.chunk.logprob_C

    @property
    def entropy_C(self) -> Tensor:
        return self.chunk.entropy_C

    @property
    def teacher_logprob_C(self) -> Tensor:
        return _provided(self.chunk.teacher_logprob_C, "the teacher's log-probs")

    @property
    def advantage_C(self) -> Tensor:
        return _provided(self.signals.advantage_N, "a reward")[self.chunk.part]


def _provided(tensor: Tensor | None, what: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"this factor needs {what}, and nothing here provides it")
    return tensor


# --- trust region ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipBounds:
    """PPO's bounds on the ratio of new to old policy; ``dual`` bounds it for negative advantages (DAPO's numbers)."""

    low: float = 0.2
    high: float = 0.28
    dual: float | None = 3.0


def importance_weights(trainer_N: Tensor, sampler_N: Tensor, cap: float) -> Tensor:
    """Truncated importance weights min(p_trainer / p_sampler, cap) of sampled tokens, [N] (SDFT caps at 2)."""
    return torch.exp(trainer_N - sampler_N).clamp(max=cap)


def sequence_importance(trainer_N: Tensor, sampler_N: Tensor, rows_N: Tensor, cap: float) -> Tensor:
    """The same for whole sequences: min(prod_t ratio_t, cap), given to each of a sequence's tokens, [N]."""
    sums = torch.zeros(int(rows_N.max()) + 1, dtype=trainer_N.dtype, device=trainer_N.device)
    sums.index_add_(0, rows_N, trainer_N - sampler_N)
    return torch.exp(sums).clamp(max=cap)[rows_N]


def clipped_surrogate(ratio_C: Tensor, advantage_C: Tensor, clip: ClipBounds) -> tuple[Tensor, Tensor]:
    """Value and coefficient [C] of PPO's loss -min(min(r, dual) A, clip(r) A) (arXiv 1707.06347, 1912.09729).

    The coefficient multiplies the gradient of -log p(y): r A where the free branch is in force, 0 where a bound is.
    """
    within_C = ratio_C.clamp(1 - clip.low, 1 + clip.high)
    free_C = ratio_C if clip.dual is None else ratio_C.clamp(max=clip.dual)
    one_C, two_C = free_C * advantage_C, within_C * advantage_C
    moves_C = ((one_C < two_C) | (ratio_C == within_C)) & (ratio_C == free_C)
    return -torch.minimum(one_C, two_C), torch.where(moves_C, ratio_C * advantage_C, 0.0)


# --- together ------------------------------------------------------------------------------------------------------


def make_coefficient(
    factors: Sequence[ActiveFactor],
    signals: Signals,
    importance_cap: float | None = None,
    clip: ClipBounds | None = None,
    means: FactorMeans | None = None,
) -> Coefficient | None:
    """The coefficient of every token, as the fused pass wants it; None where it is 1 throughout.

    With ``clip`` the product of the factors is the advantage that the ratio of new to old policy multiplies. ``means``
    keeps the factors' sums for the log.
    """
    importance = importance_cap is not None and signals.sampled_N is not None
    if not factors and not importance and clip is None:
        return None

    def coefficient(chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        coefficient_C, value_C = torch.ones_like(chunk.logprob_C), None
        tokens = ChunkTokens(chunk, signals)
        for factor in factors:
            factor_C = factor.weigh(tokens)
            coefficient_C = coefficient_C * factor_C
            if means is not None:
                means.add(factor.factor.name, factor_C)
        if clip is not None:
            old_C = chunk.logprob_C if signals.old_N is None else signals.old_N[chunk.part]
            value_C, coefficient_C = clipped_surrogate(torch.exp(chunk.logprob_C - old_C), coefficient_C, clip)
        if importance_cap is not None and signals.sampled_N is not None:
            ratio_C = _importance(chunk, signals, importance_cap)
            coefficient_C = coefficient_C * ratio_C
            value_C = None if value_C is None else value_C * ratio_C
        return coefficient_C, value_C

    return coefficient


class FactorMeans:
    """The mean of every factor over the tokens of a step; sums stay on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, factor_C: Tensor) -> None:
        total = factor_C.sum(dtype=torch.float64)
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def read(self, tokens: int) -> dict[str, float]:
        """By factor, over ``tokens`` tokens."""
        return {name: float(total) / max(1, tokens) for name, total in self.sums.items()}


def _importance(chunk: Chunk, signals: Signals, cap: float) -> Tensor:
    if signals.sequence_ratio_N is not None:
        return signals.sequence_ratio_N[chunk.part]
    return importance_weights(chunk.logprob_C, _provided(signals.sampled_N, "sampled log-probs")[chunk.part], cap)


def later_sums(value_N: Tensor, rows_N: Tensor) -> Tensor:
    """sum of ``value`` over the later positions of the same sequence, [N]; a sequence's positions are neighbours."""
    whole_N = value_N.flip(0).cumsum(0).flip(0)  # everything from here to the end of the batch
    last_N = torch.ones_like(rows_N, dtype=torch.bool)
    last_N[:-1] = rows_N[1:] != rows_N[:-1]
    ends = whole_N[last_N] - value_N[last_N]  # what lies behind each sequence
    order_N = last_N.flip(0).cumsum(0).flip(0)  # sequences from here on, this one included
    return whole_N - value_N - ends[len(ends) - order_N]
