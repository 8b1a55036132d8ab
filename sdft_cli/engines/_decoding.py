"""One more token for every row of a batch: transformers' own forward pass, and a lean one for the models that allow it.

A decoding step of a small batch is a few hundred tiny operations; what surrounds them (masks, caches that are copied to
grow by one, wrappers) costs more than they do. `Lean` walks the layers itself, for decoders made of the usual parts:
norm, q/k/v, rotary positions, attention, norm, feed-forward. Its own work is rotary and attention over a cache that
is written in place. Weights are used where they are, so an optimizer's step or an adapter needs no copying; on a CPU
they are laid out anew for every sampling (`Parts.packed`). Whether a model is of that kind is found out by comparing
(`lean`), never assumed.
Shapes: B rows, L prompt tokens (left-padded), T tokens so far, V vocabulary, A query heads, K key-value heads,
G = A / K, D a head's width, E a layer's width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sdft_cli.config.compute import COPIED_PARAMETERS
from sdft_cli.models import packing
from sdft_cli.models.pretrained import Policy

GROWTH = 128  # tokens of room that a full cache is given at a time

Project = Callable[[Tensor], Tensor]


class Decoder(Protocol):
    """A batch in the midst of being written."""

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        """fp32 logits [B, V] after every prompt."""

    def step(self, next_B: Tensor) -> Tensor:
        """fp32 logits [B, V] after one more token a row."""

    def keep(self, rows_B: Tensor) -> None:
        """Go on with these rows alone."""


class Plain:
    """The model's own forward pass and cache: right for every model that transformers can generate with."""

    def __init__(self, policy: Policy):
        from transformers import DynamicCache

        self.policy = policy
        self.cache: Any = DynamicCache(config=policy.core.config)

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        """One pass over distinct prompts; rows with equal prompts share its result."""
        distinct = sorted(set(map(tuple, prompts)))
        ids_BL, self.mask_BT = _pad(distinct, self.policy)
        self.position_B1 = self.mask_BT.sum(1, keepdim=True) - 1
        logits_BV = self._forward(ids_BL, (self.mask_BT.cumsum(-1) - 1).clamp(min=0))
        if len(distinct) == len(prompts) == 1:
            return logits_BV
        place = {prompt: i for i, prompt in enumerate(distinct)}
        rows_B = torch.tensor([place[tuple(p)] for p in prompts], device=logits_BV.device)
        self.keep(rows_B)
        return logits_BV[rows_B]

    def step(self, next_B: Tensor) -> Tensor:
        self.mask_BT = torch.cat((self.mask_BT, self.mask_BT.new_ones(len(next_B), 1)), 1)
        self.position_B1 = self.position_B1 + 1
        return self._forward(next_B[:, None], self.position_B1)

    def keep(self, rows_B: Tensor) -> None:
        self.mask_BT, self.position_B1 = self.mask_BT[rows_B], self.position_B1[rows_B]
        self.cache.batch_select_indices(rows_B)

    def _forward(self, ids_BL: Tensor, position_BL: Tensor) -> Tensor:
        out = self.policy.model(
            input_ids=ids_BL,
            attention_mask=self.mask_BT,
            position_ids=position_BL,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()


def _pad(prompts: Sequence[Sequence[int]], policy: Policy) -> tuple[Tensor, Tensor]:
    """Left-padded ids [B, L] and their mask (1 where there is a token)."""
    width = max(map(len, prompts))
    ids_BL = torch.full((len(prompts), width), policy.chat.pad_id)
    mask_BL = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, ids in enumerate(prompts):
        ids_BL[i, width - len(ids) :] = torch.tensor(ids)
        mask_BL[i, width - len(ids) :] = 1
    return ids_BL.to(policy.device), mask_BL.to(policy.device)


class Lean:
    """The prompts by the model's own pass (`Plain`), every further token by the layers' ``parts``."""

    def __init__(self, policy: Policy, parts: Parts):
        self.policy, self.parts = policy, parts

    def start(self, prompts: Sequence[list[int]]) -> Tensor:
        first = Plain(self.policy)
        logits_BV = first.start(prompts)
        self.position_B1, self.length = first.position_B1, first.mask_BT.shape[1]
        self.caches = []
        for held in first.cache.layers:  # one layer at a time: what has been copied may go
            self.caches.append(_Cache(held.keys, held.values))
            held.keys = held.values = None
        self.bias_BT = None
        if not bool(first.mask_BT.all()):
            dtype = self.caches[0].keys_BKTD.dtype
            bias_BT = torch.zeros(first.mask_BT.shape, dtype=dtype, device=logits_BV.device)
            bias_BT.masked_fill_(first.mask_BT == 0, float("-inf"))
            # kernels want rows to begin at a multiple of 16, and copy the bias in every layer where they do not
            self.bias_BT = nn.functional.pad(bias_BT, (0, -self.length % 16))
        return logits_BV

    def step(self, next_B: Tensor) -> Tensor:
        self.position_B1 = self.position_B1 + 1
        hidden_BE = self.parts.embed(next_B)
        cos_B1D, sin_B1D = self.parts.rotary(hidden_BE[:, None], self.position_B1)
        at, self.length = self.length, self.length + 1
        bias_B11T = self._bias()
        for layer, cache in zip(self.parts.layers, self.caches, strict=True):
            hidden_BE = layer.forward(hidden_BE, cos_B1D, sin_B1D, cache, at, bias_B11T)
        return self.parts.head(self.parts.norm(hidden_BE)).float()

    def _bias(self) -> Tensor | None:
        """What attention adds to its scores, [B, 1, 1, T]: -inf on padding; None where there is none."""
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


class _Cache:
    """A layer's keys and values, with room to write further ones in place."""

    def __init__(self, keys_BKTD: Tensor, values_BKTD: Tensor):
        self.keys_BKTD, self.values_BKTD = (_roomier(x, x.shape[2]) for x in (keys_BKTD, values_BKTD))

    def write(self, at: int, key_BKD: Tensor, value_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Put a token's at column ``at``; everything so far."""
        if at == self.keys_BKTD.shape[2]:
            self.keys_BKTD, self.values_BKTD = (_roomier(x, at) for x in (self.keys_BKTD, self.values_BKTD))
        self.keys_BKTD[:, :, at], self.values_BKTD[:, :, at] = key_BKD, value_BKD
        return self.keys_BKTD[:, :, : at + 1], self.values_BKTD[:, :, : at + 1]

    def keep(self, rows_B: Tensor, length: int) -> None:
        held = self.keys_BKTD[:, :, :length], self.values_BKTD[:, :, :length]
        self.keys_BKTD, self.values_BKTD = (_roomier(x[rows_B], length) for x in held)


class _Layer:
    """A decoder layer's parts."""

    def __init__(self, layer: Any):
        attention = layer.self_attn
        if not getattr(attention, "use_rope", True):
            raise AttributeError("a layer without positions")
        self.before, self.after = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.maps = [getattr(attention, f"{name}_proj") for name in ("q", "k", "v", "o")]
        self.mlp, self.width, self.scale = layer.mlp, attention.head_dim, attention.scaling
        self.queries = self.maps[0].out_features // self.width
        norms = [getattr(attention, f"{name}_norm", None) for name in ("q", "k")]
        self.query_norm, self.key_norm = (None if norm is None else _norm(norm) for norm in norms)
        self.heads, self.out, self.feed = _linear(*self.maps[:3]), _linear(self.maps[3]), layer.mlp

    def packed(self) -> _Layer:
        """The same layer with its weights laid out anew."""
        other = copy.copy(self)
        other.heads, other.out, other.feed = _packed(*self.maps[:3]), _packed(self.maps[3]), _feed(self.mlp)
        return other

    def forward(
        self, hidden_BE: Tensor, cos_B1D: Tensor, sin_B1D: Tensor, cache: _Cache, at: int, bias_B11T: Tensor | None
    ) -> Tensor:
        """The layer's output [B, E] for the token at column ``at``."""
        rows = len(hidden_BE)
        all_BHD = self.heads(self.before(hidden_BE)).view(rows, -1, self.width)
        keys = (all_BHD.shape[1] - self.queries) // 2
        turned, value_BKD = all_BHD[:, :-keys], all_BHD[:, -keys:]
        if self.query_norm is not None and self.key_norm is not None:
            query_BAD, key_BKD = turned[:, :-keys], turned[:, -keys:]
            turned = torch.cat((self.query_norm(query_BAD), self.key_norm(key_BKD)), 1)
        turned = _rotate(turned, cos_B1D, sin_B1D)
        keys_BKTD, values_BKTD = cache.write(at, turned[:, -keys:], value_BKD)
        # the query heads that share a key head stand as that head's queries: nothing is repeated
        query_BKGD = turned[:, :-keys].reshape(rows, keys, -1, self.width)
        mixed_BKGD = nn.functional.scaled_dot_product_attention(
            query_BKGD, keys_BKTD, values_BKTD, attn_mask=bias_B11T, scale=self.scale
        )
        hidden_BE = hidden_BE + self.out(mixed_BKGD.reshape(rows, -1))
        return hidden_BE + self.feed(self.after(hidden_BE))


class Parts:
    """What `Lean` walks through; the weights are the model's own, used where they are."""

    def __init__(self, core: Any):
        decoder = core.get_decoder()
        self.layers = [_Layer(layer) for layer in decoder.layers[: core.config.get_text_config().num_hidden_layers]]
        self.embed, self.rotary, self.norm = decoder.embed_tokens, decoder.rotary_emb, _norm(decoder.norm)
        self.output = core.get_output_embeddings()
        self.head = _linear(self.output)
        self.small = sum(p.numel() for p in core.parameters()) <= COPIED_PARAMETERS

    def packed(self) -> Parts:
        """The same parts with the weights as they are now laid out for few rows, on a CPU: products of a few rows by a
        whole matrix take half to three quarters of the time that training's take, which are made for many rows."""
        if not self.small or self.output.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return self
        other = copy.copy(self)
        other.layers, other.head = [layer.packed() for layer in self.layers], _packed(self.output)
        return other


def _roomier(x_BKTD: Tensor, length: int) -> Tensor:
    """A copy with room for more tokens after ``length``."""
    room = x_BKTD.new_empty(*x_BKTD.shape[:2], length + GROWTH, x_BKTD.shape[3])
    room[:, :, :length] = x_BKTD[:, :, :length]
    return room


def _rotate(x_BHD: Tensor, cos_B1D: Tensor, sin_B1D: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864) on half-split pairs."""
    one, two = x_BHD.chunk(2, -1)
    return x_BHD * cos_B1D + torch.cat((-two, one), -1) * sin_B1D


def _linear(*modules: nn.Module) -> Project:
    """``modules`` side by side, less what calling a module costs where it is a plain linear map."""
    if len(modules) > 1:
        each = [_linear(module) for module in modules]
        return lambda x: torch.cat([project(x) for project in each], -1)
    module: Any = modules[0]
    if not _is_plain(module):
        return module
    weight, bias = module.weight, module.bias
    return lambda x: nn.functional.linear(x, weight, bias)


def _packed(*modules: Any) -> Project:
    """``modules`` side by side as one product with a copy of their weights, as they are now."""
    if not all(_is_plain(module) and module.weight.dtype == torch.float32 for module in modules):
        return _linear(*modules)
    weights = [module.weight.detach() for module in modules]
    bias = None
    if any(module.bias is not None for module in modules):
        pairs = zip(modules, weights, strict=True)
        bias = torch.cat([w.new_zeros(len(w)) if m.bias is None else m.bias.detach() for m, w in pairs])
    packed = torch.ops.mkldnn._reorder_linear_weight(torch.cat(weights))
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _is_plain(module: Any) -> bool:
    return type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks


def _feed(mlp: Any) -> Project:
    """A gated feed-forward (arXiv 2002.05202) with packed weights; one of other parts as it is."""
    maps = [getattr(mlp, f"{name}_proj", None) for name in ("gate", "up", "down")]
    if not all(map(_is_plain, maps)) or len(list(mlp.children())) != 4:
        return mlp
    both, down, act = _packed(*maps[:2]), _packed(maps[2]), mlp.act_fn

    def forward(x: Tensor) -> Tensor:
        gate, up = both(x).chunk(2, -1)
        return down(act(gate) * up)

    return forward


def _norm(module: nn.Module) -> Project:
    """One fused operation where that is what ``module`` computes; ``module`` itself elsewhere."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if weight is None or epsilon is None or getattr(module, "bias", None) is not None:
        return module
    size = weight.shape

    def fused(x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, size, weight, epsilon)

    probe = torch.linspace(-2, 3, 2 * weight.numel(), device=weight.device, dtype=weight.dtype).view(2, -1)
    return (
        fused
        if torch.allclose(fused(probe), module(probe), rtol=1e-5 if probe.dtype == torch.float32 else 2e-2)
        else module
    )


@torch.no_grad()
def lean(policy: Policy) -> Parts | None:
    """The parts of a model for which `Lean` gives what its own forward pass gives, found out on a few tokens."""
    if not packing.sees_all(policy.core.config.get_text_config()):  # type: ignore[operator, union-attr]
        return None
    try:
        parts = Parts(policy.core)
        theirs_NV, ours_NV = _walk(Plain(policy)), _walk(Lean(policy, parts.packed()))
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return None  # other parts, or put together in another way
    return parts if packing.alike(ours_NV, theirs_NV, next(policy.model.parameters()).dtype) else None


def _walk(decoder: Plain | Lean) -> Tensor:
    """Logits of two prompts of different lengths, of three more tokens, and of one of the two rows alone; less each
    row's mean, which no probability depends on."""
    device = decoder.policy.device
    logits_BV = decoder.start([list(range(1, 34)), list(range(30, 90))])
    found = [logits_BV, *(decoder.step(torch.tensor(ids, device=device)) for ids in ([9, 10], [11, 12], [13, 14]))]
    decoder.keep(torch.tensor([0], device=device))
    logits_NV = torch.cat([*found, decoder.step(torch.tensor([15], device=device))])
    return logits_NV - logits_NV.mean(-1, keepdim=True)
