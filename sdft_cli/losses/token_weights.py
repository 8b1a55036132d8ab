"""Token weights: masks, advantages, factors, the trust region, and the reduction over the global batch.

One loss covers every method (`fused`): sum_t w_t * c_t * l_t. The mask and the reduction's denominator are folded
into w, which comes from the whole global batch, so that splitting into micro-batches changes nothing. The coefficient
c is a product of the factors that a method names, bounded by its trust region; it is detached and signed.
Shapes: B sequences, L tokens, N loss positions, C positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdft_cli.losses.fused import Facts, Term

REDUCTIONS = ("token_mean", "sequence_mean")


def skip_first(mask_BL: Tensor, count: int) -> Tensor:
    """Leave the first ``count`` true positions of every row out of the loss.

    SDFT masks the first 3 completion tokens: they carry "Based on the text ..." of the teacher's view.
    """
    position_BL = mask_BL.long().cumsum(-1)
    return mask_BL & (position_BL > count)


def reduce_weights(masks: Sequence[Tensor], reduction: str) -> list[Tensor]:
    """Float weights [n] of each sequence of the *global* batch, whose product-sum with the losses is the mean.

    ``masks`` holds one bool vector a sequence (its completion tokens). token_mean: 1/(all tokens);
    sequence_mean: 1/(own tokens * sequences that have any). Sequences without a token get zeros.
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

    A group whose rewards are all equal says nothing: its advantages are 0. So is that of a completion without a
    reward (None), which its group's mean and std leave out.
    """
    found: list[float] = []
    for i in range(0, len(rewards), n):
        known = torch.tensor([r for r in rewards[i : i + n] if r is not None], dtype=torch.float64)
        spread = float(known.std()) if len(known) > 1 else 0.0
        mean = float(known.mean()) if len(known) else 0.0
        found += [(r - mean) / (spread + epsilon) if spread and r is not None else 0.0 for r in rewards[i : i + n]]
    return found


# --- factors: detached weights of single tokens ----------------------------------------------------------------


@dataclass
class Signals:
    """What the coefficient of a batch's tokens may depend on, all [N] and detached (None where there is none)."""

    advantage_N: Tensor | None = None
    sampled_N: Tensor | None = None  # log-probs under the sampler
    old_N: Tensor | None = None  # log-probs before this batch's first update; None while there was none
    sequence_ratio_N: Tensor | None = None  # importance of whole sequences, which a chunk cannot know by itself
    evidence_clip: float = 0.2
    evidence_share: float = 0.0


Factor = Callable[[Facts, Signals], Tensor]


def student_prob(facts: Facts, signals: Signals) -> Tensor:
    """p_S(y): Dynamic Fine-Tuning's weight (arXiv 2508.05629)."""
    return facts.logprob_C.exp()


def log_ratio(facts: Facts, signals: Signals) -> Tensor:
    """D = log p_T(y) - log p_S(y): with a token target, the sampled-token estimator of reverse KL."""
    return _there(facts.teacher_C, "the teacher's log-probs") - facts.logprob_C


def group_advantage(facts: Facts, signals: Signals) -> Tensor:
    """The advantage of the completion that the token belongs to."""
    return _there(signals.advantage_N, "a reward")[facts.part]


def evidence_ratio(facts: Facts, signals: Signals) -> Tensor:
    """(1 - s) + s * clip(exp(sign(A) D), 1 - e, 1 + e): RLSD's redistribution of credit (arXiv 2604.03128)."""
    sign_C = torch.sign(_there(signals.advantage_N, "a reward")[facts.part])
    ratio_C = torch.exp(sign_C * log_ratio(facts, signals))
    clipped_C = ratio_C.clamp(1 - signals.evidence_clip, 1 + signals.evidence_clip)
    return (1 - signals.evidence_share) + signals.evidence_share * clipped_C


#: A method's objective lists the names it multiplies. These ask the teacher for its log-probs of the tokens.
ASK_TEACHER = ("log_ratio", "evidence_ratio")
FACTORS: dict[str, Factor] = {
    "student_prob": student_prob,
    "log_ratio": log_ratio,
    "group_advantage": group_advantage,
    "evidence_ratio": evidence_ratio,
}


def _there(tensor: Tensor | None, what: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"this factor needs {what}")
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


def make_term(
    factors: Sequence[str], signals: Signals, importance_cap: float | None = None, clip: ClipBounds | None = None
) -> Term | None:
    """The coefficient of every token, as the fused pass wants it; None where it is 1 throughout.

    With ``clip`` the product of the factors is the advantage that the ratio of new to old policy multiplies.
    """
    chosen = [FACTORS[name] for name in factors]
    importance = importance_cap is not None and signals.sampled_N is not None
    if not chosen and not importance and clip is None:
        return None

    def term(facts: Facts) -> tuple[Tensor, Tensor | None]:
        coefficient_C, value_C = torch.ones_like(facts.logprob_C), None
        for factor in chosen:
            coefficient_C = coefficient_C * factor(facts, signals)
        if clip is not None:
            old_C = facts.logprob_C if signals.old_N is None else signals.old_N[facts.part]
            value_C, coefficient_C = clipped_surrogate(torch.exp(facts.logprob_C - old_C), coefficient_C, clip)
        if importance_cap is not None and signals.sampled_N is not None:
            ratio_C = _importance(facts, signals, importance_cap)
            coefficient_C = coefficient_C * ratio_C
            value_C = None if value_C is None else value_C * ratio_C
        return coefficient_C, value_C

    return term


def _importance(facts: Facts, signals: Signals, cap: float) -> Tensor:
    if signals.sequence_ratio_N is not None:
        return signals.sequence_ratio_N[facts.part]
    return importance_weights(facts.logprob_C, _there(signals.sampled_N, "sampled log-probs")[facts.part], cap)


def later_sums(value_N: Tensor, rows_N: Tensor) -> Tensor:
    """sum of ``value`` over the later positions of the same sequence, [N]; a sequence's positions are neighbours."""
    whole_N = value_N.flip(0).cumsum(0).flip(0)  # everything from here to the end of the batch
    last_N = torch.ones_like(rows_N, dtype=torch.bool)
    last_N[:-1] = rows_N[1:] != rows_N[:-1]
    ends = whole_N[last_N] - value_N[last_N]  # what lies behind each sequence
    order_N = last_N.flip(0).cumsum(0).flip(0)  # sequences from here on, this one included
    return whole_N - value_N - ends[len(ends) - order_N]
