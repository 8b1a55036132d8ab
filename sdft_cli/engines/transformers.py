"""Sampling with the trainer's own model: the default engine, needs nothing but transformers.

Prompts are sorted by length and left-padded; rows that have finished leave the batch, so the longest one does not
set everybody's cost. The log-probs recorded are those of the distribution that was sampled from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdft_cli import models
from sdft_cli.recipe import Engine
from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from sdft_cli.models import Policy
    from sdft_cli.recipe import Sampler


@dataclass
class _Batch:
    """Rows still being written; all tensors have one entry a row in ``alive``."""

    prompts: list[list[int]]
    ids: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)


class TransformersEngine:
    """``policy`` is shared with the trainer, so a weight update needs no copying: ``sync`` only counts it."""

    name = "transformers"

    def __init__(self, policy: Policy, settings: Engine | None = None):
        self.policy, self.max_batch, self.version = policy, (settings or Engine()).max_batch, 0
        self.stop = torch.tensor(models.stop_ids(policy), device=policy.device)

    def sync(self) -> int:
        """Tell the engine that the weights have changed; returns their version."""
        self.version += 1
        return self.version

    def close(self) -> None:
        """Nothing is held."""

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        """One completion a prompt, in the order of ``prompts``. Equal arguments and weights give equal results."""
        generator = torch.Generator(self.policy.device).manual_seed(seed)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        rollouts: dict[int, Rollout] = {}
        for at in range(0, len(order), self.max_batch):
            part = order[at : at + self.max_batch]
            batch = self._write([prompts[i] for i in part], sampler, max_new_tokens, generator, greedy)
            for row, i in enumerate(part):
                rollouts[i] = Rollout(
                    prompts[i], batch.ids[row], batch.logprobs[row], batch.finish[row], i, version=self.version
                )
        return [rollouts[i] for i in range(len(prompts))]

    @torch.no_grad()
    def _write(
        self, prompts: list[list[int]], sampler: Sampler, limit: int, generator: torch.Generator, greedy: bool
    ) -> _Batch:
        from transformers import DynamicCache

        count = len(prompts)
        batch = _Batch(prompts, [[] for _ in prompts], [[] for _ in prompts], ["length"] * count)
        ids_BL, mask_BL = self._pad(prompts)
        position_BL = (mask_BL.cumsum(-1) - 1).clamp(min=0)
        alive, cache = torch.arange(count), DynamicCache(config=self.policy.core.config)
        for _ in range(limit):
            logits_BV = self._forward(ids_BL, mask_BL, position_BL, cache)
            next_B, logprob_B = choose(logits_BV, sampler, generator, greedy)
            ended_B = torch.isin(next_B, self.stop).cpu()
            _record(batch, alive, next_B, logprob_B, ended_B)
            if ended_B.all():
                break
            mask_BL = torch.cat((mask_BL, mask_BL.new_ones(len(alive), 1)), 1)
            ids_BL, position_BL = next_B[:, None], position_BL[:, -1:] + 1
            if ended_B.any():
                keep = (~ended_B).nonzero()[:, 0]
                alive, there = alive[keep], keep.to(ids_BL.device)
                ids_BL, position_BL, mask_BL = ids_BL[there], position_BL[there], mask_BL[there]
                cache.batch_select_indices(there)
        return batch

    def _pad(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        ids_BL = torch.full((len(prompts), width), self.policy.chat.pad_id)
        mask_BL = torch.zeros((len(prompts), width), dtype=torch.long)
        for i, ids in enumerate(prompts):
            ids_BL[i, width - len(ids) :] = torch.tensor(ids)
            mask_BL[i, width - len(ids) :] = 1
        return ids_BL.to(self.policy.device), mask_BL.to(self.policy.device)

    def _forward(self, ids_BL: Tensor, mask_BL: Tensor, position_BL: Tensor, cache: Any) -> Tensor:
        out = self.policy.model(
            input_ids=ids_BL,
            attention_mask=mask_BL,
            position_ids=position_BL,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()


def _record(batch: _Batch, alive: Tensor, next_B: Tensor, logprob_B: Tensor, ended_B: Tensor) -> None:
    for row, token, logprob, ended in zip(
        alive.tolist(), next_B.tolist(), logprob_B.tolist(), ended_B.tolist(), strict=True
    ):
        batch.ids[row].append(token)
        batch.logprobs[row].append(logprob)
        if ended:
            batch.finish[row] = "stop"


def choose(logits_BV: Tensor, sampler: Sampler, generator: torch.Generator, greedy: bool) -> tuple[Tensor, Tensor]:
    """Next tokens [B] and their log-probs [B] under the processed distribution (temperature, top-k, top-p)."""
    if greedy:
        logprob_BV = torch.log_softmax(logits_BV, -1)
        next_B = logits_BV.argmax(-1)
    else:
        logprob_BV = torch.log_softmax(truncate(logits_BV / sampler.temperature, sampler.top_k, sampler.top_p), -1)
        # multinomial of NaN is an error that a GPU does not survive; as it is, the loss is NaN too and a guard stops
        next_B = torch.multinomial(logprob_BV.exp().nan_to_num(nan=1.0), 1, generator=generator)[:, 0]
    return next_B, logprob_BV.gather(1, next_B[:, None])[:, 0]


def truncate(logits_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits outside the top k, or outside the smallest set of mass ``top_p``, become -inf. 0 and 1 mean off."""
    if 0 < top_k < logits_BV.shape[-1]:
        kth_B1 = logits_BV.topk(top_k, -1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, float("-inf"))
    if top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(-1, descending=True)
        mass_BV = sorted_BV.softmax(-1)
        outside_BV = mass_BV.cumsum(-1) - mass_BV >= top_p  # the token that crosses the line stays in
        logits_BV = logits_BV.masked_fill(outside_BV.scatter(1, order_BV, outside_BV), float("-inf"))
    return logits_BV


ENGINE = TransformersEngine
