"""Token weights: masks, factors and the reduction over the global batch.

A term's loss is sum_t w[t] * loss[t]. The reduction's denominator is folded into w and comes from the whole
global batch, so that splitting into micro-batches changes nothing. Shapes: B sequences, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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


def importance_weights(trainer_N: Tensor, sampler_N: Tensor, cap: float) -> Tensor:
    """Truncated importance weights min(p_trainer / p_sampler, cap) of sampled tokens, [N] (SDFT caps at 2)."""
    return torch.exp(trainer_N - sampler_N).clamp(max=cap)


def student_prob(logprob_N: Tensor) -> Tensor:
    """p_S(y): Dynamic Fine-Tuning's weight (arXiv 2508.05629)."""
    return logprob_N.exp()


#: name -> factor of the student's sampled log-probs [N]; a method's term lists the names it multiplies.
FACTORS: dict[str, Callable[[Tensor], Tensor]] = {"student_prob": student_prob}
