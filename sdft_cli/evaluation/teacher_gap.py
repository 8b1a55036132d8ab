"""How far a teacher is from its student: accuracy and divergence. Both are one model that sees two prompts, unless the
teacher is a model of its own.

Shapes: N loss positions of a micro-batch, H hidden, n tokens of one completion. Nats throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdft_cli.losses.divergence import Divergence
from sdft_cli.losses.fused import Labels, Scored, fused_loss
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row, collate, group_rows, targets
from sdft_cli.models.pretrained import Policy
from sdft_cli.stats import continual


def gain(student: list[dict[str, Any]], teacher: list[dict[str, Any]], seed: int = 0) -> dict[str, Any] | None:
    """Teacher's minus student's accuracy on the rows where both were scored; None where there is none."""
    before = {r["id"]: r["value"] for r in student}
    pairs = [(before[r["id"]], r["value"]) for r in teacher]
    differences = [b - a for a, b in pairs if a is not None and b is not None]
    if not differences:
        return None
    n = len(differences)
    value, draws = continual.ratio(differences, [1] * n, seed=seed)
    return {"value": value, "interval": continual.interval(draws, value, least=3 / n), "n": n}


@torch.no_grad()
def divergences(policy: Policy, rows: Sequence[Row], budget: int, teacher: nn.Module | None = None) -> list[Tensor]:
    """[KL(teacher || student), KL(student || teacher)] of every token of every row, [2, n] a row, in nats.

    Over the full vocabulary, each under its own prompt; the student is ``policy``, and so is the teacher where none is
    given. The rows come back sorted by length.
    """
    heads, chat, found = (pretrained.head(policy).detach(), pretrained.head(policy, teacher).detach()), policy.chat, []
    for group in group_rows(rows, budget, policy.packed):
        known = targets(group, policy.device)
        prompts = [r.student_prompt for r in group], [r.teacher_prompt or [] for r in group]
        student_NH, teacher_NH = (
            pretrained.hidden_states(policy, collate(side, group, chat.pad_id, policy.device, policy.packed), model)
            for side, model in zip(prompts, (None, teacher), strict=True)
        )
        both_2N = [
            fused_loss(
                Scored(student_NH, heads[0]),
                Labels(known.tokens_N, known.weights_N),
                Scored(teacher_NH, heads[1]),
                Divergence(kind),
            )[1].loss_N
            for kind in ("forward_kl", "reverse_kl")
        ]
        found += torch.stack(both_2N).cpu().split([len(r.completion) for r in group], dim=1)
    return found


def summarize(found: Sequence[Tensor], skip: int, seed: int = 0) -> dict[str, Any]:
    """Means over tokens, bootstrap intervals over completions; forward KL also without each one's first ``skip``."""
    later = [kl_2N[:, skip:] for kl_2N in found if kl_2N.shape[1] > skip]
    return {
        "forward": _mean_per_token([kl_2N[0] for kl_2N in found], seed),
        "reverse": _mean_per_token([kl_2N[1] for kl_2N in found], seed),
        "forward_after_skip": _mean_per_token([kl_2N[0] for kl_2N in later], seed) if skip and later else None,
        "skip_first": skip,
        "completions": len(found),
        "tokens": sum(kl_2N.shape[1] for kl_2N in found),
    }


def _mean_per_token(each: Sequence[Tensor], seed: int) -> dict[str, Any]:
    sums, counts = [float(kl_N.sum()) for kl_N in each], [len(kl_N) for kl_N in each]
    value, draws = continual.ratio(sums, counts, seed=seed)
    span = continual.interval(draws, value, lowest=0.0, highest=float("inf")) if len(sums) > 1 else None
    return {"value": value, "interval": span}
