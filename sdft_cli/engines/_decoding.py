"""Decoding a batch, one token per row at a time: by the model's own forward pass, or by a faster one where possible.

A decoding step of a small batch is a few hundred tiny operations, and what surrounds them (masks, caches that are
copied to grow by one token, wrappers) costs more than they do. `FastDecoder` therefore walks the layers itself
(`_fast_layers`). Whether it may is tested on the model (`fast_layers`), never assumed.
Shapes: B rows, L prompt tokens (left-padded), T tokens so far, V vocabulary, K key heads, D a head's width, E a layer's
width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from sdft_cli.engines._fast_layers import GROWTH, FastLayers, LayerCache
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import CausalLM, CausalLMOutput


class BatchDecoder(Protocol):
    """A batch that is being decoded."""

    policy: Policy

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        """fp32 logits [B, V] after every prompt."""

    def step(self, next_B: Tensor) -> Tensor:
        """fp32 logits [B, V] after one more token per row."""

    def keep(self, rows_B: Tensor) -> None:
        """Continue with these rows alone."""


class _CacheLayer(Protocol):
    """Keys and values [B, K, T, D] of one layer."""

    keys: Tensor | None
    values: Tensor | None


class _KeyValueCache(Protocol):
    """What is used of transformers' ``DynamicCache``."""

    layers: list[_CacheLayer]

    def reorder_cache(self, rows_B: Tensor) -> None: ...


class Forward:
    """A model's own forward pass, called with those keywords that it takes."""

    def __init__(self, core: CausalLM):
        parameters = inspect.signature(core.forward).parameters
        self.core, self.names = core, set(parameters)
        self.open = any(each.kind is each.VAR_KEYWORD for each in parameters.values())

    def __call__(self, **inputs: object) -> CausalLMOutput:
        """Logits [B, 1, V] of the last token, or [B, L, V] of all where the model knows no ``logits_to_keep``."""
        if "logits_to_keep" in self.names:
            inputs["logits_to_keep"] = 1
        return self.core(**{key: each for key, each in inputs.items() if self.open or key in self.names})


class ForwardDecoder:
    """The model's own forward pass over left-padded rows, and transformers' cache."""

    def __init__(self, policy: Policy):
        from transformers import DynamicCache

        self.policy, self.forward = policy, Forward(policy.core)
        self.cache: _KeyValueCache = DynamicCache(config=policy.core.config)

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        """One pass over the distinct prompts; rows with equal prompts share its result."""
        distinct = sorted(set(map(tuple, prompts)))
        ids_BL, self.mask_BT = _pad(distinct, self.policy)
        self.position_B1 = self.mask_BT.sum(1, keepdim=True) - 1
        logits_BV = self._forward(ids_BL, (self.mask_BT.cumsum(-1) - 1).clamp(min=0))
        if len(distinct) == len(prompts) == 1:
            return logits_BV
        numbers = {prompt: i for i, prompt in enumerate(distinct)}
        rows_B = torch.tensor([numbers[tuple(p)] for p in prompts], device=logits_BV.device)
        self.keep(rows_B)
        return logits_BV[rows_B]

    def step(self, next_B: Tensor) -> Tensor:
        self.mask_BT = torch.cat((self.mask_BT, self.mask_BT.new_ones(len(next_B), 1)), 1)
        self.position_B1 = self.position_B1 + 1
        return self._forward(next_B[:, None], self.position_B1)

    def keep(self, rows_B: Tensor) -> None:
        self.mask_BT, self.position_B1 = self.mask_BT[rows_B], self.position_B1[rows_B]
        # the name of beam search, but the only selection of rows that caches of recurrent layers know
        self.cache.reorder_cache(rows_B)

    def _forward(self, ids_BL: Tensor, position_BL: Tensor) -> Tensor:
        inputs: dict[str, object] = {"input_ids": ids_BL, "use_cache": True}
        if "cache_params" in self.forward.names:  # recurrent layers alone: padding is masked when it is read
            inputs |= {"cache_params": self.cache, "attention_mask": self.mask_BT if ids_BL.shape[1] > 1 else None}
        else:
            inputs |= {"past_key_values": self.cache, "attention_mask": self.mask_BT, "position_ids": position_BL}
        output = self.forward(**inputs)
        return output.logits[:, -1].float()


def _pad(prompts: Sequence[Sequence[int]], policy: Policy) -> tuple[Tensor, Tensor]:
    """Left-padded ids [B, L] and their mask (1 where there is a token)."""
    width = max(map(len, prompts))
    ids_BL = torch.full((len(prompts), width), policy.chat.pad_id)
    mask_BL = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, ids in enumerate(prompts):
        ids_BL[i, width - len(ids) :] = torch.tensor(ids)
        mask_BL[i, width - len(ids) :] = 1
    return ids_BL.to(policy.device), mask_BL.to(policy.device)


class FastDecoder:
    """The prompts by the model's own forward pass, every further token by ``layers``."""

    def __init__(self, policy: Policy, layers: FastLayers):
        self.policy, self.layers = policy, layers

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        first = ForwardDecoder(self.policy)
        logits_BV = first.start(prompts)
        self.position_B1, self.length = first.position_B1, first.mask_BT.shape[1]
        self.caches = []
        for layer in first.cache.layers:  # one at a time, so that what has been copied can be freed
            if layer.keys is None or layer.values is None:
                raise ValueError("a layer without keys and values")
            self.caches.append(LayerCache(layer.keys, layer.values))
            layer.keys = layer.values = None
        self.bias_BT: Tensor | None = None
        if not bool(first.mask_BT.all()):
            dtype = self.caches[0].keys_BKTD.dtype
            bias_BT = torch.zeros(first.mask_BT.shape, dtype=dtype, device=logits_BV.device)
            bias_BT.masked_fill_(first.mask_BT == 0, float("-inf"))
            # kernels need rows that begin at multiples of 16, and otherwise copy the bias in every layer
            self.bias_BT = nn.functional.pad(bias_BT, (0, -self.length % 16))
        return logits_BV

    def step(self, next_B: Tensor) -> Tensor:
        self.position_B1 = self.position_B1 + 1
        hidden_BE = self.layers.embed(next_B)
        cos_B1D, sin_B1D = self.layers.rotary(hidden_BE[:, None], self.position_B1)
        at, self.length = self.length, self.length + 1
        bias_B11T = self._bias()
        for layer, cache in zip(self.layers.layers, self.caches, strict=True):
            hidden_BE = layer.forward(hidden_BE, cos_B1D, sin_B1D, cache, at, bias_B11T)
        return self.layers.head(self.layers.norm(hidden_BE)).float()

    def _bias(self) -> Tensor | None:
        """What attention adds to its scores, [B, 1, 1, T]: -inf on padding; None without padding."""
        if self.bias_BT is None:
            return None
        if self.length > self.bias_BT.shape[1]:
            self.bias_BT = nn.functional.pad(self.bias_BT, (0, GROWTH))
        return self.bias_BT[:, None, None, : self.length]

    def keep(self, rows_B: Tensor) -> None:
        self.position_B1 = self.position_B1[rows_B]
        self.bias_BT = None if self.bias_BT is None else self.bias_BT[rows_B]
        for cache in self.caches:
            cache.keep(rows_B, self.length)
