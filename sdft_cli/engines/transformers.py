"""Sampling with the trainer's own model: the default engine, needs nothing but transformers.

Prompts are sorted by length and left-padded; equal ones are read once; rows that have finished leave the batch, so the
longest one does not set everybody's cost. The log-probs recorded are those of the distribution that was sampled from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdft_cli.config.recipe import EngineSettings
from sdft_cli.engines._decoding import Decoder, Lean, Parts, Plain, lean
from sdft_cli.errors import SdftError
from sdft_cli.models import pretrained
from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Sampler
    from sdft_cli.models.pretrained import Policy

#: Rows leave the batch once so large a share of it has finished: taking them out copies the cache.
FINISHED = 0.1
#: Tokens between two looks at what has finished; on a GPU every look waits for the device.
LOOK_EVERY = {"cpu": 1, "cuda": 8}


class TransformersEngine:
    """``policy`` is shared with the trainer, so a weight update needs no copying: ``sync`` only counts it.

    Rows that do not fit into memory together are written in halves, from then on; ``facts`` tells of it. With
    ``settings.prefetch`` it samples while the trainer moves the weights, and has a copy of those that can move.
    """

    name = "transformers"

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        settings = settings or EngineSettings()
        self.policy, self.max_batch, self.version = policy, settings.max_batch, 0
        self.facts = dict[str, Any]()
        self.sampled = pretrained.twin(policy) if settings.prefetch else policy
        self.stop = torch.tensor(pretrained.stop_ids(policy), device=policy.device)

    @cached_property
    def parts(self) -> Parts | None:
        """What the lean decoder walks through; None where the model is not of its kind."""
        return lean(self.sampled)

    def sync(self) -> int:
        """Tell the engine that the weights have changed; returns their version."""
        if self.sampled is not self.policy:
            pretrained.follow(self.sampled, self.policy)
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
        parts = self.parts.packed() if self.parts else None  # anew: training has moved the weights since the last time
        rollouts: dict[int, Rollout] = {}
        while part := order[len(rollouts) : len(rollouts) + self.max_batch]:
            before = generator.get_state()
            asked = [prompts[i] for i in part]
            try:
                decoder: Decoder = Lean(self.sampled, parts) if parts else Plain(self.sampled)
                written = self._write(decoder, asked, sampler, max_new_tokens, generator, greedy)
            except torch.OutOfMemoryError as error:
                written, reason = [], str(error).splitlines()[0]
            del decoder
            if not written:  # outside of the handler, whose traceback keeps what was being written
                self._shrink(asked, reason)
                generator.set_state(before)
                continue
            for i, (ids, logprobs, finish) in zip(part, written, strict=True):
                rollouts[i] = Rollout(prompts[i], ids, logprobs, finish, i, version=self.version)
        return [rollouts[i] for i in range(len(prompts))]

    def _shrink(self, prompts: list[list[int]], reason: str) -> None:
        """Half as many rows at a time from now on; `SdftError` where it was one."""
        if len(prompts) == 1:
            raise SdftError(
                f"a prompt of {len(prompts[0])} tokens and its completion do not fit into the memory of "
                f"{self.policy.device}: {reason}",
                "lower sampler.max_new_tokens or train.max_prompt_tokens, or set lora.rank",
            )
        pretrained.release(self.policy.device)
        self.max_batch = self.facts["max_batch"] = len(prompts) // 2

    @torch.no_grad()
    def _write(
        self,
        decoder: Decoder,
        prompts: list[list[int]],
        sampler: Sampler,
        limit: int,
        generator: torch.Generator,
        greedy: bool,
    ) -> list[tuple[list[int], list[float], str]]:
        """Ids, log-probs and finish of every row."""
        every = LOOK_EVERY.get(self.policy.device.type, 1)
        paper = _Paper(len(prompts), limit, self.policy.device)
        ended_B = torch.zeros(len(prompts), dtype=torch.bool, device=self.policy.device)
        logits_BV = decoder.start(prompts)
        for at in range(limit):
            next_B, logprob_B = choose(logits_BV, sampler, generator, greedy)
            paper.write(at, next_B, logprob_B)
            ended_B |= torch.isin(next_B, self.stop)
            if at + 1 == limit:
                break
            if (at + 1) % every == 0 and (done := int(ended_B.sum())):
                if done == len(ended_B):
                    break
                if done >= FINISHED * len(ended_B):
                    rows_B = (~ended_B).nonzero()[:, 0]
                    decoder.keep(rows_B)
                    paper.keep(rows_B)
                    next_B, ended_B = next_B[rows_B], ended_B[rows_B]
            logits_BV = decoder.step(next_B)
        return paper.read(self.stop)


class _Paper:
    """What has been written: tokens and log-probs [B, T] of every row, on the device until the end."""

    def __init__(self, rows: int, limit: int, device: torch.device):
        self.alive_B = torch.arange(rows, device=device)
        self.ids_BT = torch.zeros(rows, limit, dtype=torch.long, device=device)
        self.logprobs_BT = torch.zeros(rows, limit, device=device)
        self.used = 0

    def write(self, at: int, next_B: Tensor, logprob_B: Tensor) -> None:
        self.ids_BT[self.alive_B, at] = next_B
        self.logprobs_BT[self.alive_B, at] = logprob_B
        self.used = at + 1

    def keep(self, rows_B: Tensor) -> None:
        self.alive_B = self.alive_B[rows_B]

    def read(self, stop: Tensor) -> list[tuple[list[int], list[float], str]]:
        """Every row up to its first stop token, which belongs to it; what was written after that is dropped."""
        ids_BT, logprobs_BT = self.ids_BT[:, : self.used], self.logprobs_BT[:, : self.used]
        stops_BT = torch.isin(ids_BT, stop)
        # a row that has left the batch has zeros behind its end, which may be a stop token too: the first one counts
        counts_B = torch.where(stops_BT.any(1), stops_BT.long().argmax(1) + 1, self.used).tolist()
        ended = stops_BT.any(1).tolist()
        rows = zip(ids_BT.tolist(), logprobs_BT.tolist(), counts_B, ended, strict=True)
        return [(ids[:n], logprobs[:n], "stop" if end else "length") for ids, logprobs, n, end in rows]


def choose(logits_BV: Tensor, sampler: Sampler, generator: torch.Generator, greedy: bool) -> tuple[Tensor, Tensor]:
    """Next tokens [B] and their log-probs [B] under the processed distribution (temperature, top-k, top-p)."""
    if greedy:
        logprob_BV = torch.log_softmax(logits_BV, -1)
        next_B = logits_BV.argmax(-1)
    else:
        logprob_BV = torch.log_softmax(truncate(logits_BV / sampler.temperature, sampler.top_k, sampler.top_p), -1)
        next_B = _draw(logprob_BV.exp(), generator)
    return next_B, logprob_BV.gather(1, next_B[:, None])[:, 0]


def _draw(p_BV: Tensor, generator: torch.Generator) -> Tensor:
    """One token a row, by where a uniform number falls in the cumulated probabilities.

    `torch.multinomial` draws a number for every entry of the vocabulary, which costs more than a small model's step. In
    fp64 every token has its share, however rare. Of NaN any token is drawn: the loss is NaN too, and a guard stops.
    """
    mass_BV = p_BV.nan_to_num(nan=1.0).cumsum(-1, dtype=torch.float64)
    shape = (len(p_BV), 1)
    u_B1 = torch.rand(shape, generator=generator, dtype=torch.float64, device=p_BV.device) * mass_BV[:, -1:]
    return torch.searchsorted(mass_BV, u_B1, right=True)[:, 0].clamp(max=p_BV.shape[-1] - 1)


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
