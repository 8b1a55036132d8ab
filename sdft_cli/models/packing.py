"""Attention over sequences laid end to end: scoring costs the sum of their lengths, and nothing is padded.

Every part of a decoder except attention works on single tokens. `switch_on` therefore switches a model to an attention
function that keeps to each sequence's own tokens when a forward pass passes the sequences' bounds (``cu_seq_lens_q``,
the keyword of transformers' own packed kernels) and is transformers' ``sdpa`` otherwise, so sampling, evaluation and
saving are unaffected. On a GPU, torch's variable-length flash attention handles all sequences in one kernel (bf16 or
fp16); elsewhere, each sequence is one call of ``scaled_dot_product_attention``.
Shapes: T tokens of all sequences, S sequences, A query heads, K key-value heads, D a head's width, N tokens, H hidden.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sdft_cli.models.protocols import CausalLM, ModelConfig

NAME = "sdft_packed"
#: Left and right limit of the tokens that a token attends to: all before it, none after.
CAUSAL = (-1, 0)
#: How far two computations of the same thing may differ, as a share of its norm. Rounding is about 1e-6 in fp32 and
#: 0.01 in bf16; a model that computes something else differs by 0.4 and more. With such a margin a resumed run, whose
#: weights have moved, decides as the uninterrupted one did.
TOLERANCE, TOLERANCE_16 = 1e-3, 0.1
#: What limits the tokens that are attended to, in configs that do not say so layer by layer.
WINDOWS = (
    *("sliding_window", "sliding_window_size", "attention_window_size", "attention_chunk_size", "window_size"),
    *("index_topk", "index_topk_blocks", "indexer_budget"),
)


class Bounds(TypedDict):
    """Keywords of a decoder's forward pass over sequences laid end to end; the last three reach `attend`."""

    position_ids: Tensor
    attention_mask: Tensor
    cu_seq_lens_q: Tensor
    max_length_q: int
    sequence_lengths: list[int]


class AttentionOptions(TypedDict, total=False):
    """Keywords with which transformers calls an attention function; there may be others."""

    scaling: float | None
    dropout: float
    sliding_window: int | None
    softcap: float | None
    cu_seq_lens_q: Tensor
    max_length_q: int
    sequence_lengths: list[int]


def attend(
    module: nn.Module,
    query_1ATD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    **options: Unpack[AttentionOptions],
) -> tuple[Tensor, None]:
    """An attention function in transformers' form; output [1, T, A, D]."""
    ends = options.get("cu_seq_lens_q")
    if ends is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output_1TAD: Tensor = sdpa_attention_forward(
            module, query_1ATD, key_1KTD, value_1KTD, attention_mask, **options
        )[0]
        return output_1TAD, None
    if options.get("sliding_window") is not None or options.get("softcap") is not None:
        raise NotImplementedError("packed attention has neither sliding windows nor soft caps")
    if attention_mask is not None and attention_mask.numel() != 1:  # not that of `bounds`: the model has made its own
        raise NotImplementedError("packed attention takes no mask")
    scale, dropout = options.get("scaling"), options.get("dropout", 0.0)
    if query_1ATD.is_cuda and query_1ATD.dtype != torch.float32 and not dropout:
        return _one_kernel(query_1ATD, key_1KTD, value_1KTD, ends, options["max_length_q"], scale), None
    return _by_sequence(query_1ATD, key_1KTD, value_1KTD, options["sequence_lengths"], scale, dropout), None


def _one_kernel(
    query_1ATD: Tensor, key_1KTD: Tensor, value_1KTD: Tensor, ends: Tensor, longest: int, scale: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups = query_1ATD.shape[1] // key_1KTD.shape[1]
    takes_groups = "enable_gqa" in inspect.signature(varlen_attn).parameters
    # before torch 2.12 the kernel needs as many key heads as query heads
    query, key, value = (
        (x if i == 0 or groups == 1 or takes_groups else x.repeat_interleave(groups, 1))[0].transpose(0, 1).contiguous()
        for i, x in enumerate((query_1ATD, key_1KTD, value_1KTD))
    )
    attention = partial(varlen_attn, scale=scale, window_size=CAUSAL)
    if takes_groups:
        attention = partial(attention, enable_gqa=groups > 1)
    output_TAD = attention(query, key, value, ends, ends, longest, longest)
    assert isinstance(output_TAD, Tensor)
    return output_TAD[None]


def _by_sequence(
    query_1ATD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    lengths: list[int],
    scale: float | None,
    dropout: float,
) -> Tensor:
    grouped = query_1ATD.shape[1] != key_1KTD.shape[1]
    # split instead of slices: its backward pass concatenates once instead of adding up full-size tensors
    parts = zip(*(x.split(lengths, 2) for x in (query_1ATD, key_1KTD, value_1KTD)), strict=True)
    outputs = [
        nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=grouped
        )
        for query, key, value in parts
    ]
    return torch.cat([x.transpose(1, 2) for x in outputs], 1)


def bounds(lengths: list[int], device: torch.device) -> Bounds:
    """The bounds of sequences of ``lengths`` [S] that are laid end to end in one row."""
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in lengths])
    return {
        "position_ids": positions[None].to(device),
        # four dimensions: transformers takes it for a complete mask and does not build one of its own, of [T, T]
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "cu_seq_lens_q": ends.to(device),
        "max_length_q": max(lengths),
        "sequence_lengths": lengths,
    }


def switch_on(core: CausalLM) -> bool:
    """Give ``core`` packed attention; False, and the model as it was, where its attention is another or not full.

    Whether that changes its results is for the caller to test (`scoring`); not on a sliding window or the like, beyond
    which a trial's few tokens do not reach.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if core.config._attn_implementation != "sdpa" or not has_full_attention(core.config.get_text_config()):
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    core.set_attn_implementation(NAME)
    return core.config._attn_implementation == NAME


def has_full_attention(config: ModelConfig) -> bool:
    """Whether every layer attends to all tokens before a token; on a few tokens a sliding window would not show."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return all(getattr(config, name, None) is None for name in WINDOWS)
    return all(kind == "full_attention" for kind in kinds)


def equal_up_to_rounding(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results of weights in ``dtype`` differ by no more than rounding."""
    allowed = TOLERANCE if dtype in (torch.float32, torch.float64) else TOLERANCE_16
    return bool((ours.float() - theirs.float()).norm() <= allowed * theirs.float().norm())
