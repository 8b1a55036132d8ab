"""A decoder's layers for one more token per row, as a few large operations instead of hundreds of small ones.

For decoders made of the usual parts: norm, q/k/v projections, rotary positions, attention, norm, feed-forward. Rotary
positions and attention over a cache that is written in place are computed here, the rest by the model's own modules.
Weights are used where they are, so neither an optimizer step nor an adapter needs copying; on a CPU they are prepacked
anew for every sampling (`FastLayers.prepacked`).
Shapes: B rows, T tokens so far, A query heads, K key heads, G = A / K, H = A + 2 K heads of a projection, D a head's
width, E a layer's width.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeGuard, cast

import torch
from torch import Tensor, nn

from sdft_cli.config.compute_sections import COPIED_PARAMETERS
from sdft_cli.models.protocols import CausalLM

GROWTH = 128  # tokens by which a full cache grows

Project = Callable[[Tensor], Tensor]


# --- the parts of a model that are used; one that lacks any of them is not of this kind -------------------------------


class _Attention(Protocol):
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear
    head_dim: int
    scaling: float


class _DecoderLayer(Protocol):
    self_attn: _Attention
    mlp: nn.Module
    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module


class _LayeredDecoder(Protocol):
    layers: Sequence[_DecoderLayer]
    embed_tokens: nn.Module
    rotary_emb: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    norm: nn.Module


class _GatedMlp(Protocol):
    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear
    act_fn: Project


# --- layers ----------------------------------------------------------------------------------------------------------


class FastLayers:
    """Embedding, layers and output head of ``core``; raises `AttributeError` or the like for a model of another kind.

    Whether they compute what the model does is for the caller to test.
    """

    def __init__(self, core: CausalLM):
        # its attributes are tried, not checked: whatever is missing raises
        decoder = cast(_LayeredDecoder, core.get_decoder())
        count = core.config.get_text_config().num_hidden_layers
        self.layers = [_FastLayer(layer) for layer in decoder.layers[:count]]
        self.embed, self.rotary, self.norm = decoder.embed_tokens, decoder.rotary_emb, _norm(decoder.norm)
        self.output = core.get_output_embeddings()
        self.head = _linear(self.output)
        self.small = sum(p.numel() for p in core.parameters()) <= COPIED_PARAMETERS

    def prepacked(self) -> FastLayers:
        """The same layers with a copy of their present weights in the layout that a CPU multiplies few rows by fastest.

        Such products take half to three quarters of the time that they take in the layout for training's many rows.
        The layers themselves where that is not to be had: on a GPU, or for too large a model.
        """
        if not self.small or self.output.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return self
        other = copy.copy(self)
        other.layers, other.head = [layer.prepacked() for layer in self.layers], _prepacked(self.output)
        return other


class LayerCache:
    """Keys and values of one layer, with room to write further ones in place."""

    def __init__(self, keys_BKTD: Tensor, values_BKTD: Tensor):
        self.keys_BKTD, self.values_BKTD = (_with_room(x, x.shape[2]) for x in (keys_BKTD, values_BKTD))

    def write(self, at: int, key_BKD: Tensor, value_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Put a token's key and value at column ``at``; returns all so far."""
        if at == self.keys_BKTD.shape[2]:
            self.keys_BKTD, self.values_BKTD = (_with_room(x, at) for x in (self.keys_BKTD, self.values_BKTD))
        self.keys_BKTD[:, :, at], self.values_BKTD[:, :, at] = key_BKD, value_BKD
        return self.keys_BKTD[:, :, : at + 1], self.values_BKTD[:, :, : at + 1]

    def keep(self, rows_B: Tensor, length: int) -> None:
        """Continue with these rows alone, ``length`` tokens each."""
        written = self.keys_BKTD[:, :, :length], self.values_BKTD[:, :, :length]
        self.keys_BKTD, self.values_BKTD = (_with_room(x[rows_B], length) for x in written)


class _FastLayer:
    def __init__(self, layer: _DecoderLayer):
        attention = layer.self_attn
        if not getattr(attention, "use_rope", True):
            raise AttributeError("a layer without rotary positions")
        if more := _named(type(attention)) - _usual_names():
            raise AttributeError(f"an attention with {', '.join(sorted(more))}")
        self.before, self.after = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.output = attention.o_proj
        self.mlp, self.width, self.scale = layer.mlp, attention.head_dim, attention.scaling
        self.queries = self.projections[0].out_features // self.width
        norms = [getattr(attention, f"{name}_norm", None) for name in ("q", "k")]
        self.query_norm, self.key_norm = (None if norm is None else _norm(norm) for norm in norms)
        self.heads, self.out = _linear(*self.projections), _linear(self.output)
        self.feed: Project = layer.mlp

    def prepacked(self) -> _FastLayer:
        """The same layer with prepacked weights."""
        other = copy.copy(self)
        other.heads, other.out, other.feed = _prepacked(*self.projections), _prepacked(self.output), _feed(self.mlp)
        return other

    def forward(
        self, hidden_BE: Tensor, cos_B1D: Tensor, sin_B1D: Tensor, cache: LayerCache, at: int, bias_B11T: Tensor | None
    ) -> Tensor:
        """The layer's output [B, E] for the token at column ``at``."""
        rows = len(hidden_BE)
        all_BHD = self.heads(self.before(hidden_BE)).view(rows, -1, self.width)
        keys = (all_BHD.shape[1] - self.queries) // 2
        rotated, value_BKD = all_BHD[:, :-keys], all_BHD[:, -keys:]
        if self.query_norm is not None and self.key_norm is not None:
            query_BAD, key_BKD = rotated[:, :-keys], rotated[:, -keys:]
            rotated = torch.cat((self.query_norm(query_BAD), self.key_norm(key_BKD)), 1)
        rotated = _rotate(rotated, cos_B1D, sin_B1D)
        keys_BKTD, values_BKTD = cache.write(at, rotated[:, -keys:], value_BKD)
        # query heads that share a key head become queries of that head, so keys are not repeated
        query_BKGD = rotated[:, :-keys].reshape(rows, keys, -1, self.width)
        mixed_BKGD = nn.functional.scaled_dot_product_attention(
            query_BKGD, keys_BKTD, values_BKTD, attn_mask=bias_B11T, scale=self.scale
        )
        hidden_BE = hidden_BE + self.out(mixed_BKGD.reshape(rows, -1))
        return hidden_BE + self.feed(self.after(hidden_BE))


@cache
def _usual_names() -> set[str]:
    """What the code of usual attentions names. One that names more may do to some tokens what few tokens do not show:
    clip large values, cap scores, scale the queries of far positions."""
    from transformers.models.llama.modeling_llama import LlamaAttention
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention
    from transformers.models.starcoder2.modeling_starcoder2 import Starcoder2Attention

    return _named(LlamaAttention) | _named(Qwen3Attention) | _named(Starcoder2Attention)


def _named(kind: Any) -> set[str]:
    """The attributes and functions that the forward pass of a module class uses."""
    return set(inspect.unwrap(kind.forward).__code__.co_names)


def _with_room(x_BKTD: Tensor, length: int) -> Tensor:
    """A copy of the first ``length`` tokens, with room for more behind them."""
    room = x_BKTD.new_empty(*x_BKTD.shape[:2], length + GROWTH, x_BKTD.shape[3])
    room[:, :, :length] = x_BKTD[:, :, :length]
    return room


def _rotate(x_BHD: Tensor, cos_B1D: Tensor, sin_B1D: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864) on half-split pairs."""
    one, two = x_BHD.chunk(2, -1)
    return x_BHD * cos_B1D + torch.cat((-two, one), -1) * sin_B1D


# --- products --------------------------------------------------------------------------------------------------------


def _linear(*modules: nn.Module) -> Project:
    """``modules`` side by side, without the overhead of calling a module where it is a plain linear map."""
    if len(modules) > 1:
        projections = [_linear(module) for module in modules]
        return lambda x: torch.cat([project(x) for project in projections], -1)
    module = modules[0]
    if not _is_plain(module):
        return module
    weight, bias = module.weight, module.bias
    return lambda x: nn.functional.linear(x, weight, bias)


def _prepacked(*modules: nn.Linear) -> Project:
    """``modules`` side by side, as one product with a prepacked copy of their present weights."""
    if not all(_is_plain(module) and module.weight.dtype == torch.float32 for module in modules):
        return _linear(*modules)
    weights = [module.weight.detach() for module in modules]
    bias = None
    if any(module.bias is not None for module in modules):
        pairs = zip(modules, weights, strict=True)
        bias = torch.cat([w.new_zeros(len(w)) if m.bias is None else m.bias.detach() for m, w in pairs])
    packed = torch.ops.mkldnn._reorder_linear_weight(torch.cat(weights))
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks


def _feed(mlp: nn.Module) -> Project:
    """A gated feed-forward (arXiv 2002.05202) with prepacked weights; any other ``mlp`` as it is."""
    if not _is_gated(mlp):
        return mlp
    gate_up, down, act = _prepacked(mlp.gate_proj, mlp.up_proj), _prepacked(mlp.down_proj), mlp.act_fn

    def forward(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2, -1)
        return down(act(gate) * up)

    return forward


def _is_gated(mlp: nn.Module) -> TypeGuard[_GatedMlp]:
    maps = [getattr(mlp, f"{name}_proj", None) for name in ("gate", "up", "down")]
    return all(isinstance(each, nn.Module) and _is_plain(each) for each in maps) and len(list(mlp.children())) == 4


def _norm(module: nn.Module) -> Project:
    """One fused operation where that is what ``module`` computes; ``module`` itself elsewhere."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if weight is None or epsilon is None or getattr(module, "bias", None) is not None:
        return module
    size = weight.shape

    def fused(x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, size, weight, epsilon)

    trial = torch.linspace(-2, 3, 2 * weight.numel(), device=weight.device, dtype=weight.dtype).view(2, -1)
    tolerance = 1e-5 if trial.dtype == torch.float32 else 2e-2
    return fused if torch.allclose(fused(trial), module(trial), rtol=tolerance) else module
