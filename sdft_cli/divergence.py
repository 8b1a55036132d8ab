"""Per-token losses between a student's and a teacher's next-token distributions.

Shapes: N loss positions, V vocabulary, H hidden. Everything is in nats. Two paths to the same numbers:

* `divergence` takes logits and is differentiated by autograd: short, obviously right, memory-hungry.
* `fused_loss` takes final hidden states and output heads, walks over chunks of positions and computes the
  gradient in the forward pass, so that no [N, V] tensor outlives a chunk.

The gradients with respect to the student's logits z (p, q = student's, teacher's probabilities):
    nll          p - onehot(y)
    forward_kl   KL(q|p):  p - q
    reverse_kl   KL(p|q):  p * (log p - log q - KL)
    jsd          b KL(q|M) + (1-b) KL(p|M), M = b q + (1-b) p:  p * (g - sum p g), g = (1-b)(log p - log M)
SDFT (arXiv 2601.19897) reports its results with forward_kl, although its Eq. 1 states reverse KL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Factor = Callable[[Tensor, slice], Tensor]
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")


def divergence(student_NV: Tensor, teacher_NV: Tensor, kind: str, beta: float = 0.5) -> Tensor:
    """Full-vocabulary divergence of every position from logits; returns [N]. Differentiable in the student."""
    ls_NV = torch.log_softmax(student_NV, -1)
    lt_NV = torch.log_softmax(teacher_NV, -1)
    return _value(ls_NV, lt_NV, kind, beta)


def _log_mixture(ls_NV: Tensor, lt_NV: Tensor, beta: float) -> Tensor:
    return torch.logsumexp(torch.stack((lt_NV + _log(beta), ls_NV + _log(1 - beta))), 0)


def _log(x: float) -> float:
    return float(torch.log(torch.tensor(x, dtype=torch.float64)))


def _value(ls_NV: Tensor, lt_NV: Tensor, kind: str, beta: float) -> Tensor:
    if kind == "forward_kl":
        return (lt_NV.exp() * (lt_NV - ls_NV)).sum(-1)
    if kind == "reverse_kl":
        return (ls_NV.exp() * (ls_NV - lt_NV)).sum(-1)
    if kind == "jsd":
        lm_NV = _log_mixture(ls_NV, lt_NV, beta)
        return (beta * lt_NV.exp() * (lt_NV - lm_NV) + (1 - beta) * ls_NV.exp() * (ls_NV - lm_NV)).sum(-1)
    raise ValueError(f"unknown divergence {kind!r}: one of {', '.join(DIVERGENCES)}")


def _dlogits(ls_NV: Tensor, lt_NV: Tensor, value_N: Tensor, kind: str, beta: float) -> Tensor:
    """d value / d student logits, [N, V]; the formulas at the top of this file."""
    p_NV = ls_NV.exp()
    if kind == "forward_kl":
        return p_NV - lt_NV.exp()
    if kind == "reverse_kl":
        return p_NV * (ls_NV - lt_NV - value_N[:, None])
    g_NV = (1 - beta) * (ls_NV - _log_mixture(ls_NV, lt_NV, beta))
    return p_NV * (g_NV - (p_NV * g_NV).sum(-1, keepdim=True))


class Head(NamedTuple):
    """An output head: weight [V, H] and bias [V] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """fp32 logits [N, V] (fp64 for fp64 input), whatever the weights' precision."""
        out = torch.nn.functional.linear(hidden_NH, self.weight, self.bias)
        return out if out.dtype == torch.float64 else out.float()


class TokenStats(NamedTuple):
    """Detached per-position results of the same pass, each [N]: the term's loss, the student's entropy and
    its log-prob of the token at that position (nats)."""

    loss_N: Tensor
    entropy_N: Tensor
    logprob_N: Tensor


def fused_loss(
    hidden_NH: Tensor,
    head: Head,
    tokens_N: Tensor,
    weights_N: Tensor,
    teacher: tuple[Tensor, Head] | None = None,
    kind: str = "forward_kl",
    beta: float = 0.5,
    factor: Factor | None = None,
    chunk: int = 256,
) -> tuple[Tensor, TokenStats]:
    """sum_t weights[t] * loss[t] as a scalar with gradients for ``hidden_NH`` and the head, and `TokenStats`.

    ``teacher`` is (its hidden states [N, H'], its head); None means the target is the token itself (NLL).
    ``weights_N`` is detached: it carries the mask and the reduction's denominator. ``factor`` gives a further
    row-local weight from the student's log-probs of the tokens, inside the same pass (importance ratios,
    `objective.student_prob`): called as factor(logprob_C, slice of N) -> [C].
    Source: the gradient-in-forward idea is that of fused cross-entropy kernels; formulas as above.
    """
    if teacher is not None and kind not in DIVERGENCES:
        raise ValueError(f"unknown divergence {kind!r}: one of {', '.join(DIVERGENCES)}")
    loss, loss_N, entropy_N, logprob_N = _Fused.apply(
        hidden_NH, head.weight, head.bias, tokens_N, weights_N.detach(), teacher, kind, beta, factor, chunk
    )
    return loss, TokenStats(loss_N, entropy_N, logprob_N)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NH, weight_VH, bias_V, tokens_N, weights_N, teacher, kind, beta, factor, chunk):  # type: ignore[no-untyped-def]
        needs_h, needs_w, needs_b = ctx.needs_input_grad[:3]
        wide = torch.float64 if hidden_NH.dtype == torch.float64 else torch.float32
        d_hidden = torch.empty_like(hidden_NH) if needs_h else None
        d_weight = torch.zeros_like(weight_VH, dtype=wide) if needs_w else None
        d_bias = torch.zeros_like(bias_V, dtype=wide) if bias_V is not None and needs_b else None
        weights_N = weights_N.to(wide, copy=True)
        stats_3N = torch.empty(3, hidden_NH.shape[0], dtype=wide, device=hidden_NH.device)
        for i in range(0, hidden_NH.shape[0], chunk):
            part = slice(i, i + chunk)
            h_CH = hidden_NH[part]
            ls_CV = torch.log_softmax(Head(weight_VH, bias_V).logits(h_CH), -1)
            d_CV, stats_3N[:, part] = _chunk(ls_CV, tokens_N[part], _teacher(teacher, part), kind, beta)
            if factor is not None:
                weights_N[part] *= factor(stats_3N[2, part], part)
            d_CV *= weights_N[part, None]
            if d_hidden is not None:
                d_hidden[part] = d_CV.to(weight_VH.dtype) @ weight_VH
            if d_weight is not None:
                d_weight += d_CV.T @ h_CH.to(wide)
            if d_bias is not None:
                d_bias += d_CV.sum(0)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.head_dtype = weight_VH.dtype
        loss_N, entropy_N, logprob_N = stats_3N
        ctx.mark_non_differentiable(loss_N, entropy_N, logprob_N)
        return (weights_N * loss_N).sum(), loss_N, entropy_N, logprob_N

    @staticmethod
    def backward(ctx, d_loss, *_):  # type: ignore[no-untyped-def]
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        grads = (
            None if d_hidden is None else d_hidden * d_loss.to(d_hidden.dtype),
            None if d_weight is None else (d_weight * d_loss).to(ctx.head_dtype),
            None if d_bias is None else (d_bias * d_loss).to(ctx.head_dtype),
        )
        return (*grads, None, None, None, None, None, None, None)


def _teacher(teacher: tuple[Tensor, Head] | None, part: slice) -> Tensor | None:
    return None if teacher is None else torch.log_softmax(teacher[1].logits(teacher[0][part]), -1)


def _chunk(ls_CV: Tensor, tokens_C: Tensor, lt_CV: Tensor | None, kind: str, beta: float) -> tuple[Tensor, Tensor]:
    """d loss / d logits [C, V] and the three statistics [3, C] of one chunk."""
    logprob_C = ls_CV.gather(1, tokens_C[:, None])[:, 0]
    p_CV = ls_CV.exp()
    entropy_C = -(p_CV * ls_CV).sum(-1)
    if lt_CV is None:
        d_CV = p_CV
        d_CV[torch.arange(len(tokens_C), device=tokens_C.device), tokens_C] -= 1
        return d_CV, torch.stack((-logprob_C, entropy_C, logprob_C))
    loss_C = _value(ls_CV, lt_CV, kind, beta)
    return _dlogits(ls_CV, lt_CV, loss_C, kind, beta), torch.stack((loss_C, entropy_C, logprob_C))
