"""Rotary positions whose frequencies depend on how long the longest row of a forward pass is.

Two kinds do (``rope_type`` in a config): ``longrope`` has one set of frequencies up to a length and another beyond it;
``dynamic`` has one up to a length and beyond it one for every length. Both go by the longest row of the batch, so that
a row's log-probs would depend on its neighbours; ``dynamic`` besides keeps what an earlier, longer batch has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from sdft_cli.models.protocols import CausalLM, ModelConfig


def shared_up_to(config: ModelConfig) -> int | None:
    """The length up to which rows may share a forward pass, as their frequencies are the same; None: any length."""
    text = config.get_text_config()
    window = getattr(text, "max_position_embeddings", None)
    limits = []
    for rope in _ropes(text):
        if _kind(rope) == "longrope":
            own = rope.get("original_max_position_embeddings")
            limits.append(own or getattr(text, "original_max_position_embeddings", None) or window)
        elif "dynamic" in _kind(rope):
            limits.append(window)
    return min((int(limit) for limit in limits if limit), default=None)


def settled_beyond(config: ModelConfig) -> bool:
    """Whether all rows that are longer than that have the same frequencies."""
    return not any("dynamic" in _kind(rope) for rope in _ropes(config.get_text_config()))


def _kind(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type", rope.get("type")))


def _ropes(config: ModelConfig) -> Iterator[Mapping[str, Any]]:
    """The settings of the config's ropes: one for all layers, or one for each type of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(config, name, None)
        if isinstance(found, Mapping):
            yield found
            yield from (inner for inner in found.values() if isinstance(inner, Mapping))


def forget_lengths(core: CausalLM) -> None:
    """From now on every forward pass takes the frequencies of its own length, whatever was passed before."""
    if shared_up_to(core.config) is None:
        return
    for module in core.modules():
        if hasattr(module, "original_max_seq_len") and hasattr(module, "max_seq_len_cached"):
            module.register_forward_pre_hook(_reset)


def _reset(rotary: nn.Module, _: object) -> None:
    for name in list(vars(rotary)):
        if name.endswith("max_seq_len_cached"):
            setattr(rotary, name, rotary.original_max_seq_len)
        elif name.endswith("long_inv_freq"):
            delattr(rotary, name)
    for name, now in list(rotary.named_buffers(recurse=False)):
        if name.endswith("inv_freq") and not name.endswith("original_inv_freq"):
            original = getattr(rotary, f"{name.removesuffix('inv_freq')}original_inv_freq", None)
            if original is not None:
                setattr(rotary, name, original.to(now.device))
