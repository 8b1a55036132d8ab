"""Per-token divergences between a student's and a teacher's next-token distributions, from their logits.

Shapes: N positions, V vocabulary, K kept entries. Everything is in nats. This is the plain version, which autograd
differentiates; `fused` computes the same numbers from hidden states without keeping an [N, V] tensor.

    forward_kl   KL(q || p) = sum_v q (log q - log p)        p, q = student's, teacher's probabilities
    reverse_kl   KL(p || q) = sum_v p (log p - log q)
    jsd          b KL(q || M) + (1 - b) KL(p || M),  M = b q + (1 - b) p

SDFT (arXiv 2601.19897) reports its results with forward_kl, although its Eq. 1 states reverse KL; jsd tends to 0 at
both ends of b, so the two KLs are separate kinds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("forward_kl", "reverse_kl", "jsd")
ESTIMATORS = ("analytic", "sampled", "rao_blackwell")


@dataclass(frozen=True)
class Divergence:
    """Which divergence, and over what.

    ``temperature`` divides both logits. ``top_k`` keeps that many entries, chosen by the ``support`` model's logits;
    what is left out is one further entry (tail ``bucket``, as SDPO) or is renormalised away (``renormalise``).
    ``entry_clip`` caps every vocabulary entry's part before the sum, so the value can be negative (OPSD);
    ``token_clip`` caps the sum, above which a token has no gradient.
    """

    kind: str = "forward_kl"
    beta: float = 0.5
    temperature: float = 1.0
    top_k: int | None = None
    support: str = "student"
    tail: str = "bucket"
    entry_clip: float | None = None
    token_clip: float | None = None

    def __post_init__(self) -> None:
        for value, choices in ((self.kind, KINDS), (self.support, ("student", "teacher"))):
            if value not in choices:
                raise ValueError(f"unknown divergence {value!r}: one of {', '.join(choices)}")
        if self.tail not in ("bucket", "renormalise"):
            raise ValueError(f"unknown tail {self.tail!r}: one of bucket, renormalise")

    @property
    def plain(self) -> bool:
        """Over the full vocabulary and unclipped: the gradient has a closed form (`value_and_gradient_`)."""
        return self.top_k is None and self.entry_clip is None and self.token_clip is None


def divergence(student_NV: Tensor, teacher_NV: Tensor, settings: Divergence) -> Tensor:
    """Divergence of every position from logits, [N]. Differentiable in the student."""
    ls_NK, lt_NK = (
        torch.log_softmax(z if settings.temperature == 1 else z / settings.temperature, -1)
        for z in (student_NV, teacher_NV)
    )
    if settings.top_k is not None:
        ls_NK, lt_NK = _truncate(ls_NK, lt_NK, settings)
    return value(ls_NK, lt_NK, settings)


def value(ls_NK: Tensor, lt_NK: Tensor, settings: Divergence) -> Tensor:
    """The divergence [N] of two distributions given by their log-probs."""
    parts_NK = _parts(ls_NK, lt_NK, settings)
    if settings.entry_clip is not None:
        parts_NK = parts_NK.clamp(max=settings.entry_clip)
    value_N = parts_NK.sum(-1)
    return value_N if settings.token_clip is None else value_N.clamp(max=settings.token_clip)


def _parts(ls_NK: Tensor, lt_NK: Tensor, settings: Divergence) -> Tensor:
    if settings.kind == "forward_kl":
        return lt_NK.exp() * (lt_NK - ls_NK)
    if settings.kind == "reverse_kl":
        return ls_NK.exp() * (ls_NK - lt_NK)
    lm_NK = _log_mixture(ls_NK, lt_NK, settings.beta)
    b = settings.beta
    return b * lt_NK.exp() * (lt_NK - lm_NK) + (1 - b) * ls_NK.exp() * (ls_NK - lm_NK)


def _log_mixture(ls_NK: Tensor, lt_NK: Tensor, beta: float) -> Tensor:
    return torch.logaddexp(lt_NK + math.log(beta), ls_NK + math.log(1 - beta))


def _truncate(ls_NV: Tensor, lt_NV: Tensor, settings: Divergence) -> tuple[Tensor, Tensor]:
    """Log-probs on the chosen entries [N, k], and on the tail as one more column if it is kept."""
    chooser_NV = ls_NV if settings.support == "student" else lt_NV
    kept_NK = chooser_NV.detach().topk(min(settings.top_k or 1, ls_NV.shape[-1]), -1).indices
    return _kept(ls_NV.gather(-1, kept_NK), settings), _kept(lt_NV.gather(-1, kept_NK), settings)


def _kept(l_NK: Tensor, settings: Divergence) -> Tensor:
    mass_N1 = l_NK.logsumexp(-1, keepdim=True)
    if settings.tail == "renormalise":
        return l_NK - mass_N1
    # a tail of no mass would be log 0; the bound costs at most 1e-7 nats of mass
    return torch.cat((l_NK, torch.log(-torch.expm1(mass_N1.clamp(max=-1e-7)))), -1)


def value_and_gradient_(ls_NV: Tensor, p_NV: Tensor, lt_NV: Tensor, settings: Divergence) -> tuple[Tensor, Tensor]:
    """Value [N] of a `plain` divergence and its gradient in (student logits / temperature) [N, V].

    forward_kl p - q;   reverse_kl p (log p - log q - KL);   jsd p (g - sum p g) with g = (1 - b)(log p - log M)

    ``p_NV`` holds the probabilities of ``ls_NV``. It and ``lt_NV`` are written over, so that few [N, V] tensors live.
    """
    if settings.kind == "forward_kl":
        q_NV = lt_NV.exp()
        return lt_NV.sub_(ls_NV).mul_(q_NV).sum(-1), p_NV.sub_(q_NV)
    if settings.kind == "reverse_kl":
        g_NV = torch.sub(ls_NV, lt_NV, out=lt_NV)
        value_N = own_N = (p_NV * g_NV).sum(-1)
    else:
        b, q_NV = settings.beta, lt_NV.exp()
        lm_NV = lt_NV + math.log(b / (1 - b))
        torch.logaddexp(lm_NV, ls_NV, out=lm_NV).add_(math.log(1 - b))
        theirs_N = b * lt_NV.sub_(lm_NV).mul_(q_NV).sum(-1)
        g_NV = torch.sub(ls_NV, lm_NV, out=lm_NV).mul_(1 - b)
        own_N = torch.mul(p_NV, g_NV, out=q_NV).sum(-1)
        value_N = theirs_N + own_N
    return value_N, p_NV.mul_(g_NV.sub_(own_N[:, None]))
