"""Sampling with the trainer's own model: the default engine, which needs nothing but transformers.

Prompts are sorted by length, and decoded in batches by the fastest way that is right for the model (`_ladder`).
Finished sequences are dropped from the batch, so the longest one does not determine the cost of all. A row's random
numbers are its own (`_numbers`): how rows are cut into batches and calls, which of them have finished, and the way to
decode change nothing. The recorded log-probs are those of the distribution that was sampled from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdft_cli.config.recipe import EngineSettings
from sdft_cli.engines._decoding import BatchDecoder
from sdft_cli.engines._ladder import Ladder
from sdft_cli.engines._numbers import RowNumbers
from sdft_cli.errors import SdftError
from sdft_cli.models.engine import EngineFacts, numbered
from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Sampler
    from sdft_cli.models.engine import EngineClass
    from sdft_cli.models.policy import Policy

#: The share of a batch that must have finished before it is dropped, as that copies the cache.
FINISHED = 0.1
#: Tokens between two checks for finished sequences; on a GPU every check waits for the device.
CHECK_EVERY = {"cpu": 1, "cuda": 8}


class TransformersEngine:
    """``policy`` is shared with the trainer, so ``sync`` has nothing to copy and only counts versions. ``decoder`` says
    how it is decoded; `UsageError` where no way is right.

    A batch that does not fit into memory is sampled in halves, as are all later ones; ``facts`` then has ``max_batch``.
    With ``settings.prefetch`` it samples while the trainer moves the weights, and has its own copy of the trainable
    ones.
    """

    name = "transformers"

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        settings = settings or EngineSettings()
        self.policy, self.max_batch, self.version = policy, settings.max_batch, 0
        self.facts = EngineFacts()
        self.sampled = policy.sampler_copy() if settings.prefetch else policy
        self.stop = torch.tensor(policy.stop_ids, dtype=torch.long, device=policy.device)
        self.ladder = Ladder(self.sampled)
        self.decoder = self.ladder.text

    def sync(self) -> int:
        """The weights have changed; returns their version."""
        if self.sampled is not self.policy:
            self.sampled.copy_weights(self.policy)
        self.version += 1
        return self.version

    def close(self) -> None:
        """There is nothing to free."""

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """One completion per prompt, in their order: `models.engine.Engine.sample`."""
        if [] in prompts:
            raise SdftError(
                f"prompt {list(prompts).index([]) + 1} of {len(prompts)} has no tokens",
                "a completion needs something before it: check the chat template, and the tokenizer's BOS",
            )
        rows = numbered(prompts, rows)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        decoder_for = self.ladder.makers()  # anew: training has moved the weights meanwhile
        rollouts: dict[int, Rollout] = {}
        while part := order[len(rollouts) : len(rollouts) + self.max_batch]:
            batch = [prompts[i] for i in part]
            numbers = None if greedy else RowNumbers(seed, [rows[i] for i in part], max_new_tokens, self.policy.device)
            try:
                decoder = decoder_for(max(map(len, batch)) + max_new_tokens)
                completions = self._decode(decoder, batch, sampler, max_new_tokens, numbers)
            except torch.OutOfMemoryError as error:
                completions, reason = [], str(error).splitlines()[0]
            del decoder
            if not completions:  # outside the handler, whose traceback keeps the decoder's tensors alive
                self._shrink(batch, reason)
                continue
            for i, (ids, logprobs, finish) in zip(part, completions, strict=True):
                rollouts[i] = Rollout(prompts[i], ids, logprobs, finish, i, version=self.version)
        return [rollouts[i] for i in range(len(prompts))]

    def _shrink(self, prompts: list[list[int]], reason: str) -> None:
        """Sample half as many rows at a time from now on; `SdftError` where it was only one."""
        if len(prompts) == 1:
            raise SdftError(
                f"a prompt of {len(prompts[0])} tokens and its completion do not fit into the memory of "
                f"{self.policy.device}: {reason}",
                "lower sampler.max_new_tokens or train.max_prompt_tokens, or set lora.rank",
            )
        self.policy.release_memory()
        self.max_batch = self.facts["max_batch"] = len(prompts) // 2

    @torch.no_grad()
    def _decode(
        self,
        decoder: BatchDecoder,
        prompts: list[list[int]],
        sampler: Sampler,
        limit: int,
        numbers: RowNumbers | None,
    ) -> list[tuple[list[int], list[float], str]]:
        """Ids, log-probs and finish of every row; greedy without ``numbers``."""
        every = CHECK_EVERY.get(self.policy.device.type, 1)
        completions = _Completions(len(prompts), limit, self.policy.device)
        ended_B = torch.zeros(len(prompts), dtype=torch.bool, device=self.policy.device)
        logits_BV = decoder.start(prompts)
        for at in range(limit):
            u_B = None if numbers is None else numbers.at(at)
            next_B, logprob_B = choose(logits_BV, sampler, u_B)
            completions.write(at, next_B, logprob_B)
            ended_B |= torch.isin(next_B, self.stop)
            if at + 1 == limit:
                break
            if (at + 1) % every == 0 and (done := int(ended_B.sum())):
                if done == len(ended_B):
                    break
                if done >= FINISHED * len(ended_B):
                    rows_B = (~ended_B).nonzero()[:, 0]
                    decoder.keep(rows_B)
                    completions.keep(rows_B)
                    if numbers is not None:
                        numbers.keep(rows_B)
                    next_B, ended_B = next_B[rows_B], ended_B[rows_B]
            logits_BV = decoder.step(next_B)
        return completions.read(self.stop)


class _Completions:
    """The completions of a batch in the making: tokens and log-probs [B, T], on the device until the end.

    ``alive_B`` are the rows that are still being decoded.
    """

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
        """Every row up to and including its first stop token."""
        ids_BT, logprobs_BT = self.ids_BT[:, : self.used], self.logprobs_BT[:, : self.used]
        stops_BT = torch.isin(ids_BT, stop)
        # a row that was dropped from the batch ends in zeros, and 0 may be a stop token too: the first one counts
        counts_B = torch.where(stops_BT.any(1), stops_BT.long().argmax(1) + 1, self.used).tolist()
        ended = stops_BT.any(1).tolist()
        rows = zip(ids_BT.tolist(), logprobs_BT.tolist(), counts_B, ended, strict=True)
        return [(ids[:n], logprobs[:n], "stop" if end else "length") for ids, logprobs, n, end in rows]


def choose(logits_BV: Tensor, sampler: Sampler, u_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next tokens [B] and their log-probs [B] under the processed distribution (temperature, top-k, top-p).

    ``u_B`` are uniform random numbers in [0, 1), fp64. Without them the likeliest tokens are taken, whatever
    ``sampler`` says.
    """
    if u_B is None:
        logprob_BV = torch.log_softmax(logits_BV, -1)
        next_B = logits_BV.argmax(-1)
    else:
        logprob_BV = torch.log_softmax(truncate(logits_BV / sampler.temperature, sampler.top_k, sampler.top_p), -1)
        next_B = _draw(logprob_BV.exp(), u_B)
    return next_B, logprob_BV.gather(1, next_B[:, None])[:, 0]


def _draw(p_BV: Tensor, u_B: Tensor) -> Tensor:
    """One token per row, by where a uniform number falls in the cumulative probabilities.

    `torch.multinomial` draws a number for every entry of the vocabulary, which costs more than a small model's step. In
    fp64 even the rarest token has its share. From NaN any token may be drawn: the loss is NaN as well, and a guard
    stops the run.
    """
    mass_BV = p_BV.nan_to_num(nan=1.0).cumsum(-1, dtype=torch.float64)
    place_B1 = u_B[:, None] * mass_BV[:, -1:]
    return torch.searchsorted(mass_BV, place_B1, right=True)[:, 0].clamp(max=p_BV.shape[-1] - 1)


def truncate(logits_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set logits outside the top k, or outside the smallest set of mass ``top_p``, to -inf; 0 and 1 switch them off."""
    if 0 < top_k < logits_BV.shape[-1]:
        kth_B1 = logits_BV.topk(top_k, -1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, float("-inf"))
    if top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(-1, descending=True)
        mass_BV = sorted_BV.softmax(-1)
        outside_BV = mass_BV.cumsum(-1) - mass_BV >= top_p  # the token that crosses the limit is kept
        logits_BV = logits_BV.masked_fill(outside_BV.scatter(1, order_BV, outside_BV), float("-inf"))
    return logits_BV


ENGINE: EngineClass = TransformersEngine
