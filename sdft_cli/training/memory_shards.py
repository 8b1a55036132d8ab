"""What each of several ranks holds and receives where weights are sharded (FSDP2, full sharding).

Every tensor is cut along its first dimension into as many parts as there are ranks; the first rank's is the largest,
and is what counts here. A layer's weights are gathered whole while it computes, those of the next one meanwhile; what
belongs to no layer (embeddings, output head, last norm: the root group) is gathered from a pass's forward to the end of
its backward half. An adapter is whole on every rank, and so are weights of 4 bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from sdft_cli.models.protocols import CausalLM

#: Layers whose weights (and, in the backward pass, gradients) are whole at a time: one computes, the other is on its
#: way.
LAYERS_AT_ONCE = 2
#: Weights of a 4-bit base (nf4) that share a scale, and scales that share one of fp32, each of them stored in 8 bits.
BLOCK, BLOCKS = 64, 256


class Shards(NamedTuple):
    """How a model lies on ``ranks``, in parameters without adapters and without weights of 4 bits: the ``whole`` model,
    its largest ``layer``, and the ``root`` group."""

    ranks: int
    whole: int
    layer: int
    root: int


class Counts(NamedTuple):
    """Parameters that one device holds: of the model without adapters (``total``), of what is trained, and of the
    largest tensor that is trained. ``packed`` of the total have 4 bits, and of these the largest matrix, which is
    computed with in full precision, ``unpacked``. ``shards`` is None where a device has the whole model."""

    total: int
    trained: int
    largest: int
    lora: bool = False
    packed: int = 0
    unpacked: int = 0
    shards: Shards | None = None


class Gathered(NamedTuple):
    """Bytes that are whole on a rank beside its shards: in the ``forward`` half of a pass and at the loss, at the end
    of the ``backward`` half, and while ``sampling``."""

    forward: int = 0
    backward: int = 0
    sampling: int = 0


class Traffic(NamedTuple):
    """Bytes that each rank receives in a step: weights gathered for passes, weights gathered to sample, and gradients
    summed."""

    all_gather: int
    sampling: int
    reduce: int


def counts_of(model: CausalLM, ranks: int = 1, bits: int = 16) -> Counts:
    """Parameters of a model, with or without its weights, on one of ``ranks``, its linear layers in ``bits``; a
    teacher's adapter does not count. Under an adapter every rank has the whole base."""
    packed = _linear(model) if bits == 4 else {}
    base = {n: p for n, p in model.named_parameters() if ".lora_" not in n}
    lora = any(p.requires_grad and ".lora_" in n for n, p in model.named_parameters())
    ranks = 1 if lora else ranks
    trained = [p.numel() if lora else shard(p.shape, ranks) for p in model.parameters() if p.requires_grad]
    held = sum(shard(p.shape, ranks) for n, p in base.items() if n not in packed)
    total, shards = held + sum(packed.values()), None
    if ranks > 1:
        shards = _shards({n: p.numel() for n, p in base.items() if n not in packed}, ranks)
    largest, matrix = max(trained, default=0), max(packed.values(), default=0)
    return Counts(total, sum(trained), largest, lora, sum(packed.values()), matrix, shards)


def shard(shape: Sequence[int], ranks: int) -> int:
    """Elements of the largest of ``ranks`` parts of a tensor."""
    return -(-shape[0] // ranks) * prod(shape[1:]) if shape else 1


def _linear(model: CausalLM) -> dict[str, int]:
    """The weights that a 4-bit base has in 4 bits, by name, with their sizes: those of linear layers but the head."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if module is not head and ".lora_" not in name and isinstance(module, (nn.Linear, Conv1D)):
            found[f"{name}.weight"] = _elements(module)
    return found


def _elements(module: nn.Module) -> int:
    """A loaded 4-bit layer's own tensor has two weights a byte, and another shape."""
    wide, high = getattr(module, "in_features", 0), getattr(module, "out_features", 0)
    return int(wide * high) or sum(p.numel() for n, p in module.named_parameters(recurse=False) if n == "weight")


def _shards(sizes: dict[str, int], ranks: int) -> Shards:
    """A parameter's layer is its name up to the first number; a name without one is of the root group."""
    layers: Counter[str] = Counter()
    for name, size in sizes.items():
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        layers["" if number is None else ".".join(parts[: number + 1])] += size
    root = layers.pop("", 0)
    return Shards(ranks, sum(sizes.values()), max(layers.values(), default=0), root)


def packed_bytes(weights: int) -> int:
    """Bytes of weights in 4 bits with doubly quantised scales (QLoRA, arXiv 2305.14314): 4.127 bits a weight."""
    return weights // 2 + weights // BLOCK + 4 * weights // (BLOCK * BLOCKS)


def gathered(counts: Counts, width: int, teacher_head: int) -> Gathered:
    """What is whole on a rank, where weights and gradients have ``width`` bytes. ``teacher_head``: bytes of the output
    head of a teacher with weights of its own, which is kept for the losses of a step."""
    if counts.shards is None:
        return Gathered()
    of, layers = counts.shards, LAYERS_AT_ONCE * counts.shards.layer * width
    weights, gradients = of.root * width + layers + teacher_head, 0 if counts.lora else layers
    ends = 0 if counts.lora else of.root * width
    return Gathered(weights + gradients, weights + gradients + ends, of.whole * width)


def traffic(counts: Counts, width: int, micro_batches: int, teacher_passes: bool, samples: bool) -> Traffic:
    """What a step of ``micro_batches`` on each rank exchanges. A pass gathers the weights forward, and all but the root
    group again backward; a teacher's pass gathers them forward, its own or the student's. To sample, they are gathered
    once, whole."""
    if counts.shards is None:
        return Traffic(0, 0, 0)
    of = counts.shards
    forward, backward = (1 + teacher_passes) * of.whole, of.whole - of.root
    received = (of.ranks - 1) / of.ranks  # of a tensor, by each rank
    weights = micro_batches * (forward + backward) * width
    gradients = 2 * 4 * counts.trained if counts.lora else micro_batches * of.whole * width
    return Traffic(int(received * weights), int(received * of.whole * width * samples), int(received * gradients))
