"""Weighted token losses from final hidden states and output heads, the gradient computed in the forward pass.

Positions are walked in chunks, so that no [N, V] tensor outlives a chunk. Shapes: N loss positions, C positions of a
chunk, V vocabulary, H hidden. The one loss behind every method (see `token_weights`) is

    L = sum_t weight_t * coefficient_t * l_t  +  sum_t nll_weight_t * (-log p(y_t)),    l_t = D(p, q) or -log p(y_t)

with detached, signed weights and coefficients; the gradient of -log p(y) in the logits is p - onehot(y).
The gradient-in-forward idea is that of fused cross-entropy kernels (Liger, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sdft_cli.losses import divergence as formulas
from sdft_cli.losses.divergence import Divergence


class Head(NamedTuple):
    """An output head: weight [V, H], bias [V] or None, then ``scale`` and a soft ``cap`` on the logits."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """fp32 logits [N, V] (fp64 for fp64 input), whatever the weights' precision."""
        out = torch.nn.functional.linear(hidden_NH, self.weight, self.bias)
        out = out if out.dtype == torch.float64 else out.float()
        out = out * self.scale if self.scale != 1 else out
        return out if self.cap is None else self.cap * torch.tanh(out / self.cap)

    def detach(self) -> Head:
        """The same head without gradient."""
        return self._replace(weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def slope(self, logits_CV: Tensor) -> Tensor | float:
        """d logits / d (weight @ hidden + bias): the same everywhere without a cap."""
        return self.scale if self.cap is None else self.scale * (1 - (logits_CV / self.cap) ** 2)


class Scored(NamedTuple):
    """One model's view of the loss positions: final hidden states [N, H] and the output head."""

    hidden_NH: Tensor
    head: Head

    def detach(self) -> Scored:
        """The same without gradient."""
        return Scored(self.hidden_NH.detach(), self.head.detach())


class Labels(NamedTuple):
    """The tokens at the loss positions and the weights of l_t; ``nll_N`` weighs the second sum, where there is one.
    Weights carry mask and reduction."""

    tokens_N: Tensor
    weights_N: Tensor
    nll_N: Tensor | None = None


class Chunk(NamedTuple):
    """What the coefficients of a chunk's tokens may depend on, [C] each, and where in N the chunk stands."""

    logprob_C: Tensor
    teacher_logprob_C: Tensor | None
    entropy_C: Tensor
    part: slice


#: Chunk -> (coefficient [C] of l_t; value [C] to report instead of coefficient * l_t, or None).
Coefficient = Callable[[Chunk], tuple[Tensor, Tensor | None]]


class TokenStats(NamedTuple):
    """Detached results of the same pass, each [N], in nats: l_t, the student's entropy, its log-prob of the token, the
    teacher's, and KL(teacher || student) over the full vocabulary, whatever the loss (the last two are NaN without a
    teacher)."""

    loss_N: Tensor
    entropy_N: Tensor
    logprob_N: Tensor
    teacher_logprob_N: Tensor
    kl_N: Tensor


def fused_loss(
    student: Scored,
    labels: Labels,
    teacher: Scored | None = None,
    divergence: Divergence | None = None,
    coefficient: Coefficient | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> tuple[Tensor, TokenStats]:
    """The loss above as a scalar with gradients for the student's hidden states and head, and `TokenStats`.

    The teacher's hidden size may differ. Without ``divergence`` the target is the token itself; a teacher then only
    lends its log-probs to ``coefficient``. ``temperature`` divides the logits of a token target; a divergence brings
    its own. ``chunk`` positions are done at a time; None: 64 on a CPU, where small tensors stay in its caches, 256 on a
    device that large products keep busy. The backward pass can be made once.
    """
    if divergence is not None and teacher is None:
        raise ValueError("a divergence needs a teacher")
    temperature = divergence.temperature if divergence else temperature
    rows = chunk or (64 if student.hidden_NH.device.type == "cpu" else 256)
    plan = _Plan(student.head, labels, teacher, divergence, coefficient, temperature, rows)
    loss, *stats = _Fused.apply(student.hidden_NH, student.head.weight, student.head.bias, plan)
    return loss, TokenStats(*stats)


class _Plan(NamedTuple):
    head: Head
    labels: Labels
    teacher: Scored | None
    divergence: Divergence | None
    coefficient: Coefficient | None
    temperature: float
    chunk: int


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NH, weight_VH, bias_V, plan):  # type: ignore[no-untyped-def]
        needs_h, needs_w, needs_b = ctx.needs_input_grad[:3]
        wide = torch.float64 if hidden_NH.dtype == torch.float64 else torch.float32
        count, device = hidden_NH.shape[0], hidden_NH.device
        d_hidden = torch.empty_like(hidden_NH) if needs_h else None
        d_weight = torch.zeros_like(weight_VH, dtype=wide) if needs_w else None
        d_bias = torch.zeros_like(bias_V, dtype=wide) if bias_V is not None and needs_b else None
        stats_5N = torch.empty(5, count, dtype=wide, device=device)
        total = torch.zeros((), dtype=wide, device=device)
        head = plan.head._replace(weight=weight_VH, bias=bias_V)
        for i in range(0, count, plan.chunk):
            part = slice(i, i + plan.chunk)
            h_CH = hidden_NH[part]
            d_CV, stats_5N[:, part], value = _chunk(h_CH, head, plan, part, wide)
            total += value
            if d_hidden is not None:
                d_hidden[part] = d_CV.to(weight_VH.dtype) @ weight_VH
            if d_weight is not None:
                d_weight.addmm_(d_CV.T, h_CH.to(wide))  # adds in place: no second [V, H]
            if d_bias is not None:
                d_bias += d_CV.sum(0)
            del d_CV  # before the next chunk needs the room
        # summed in fp32; held until the backward pass, through which all activations live, no wider than it will leave
        d_head = (None if d is None else d.to(weight_VH.dtype) for d in (d_weight, d_bias))
        ctx.save_for_backward(d_hidden, *d_head)
        stats = tuple(stats_5N)
        ctx.mark_non_differentiable(*stats)
        return (total, *stats)

    @staticmethod
    def backward(ctx, d_loss, *_):  # type: ignore[no-untyped-def]
        # in place, since a head's gradient is large; torch refuses a second backward pass by itself
        return (*(None if d is None else d.mul_(d_loss) for d in ctx.saved_tensors), None)


def _chunk(h_CH: Tensor, head: Head, plan: _Plan, part: slice, wide: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """d loss / d (weight @ hidden + bias) [C, V], the five statistics [5, C], and the chunk's part of the loss.

    A [C, V] tensor is given up, or written over, once it has been used: four at a time are needed (jsd: five).
    """
    tokens_C1 = plan.labels.tokens_N[part, None]
    ls_CV, slope = _student(head, h_CH, plan.temperature)
    p_CV = ls_CV.exp()
    entropy_C = -(p_CV * ls_CV).sum(-1)
    lt_CV = None
    if plan.teacher is not None:
        lt_CV = _log_probs(plan.teacher.head.logits(plan.teacher.hidden_NH[part]), plan.temperature)
    logprob_C = ls_CV.gather(1, tokens_C1)[:, 0]
    teacher_C = None if lt_CV is None else lt_CV.gather(1, tokens_C1)[:, 0]
    kl_C = _forward_kl(ls_CV, lt_CV, plan.divergence)  # before the teacher's log-probs are written over
    if plan.divergence is None or lt_CV is None:
        loss_C, d_CV = -logprob_C, _minus_onehot(p_CV, tokens_C1)
    elif plan.divergence.plain:
        loss_C, d_CV = formulas.value_and_gradient_(ls_CV, p_CV, lt_CV, plan.divergence)
    else:
        loss_C, d_CV = _by_autograd(ls_CV, lt_CV, plan.divergence)
    weights_C, value_C = plan.labels.weights_N[part].to(wide), loss_C
    scale_C = weights_C
    if plan.coefficient is not None:
        coefficient_C, reported_C = plan.coefficient(Chunk(logprob_C, teacher_C, entropy_C, part))
        value_C = coefficient_C * loss_C if reported_C is None else reported_C
        scale_C = coefficient_C * weights_C
    d_CV *= scale_C[:, None]
    total = (weights_C * value_C).sum()
    if plan.labels.nll_N is not None:
        nll_C = plan.labels.nll_N[part].to(wide)
        d_CV += _minus_onehot(ls_CV.exp(), tokens_C1) * nll_C[:, None]
        total = total - (nll_C * logprob_C).sum()
    if slope is not None:
        d_CV *= slope
    none_C = torch.full_like(logprob_C, float("nan"))
    teacher_C, kl_C = none_C if teacher_C is None else teacher_C, loss_C if kl_C is None else kl_C
    return d_CV, torch.stack((loss_C, entropy_C, logprob_C, teacher_C, kl_C)), total


def _forward_kl(ls_CV: Tensor, lt_CV: Tensor | None, divergence: Divergence | None) -> Tensor | None:
    """KL(teacher || student) [C], NaN without a teacher; None where the loss is just that."""
    if lt_CV is None:
        return torch.full_like(ls_CV[:, 0], float("nan"))
    if divergence is not None and divergence.plain and divergence.kind == "forward_kl":
        return None
    q_CV = lt_CV.exp()
    # inner products need no further [C, V] tensor; they cancel to within rounding of 0, below which no KL is
    return (torch.linalg.vecdot(q_CV, lt_CV) - torch.linalg.vecdot(q_CV, ls_CV)).clamp_(min=0)


def _student(head: Head, hidden_CH: Tensor, temperature: float) -> tuple[Tensor, Tensor | float | None]:
    """Log-probs [C, V], and d (logits / temperature) / d (weight @ hidden + bias), None where that is 1."""
    logits_CV = head.logits(hidden_CH)
    slope = head.slope(logits_CV) / temperature
    return _log_probs(logits_CV, temperature), None if isinstance(slope, float) and slope == 1 else slope


def _log_probs(logits_CV: Tensor, temperature: float) -> Tensor:
    """Writes over ``logits_CV``."""
    return torch.log_softmax(logits_CV if temperature == 1 else logits_CV.div_(temperature), -1)


def _minus_onehot(p_CV: Tensor, tokens_C1: Tensor) -> Tensor:
    return p_CV.scatter_add_(1, tokens_C1, torch.full_like(tokens_C1, -1, dtype=p_CV.dtype))


def _by_autograd(ls_CV: Tensor, lt_CV: Tensor, settings: Divergence) -> tuple[Tensor, Tensor]:
    """Value [C] and gradient in the logits [C, V] where there is no closed form: autograd on this chunk alone."""
    with torch.enable_grad():
        leaf_CV = ls_CV.detach().requires_grad_()  # log-probs are logits too, already divided by the temperature
        loss_C = formulas.divergence(leaf_CV, lt_CV, replace(settings, temperature=1.0))
        (d_CV,) = torch.autograd.grad(loss_C.sum(), leaf_CV)
    return loss_C.detach(), d_CV
