"""KL divergence between two models, or one model under two prompts, on given completions.

Shapes: N loss positions of a micro-batch, H hidden, n tokens of one completion. Nats throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdft_cli.losses.divergence import Divergence
from sdft_cli.losses.fused import Labels, Scored, fused_loss
from sdft_cli.models.batching import Row, collate, group_rows, targets
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import CausalLM
from sdft_cli.runs.token_records import Divergences, MeanValue
from sdft_cli.stats import bootstrap


@torch.no_grad()
def per_token(policy: Policy, rows: Sequence[Row], budget: int, teacher: CausalLM | None = None) -> list[Tensor]:
    """[KL(teacher || student), KL(student || teacher)] at every token of every row: one [2, n] tensor per row, in nats.

    Over the full vocabulary, each side under its own prompt. The student is ``policy``, and so is the teacher unless
    one is given. The rows come back sorted by length.
    """
    heads = policy.head().detach(), policy.head(teacher).detach()
    pad_id, kl_rows = policy.chat.pad_id, []
    for group in group_rows(rows, budget, policy.layout):
        target = targets(group, policy.device)
        prompts = [r.student_prompt for r in group], [r.teacher_prompt or [] for r in group]
        student_NH, teacher_NH = (
            policy.hidden_states(collate(prompt, group, pad_id, policy.device, policy.layout.packed), model)
            for prompt, model in zip(prompts, (None, teacher), strict=True)
        )
        student, teacher_side = Scored(student_NH, heads[0]), Scored(teacher_NH, heads[1])
        _, stats = fused_loss(
            student, Labels(target.tokens_N, target.weights_N), teacher_side, Divergence("reverse_kl")
        )
        both_2N = torch.stack([stats.kl_N, stats.loss_N])
        kl_rows += both_2N.cpu().split([len(r.completion) for r in group], dim=1)
    return kl_rows


def summarize(kl_rows: Sequence[Tensor], skip: int, seed: int = 0) -> Divergences:
    """Means over tokens, bootstrap intervals over completions."""
    later = [kl_2N[:, skip:] for kl_2N in kl_rows if kl_2N.shape[1] > skip]
    return {
        "forward": _mean_per_token([kl_2N[0] for kl_2N in kl_rows], seed),
        "reverse": _mean_per_token([kl_2N[1] for kl_2N in kl_rows], seed),
        "forward_after_skip": _mean_per_token([kl_2N[0] for kl_2N in later], seed) if skip and later else None,
        "skip_first": skip,
        "completions": len(kl_rows),
        "tokens": sum(kl_2N.shape[1] for kl_2N in kl_rows),
    }


def first_share(kl_rows: Sequence[Tensor], k: int) -> float:
    """The share of all forward KL that lies at the first ``k`` tokens of its completion, from 0 to 1; 0 where there is
    none at all. ``kl_rows`` are those of `per_token`, [2, n] each; their sums are pooled, so long rows weigh more."""
    total = sum(float(kl_2N[0].sum()) for kl_2N in kl_rows)
    return sum(float(kl_2N[0, :k].sum()) for kl_2N in kl_rows) / total if total > 0 else 0.0


def _mean_per_token(each: Sequence[Tensor], seed: int) -> MeanValue:
    sums, counts = [float(kl_N.sum()) for kl_N in each], [len(kl_N) for kl_N in each]
    value, draws = bootstrap.ratio(sums, counts, seed=seed)
    interval = bootstrap.interval(draws, value, lowest=0.0, highest=float("inf")) if len(sums) > 1 else None
    return {"value": value, "interval": interval}
