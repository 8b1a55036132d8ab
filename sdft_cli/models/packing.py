"""Attention over sequences laid end to end, so that scoring costs the sum of their lengths and pads nothing.

Everything in a decoder but attention works on single tokens. `enable` therefore puts a model on an attention that
keeps to each sequence's own tokens where a forward pass names the sequences' bounds (``cu_seq_lens_q``, the keyword of
transformers' own packed kernels), and is transformers' ``sdpa`` everywhere else: sampling, evaluation and saving are
untouched. On a GPU torch's variable-length flash attention does all sequences in one kernel (bf16 or fp16); elsewhere
each sequence is one call of ``scaled_dot_product_attention``.
Shapes: T tokens of all sequences, S sequences, A query heads, K key-value heads, D a head's width.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

NAME = "sdft_packed"
#: Left and right bound of what a token sees: everything before it, nothing after.
CAUSAL = (-1, 0)
#: How far two ways to compute the same may differ, as a share of its norm. Rounding is 1e-6 in fp32 and 0.01 in bf16,
#: what a model does otherwise 0.4 and more: a resumed run, whose weights are others, decides as the first one did.
TOLERANCE, TOLERANCE_16 = 1e-3, 0.1


def attend(
    module: nn.Module,
    query_1ATD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function in transformers' form; output [1, T, A, D]."""
    ends = options.pop("cu_seq_lens_q", None)
    longest = options.pop("max_length_q", None)
    lengths = options.pop("sequence_lengths", None)
    if ends is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query_1ATD, key_1KTD, value_1KTD, attention_mask, **options)
    scale, drop = options.get("scaling"), options.get("dropout", 0.0)
    if query_1ATD.is_cuda and query_1ATD.dtype != torch.float32 and not drop:
        return _one_kernel(query_1ATD, key_1KTD, value_1KTD, ends, longest, scale), None
    return _by_sequence(query_1ATD, key_1KTD, value_1KTD, lengths, scale, drop), None


def _one_kernel(
    query_1ATD: Tensor, key_1KTD: Tensor, value_1KTD: Tensor, ends: Tensor, longest: int, scale: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups = query_1ATD.shape[1] // key_1KTD.shape[1]
    shares = "enable_gqa" in inspect.signature(varlen_attn).parameters
    # the kernel of torch before 2.12 wants as many key heads as query heads
    query, key, value = (
        (x if i == 0 or groups == 1 or shares else x.repeat_interleave(groups, 1))[0].transpose(0, 1).contiguous()
        for i, x in enumerate((query_1ATD, key_1KTD, value_1KTD))
    )
    grouped: dict[str, Any] = {"enable_gqa": groups > 1} if shares else {}
    out = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scale, window_size=CAUSAL, **grouped)
    assert isinstance(out, Tensor)
    return out[None]


def _by_sequence(
    query_1ATD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    lengths: list[int],
    scale: float | None,
    drop: float,
) -> Tensor:
    grouped = query_1ATD.shape[1] != key_1KTD.shape[1]
    # split, not slices: its backward pass lays the parts together once instead of adding up full-size tensors
    parts = zip(*(x.split(lengths, 2) for x in (query_1ATD, key_1KTD, value_1KTD)), strict=True)
    seen = [
        nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=drop, is_causal=True, scale=scale, enable_gqa=grouped
        )
        for query, key, value in parts
    ]
    return torch.cat([x.transpose(1, 2) for x in seen], 1)


def bounds(lengths: list[int], device: torch.device) -> dict[str, Any]:
    """Keywords of a decoder's forward pass over sequences of ``lengths`` [S] laid end to end in one row."""
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in lengths])
    return {
        "position_ids": positions[None].to(device),
        # four dimensions: transformers takes it for a finished mask and makes none of its own, of [T, T]
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "cu_seq_lens_q": ends.to(device),
        "max_length_q": max(lengths),
        "sequence_lengths": lengths,
    }


def enable(core: nn.Module) -> bool:
    """Put ``core`` on packed attention; False, and everything as it was, where that would change what it computes.

    That is found out, not assumed: by the model's kind (sliding windows and recurrences see across bounds), then by
    hidden states of packed against single sequences.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config: Any = core.config
    if config._attn_implementation != "sdpa" or not sees_all(config.get_text_config()):
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        core.set_attn_implementation(NAME)  # type: ignore[operator]
        if _same(core):
            return True
    except (TypeError, ValueError, RuntimeError, ImportError, AttributeError, NotImplementedError):
        pass  # a decoder that cannot take the keywords, or a kernel that this machine has not
    core.set_attn_implementation("sdpa")  # type: ignore[operator]
    return False


def sees_all(config: Any) -> bool:
    """Whether every layer attends to everything before a token; a few tokens would not show that."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return getattr(config, "sliding_window", None) is None
    return all(kind == "full_attention" for kind in kinds)


@torch.no_grad()
def _same(core: nn.Module) -> bool:
    decoder, embedding = core.get_decoder(), core.get_input_embeddings()  # type: ignore[operator]
    device, highest = embedding.weight.device, embedding.weight.shape[0]
    lengths = [3, 7, 5]
    ids_1T = torch.arange(1, 1 + sum(lengths), device=device)[None] % highest
    packed_TH = decoder(input_ids=ids_1T, use_cache=False, **bounds(lengths, device)).last_hidden_state[0]
    single = [decoder(input_ids=ids, use_cache=False).last_hidden_state[0] for ids in ids_1T.split(lengths, 1)]
    alone_TH = torch.cat(single)
    return alike(packed_TH, alone_TH, alone_TH.dtype)


def alike(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results of weights in ``dtype`` differ by no more than rounding."""
    allowed = TOLERANCE if dtype in (torch.float32, torch.float64) else TOLERANCE_16
    return bool((ours.float() - theirs.float()).norm() <= allowed * theirs.float().norm())
