"""The most memory that a training step will hold, from shapes alone: bytes of weights, gradients, optimizer, teacher,
activations, losses and a rollout's keys and values.

Counted from what the passes keep, for a decoder of the Llama family (RMS norms, rotary embeddings, gated MLP); other
decoders are of the same order. Tokens are those of one micro-batch with its padding. Not counted: libraries, the CUDA
context, fragmentation, an inference engine's own process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sdft_cli.config.compute import COPIED_PARAMETERS
from sdft_cli.config.recipe import Recipe, Teacher

#: [C, V] tensors in fp32 that a fused loss holds at once, and the positions C of a chunk (see `fused`).
LOSS_TENSORS, LOSS_ROWS = {"forward_kl": 4, "reverse_kl": 4, "jsd": 5, "nll": 3}, {"cpu": 64, "cuda": 256}
#: Parts that are there before the first step, by name.
STAYING = ("weights", "masters", "teacher", "twin")
#: [B, V] tensors in fp32 that choosing a token holds at once.
SAMPLER_TENSORS = 5
#: Numbers updated at once where a parameter is moved in pieces (`optimizer.PIECE`), and fp32 tensors of that size.
PIECE, PIECE_TENSORS = 1 << 24, 5
#: On a CPU the C library keeps freed blocks of up to 32 MB for itself: what passes takes 1.2 to 2 times its tensors.
HEAP = {"cpu": 1.5}


class Dims(NamedTuple):
    """A decoder's sizes: ``queries`` and ``keys`` are heads x head_dim, ``inner`` what an MLP computes for a token."""

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    vocab: int
    eager: bool = False


class Counts(NamedTuple):
    """Parameters of the model without adapters, those that are trained, and those of the largest tensor that is."""

    total: int
    trained: int
    largest: int

    @property
    def lora(self) -> bool:
        """Whether what is trained is an adapter."""
        return self.trained < self.total


class Load(NamedTuple):
    """What a step computes at once: ``tokens`` of its largest micro-batch, ``positions`` of them with a loss, the
    ``length`` of its longest row, whether ``several`` micro-batches follow each other, ``rows`` sampled together, and
    whether activations are ``remade`` (gradient checkpointing)."""

    tokens: int
    positions: int
    length: int
    several: bool = False
    rows: int = 0
    remade: bool = False


def dims(config: Any) -> Dims:
    """The sizes in a `transformers` config; what it does not name is guessed from its width."""
    text = config.get_text_config()

    def of(*names: str, default: int = 0) -> int:
        return next((int(v) for n in names if isinstance(v := getattr(text, n, None), int)), default)

    hidden, heads = of("hidden_size", "n_embd", "d_model"), of("num_attention_heads", "n_head", default=1)
    size = of("head_dim", default=hidden // heads)
    inner = of("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    if experts := of("num_experts_per_tok"):
        inner = experts * of("moe_intermediate_size", "intermediate_size", default=inner)
    keys = of("num_key_value_heads", default=heads) * size
    layers = of("num_hidden_layers", "n_layer")
    eager = getattr(config, "_attn_implementation", None) == "eager"
    return Dims(layers, hidden, inner, heads * size, keys, heads, of("vocab_size"), eager)


def lasting(recipe: Recipe, counts: Counts, width: int) -> dict[str, int]:
    """Bytes that a step leaves behind it, and its gradients. ``width``: bytes of one of the model's weights.

    peft holds adapters in fp32 whatever the base's precision.
    """
    wide = 4 if counts.lora else width
    masters = counts.trained * 4 if wide < 4 and recipe.train.master == "fp32" else 0
    each = 2 if recipe.train.optimizer == "adamw8bit" else 8  # and a scale of 4 bytes for 256 numbers
    return {
        "weights": counts.total * width + (counts.trained * 4 if counts.lora else 0),
        "masters": masters,
        "optimizer": counts.trained * each + (counts.trained // 32 if each == 2 else 0),
        "teacher": teacher(recipe.teacher, counts, wide),
        "twin": counts.trained * wide if prefetches(recipe) and recipe.engine.name == "transformers" else 0,
        "gradients": counts.trained * wide,
    }


def prefetches(recipe: Recipe) -> bool:
    """Whether completions are sampled while the model trains; with its own model that takes a copy of what moves."""
    return recipe.engine.prefetch > 0 and recipe.sampler.source == "student"


def teacher(settings: Teacher | None, counts: Counts, wide: int) -> int:
    """Bytes of a teacher on the device: none for a live one."""
    if settings is None or (settings.update_rate == 1 and settings.update_every == 1):
        return 0
    moves = 0 < settings.update_rate < 1
    if moves and settings.storage == "half" and not counts.lora:
        return counts.trained * 2 + counts.largest * wide  # the output head is kept for the loss
    away = settings.storage == "cpu"
    return counts.trained * (wide + (4 if moves and wide < 4 and not away else 0))


def activations(lora: bool, d: Dims, width: int, load: Load) -> tuple[int, int]:
    """Bytes that a forward pass keeps for the backward pass, and what the latter adds while it is in one layer."""
    tokens = load.tokens
    # a norm keeps its input (in fp32), its quotient where its weight learns, and what the next products multiply
    cast = lora and width < 4  # peft: what an adapter multiplies, in fp32, for each of a layer's seven products
    norm = d.hidden * (4 + width * (0 if cast else 1 if lora else 2))
    attention = width * (2 * d.queries + 2 * d.keys) + 4 * d.heads
    if d.eager:
        attention += d.heads * load.length * (4 + 2 * width)
    mlp = 3 * d.inner * width + (4 * (5 * d.hidden + d.queries + d.inner) if cast else d.inner * width)
    layer = tokens * (2 * norm + attention + mlp)
    ends = tokens * d.hidden * (4 + (0 if lora else width))  # the last norm
    kept = d.layers * tokens * width * d.hidden + layer if load.remade else d.layers * layer
    return kept + ends, tokens * width * (2 * d.inner + 2 * d.hidden)


def loss(recipe: Recipe, lora: bool, d: Dims, width: int, load: Load, device: str) -> tuple[int, int]:
    """Bytes of a fused loss: what stays until the backward pass (gradients of hidden states and head), and scratch."""
    goal = recipe.objective
    kind = goal.divergence if goal.target == "teacher" and goal.estimator == "analytic" else "nll"
    rows = min(load.positions, LOSS_ROWS.get(device, 256))
    scratch = LOSS_TENSORS[kind] * rows * d.vocab * 4
    hidden = load.positions * d.hidden * width * 2  # and their gradient
    if lora:
        return hidden, scratch
    # the head's gradient is summed in fp32; rounded, it is a second one for a moment
    return hidden + d.vocab * d.hidden * width, scratch + d.vocab * d.hidden * (4 if width < 4 else 0)


def rollout(d: Dims, counts: Counts, width: int, load: Load, device: str) -> int:
    """Bytes of sampling ``rows`` completions together: keys and values, one layer's passing copy, logits, and a copy of
    the weights where the engine makes one."""
    cache = load.rows * load.length * 2 * d.keys * width
    copies = device == "cpu" and width == 4 and not counts.lora and counts.total <= COPIED_PARAMETERS
    copied = 4 * counts.total if copies and load.rows else 0
    return copied + cache * (d.layers + 1) + SAMPLER_TENSORS * load.rows * d.vocab * 4


def updating(recipe: Recipe, counts: Counts, width: int, device: str) -> int:
    """Bytes that an optimizer step needs for a moment."""
    if counts.lora or width == 4:
        return 0 if device == "cuda" or recipe.train.optimizer == "adamw8bit" else 2 * 4 * counts.largest
    return PIECE_TENSORS * 4 * min(counts.largest, PIECE)


def predict(recipe: Recipe, d: Dims, counts: Counts, width: int, load: Load, device: str) -> dict[str, int]:
    """Bytes by what holds them, and ``peak``: the most of the moments of a step. ``device``: "cpu" or "cuda"."""
    parts = lasting(recipe, counts, width)
    stays = sum(parts.values()) - parts["gradients"]
    kept, adds = activations(counts.lora, d, width, load)
    held, scratch = loss(recipe, counts.lora, d, width, load, device)
    before = parts["gradients"] if load.several else 0
    # at the loss and at the backward pass's start all activations are there, at its end all gradients are
    passes = max(before + kept + held + max(scratch, adds), parts["gradients"] + kept // max(1, d.layers) + adds)
    sampled = rollout(d, counts, width, load, device)
    step = parts["gradients"] + updating(recipe, counts, width, device)
    own = {"activations": kept + adds, "loss": held + scratch, "rollout": sampled, "update": step - parts["gradients"]}
    most = max(passes, step) + sampled if prefetches(recipe) else max(passes, sampled, step)
    passing = most - parts["gradients"]
    return {**parts, **own, "peak": stays + parts["gradients"] + int(passing * HEAP.get(device, 1.0))}
