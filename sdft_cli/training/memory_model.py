"""The peak memory of a training step, predicted from shapes alone: bytes of weights, gradients, optimizer, teacher,
activations, loss, and keys and values while sampling; on one device, or on each of several (`memory_shards`).

Derived from what the passes keep, for a decoder of the Llama family (RMS norms, rotary positions, gated MLP); others
need memory of the same order. Tokens are those of one micro-batch, with its padding. Libraries, the CUDA context,
fragmentation and an inference engine's own memory are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.config.compute_sections import COPIED_PARAMETERS
from sdft_cli.config.recipe import Recipe, Teacher
from sdft_cli.training.memory_shards import Counts, gathered, packed_bytes

if TYPE_CHECKING:
    from sdft_cli.models.protocols import ModelConfig

#: [C, V] tensors in fp32 that a fused loss holds at once, and the positions C of a chunk (see `fused`).
LOSS_TENSORS, LOSS_ROWS = {"forward_kl": 4, "reverse_kl": 4, "jsd": 5, "nll": 3}, {"cpu": 64, "cuda": 256}
#: [B, V] tensors in fp32 that choosing a token holds at once.
SAMPLER_TENSORS = 5
#: Engines that sample in memory of their own.
OWN_MEMORY = ("vllm", "vllm-server")
#: Numbers updated at once where a parameter is moved in pieces (`optimizer.PIECE`), and fp32 tensors of that size.
PIECE, PIECE_TENSORS = 1 << 24, 5
#: Trained parameters from which on the optimizer makes no copies on a CPU either (`optimizer.FUSED_FROM`).
FUSED_FROM = 1 << 24
#: On a CPU the C library keeps freed blocks of up to 32 MB, so what comes and goes in a step takes more than its size:
#: 1.2 to 2 times, and the most with adapters, whose products are made and freed between those that are kept.
HEAP, HEAP_LORA = {"cpu": 1.5}, {"cpu": 1.9}
#: The share of the memory left to a step's passes that their prediction may fill: it errs by up to a quarter, mostly
#: upwards. What outlasts a step is known exactly.
MARGIN = 0.85


class Dims(NamedTuple):
    """A decoder's sizes: ``queries`` and ``keys`` are heads x head_dim, ``inner`` is an MLP's width for one token."""

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    vocab: int
    eager: bool = False


class Load(NamedTuple):
    """What a step computes at once: ``tokens`` of its largest micro-batch as the student sees them, of which
    ``positions`` have a loss; the ``length`` of its longest row, under any view; whether gradients ``accumulate`` over
    several micro-batches; ``rows`` sampled together; whether activations are recomputed (``recompute``, gradient
    checkpointing); the rows ``in_pass`` of that micro-batch; and ``scored``, the loss positions of the whole batch, of
    which a teacher's hidden states are kept."""

    tokens: int
    positions: int
    length: int
    accumulate: bool = False
    rows: int = 0
    recompute: bool = False
    in_pass: int = 1
    scored: int = 0


class Lasting(NamedTuple):
    """Bytes that outlast a step, by what they hold, and its ``gradients``. ``masters`` are fp32 copies of the weights,
    ``sampler_copy`` the weights that are sampled from while these are trained."""

    weights: int
    masters: int
    optimizer: int
    teacher: int
    sampler_copy: int
    gradients: int

    @property
    def before_first_step(self) -> int:
        """Bytes held before there are gradients and the optimizer's moments."""
        return self.weights + self.masters + self.teacher + self.sampler_copy


class Moment(NamedTuple):
    """Bytes of a moment of a step: those that follow ``exactly`` from shapes, and those that its ``passes`` are
    predicted to hold."""

    exactly: int
    passes: int

    @property
    def peak(self) -> int:
        return self.exactly + self.passes

    @property
    def need(self) -> int:
        """What should be there, since a prediction errs."""
        return self.exactly + int(self.passes / MARGIN)


class Prediction(NamedTuple):
    """Bytes of a step, by what they hold, and its moments: at the loss, where the backward pass starts and all
    activations are there; at its end, where all gradients are; and where completions are sampled. ``gathered`` is the
    most that is whole at once beside a rank's shards."""

    lasting: Lasting
    activations: int
    loss: int
    rollout: int
    update: int
    gathered: int
    at_loss: Moment
    at_end: Moment
    at_sampling: Moment

    @property
    def parts(self) -> dict[str, int]:
        """All by name, without the moments."""
        temporary = (self.activations, self.loss, self.rollout, self.update, self.gathered)
        return {**self.lasting._asdict(), **dict(zip(self._fields[1:-3], temporary, strict=True))}

    @property
    def training(self) -> int:
        """The most bytes while gradients are computed."""
        return max(self.at_loss.peak, self.at_end.peak)

    @property
    def training_need(self) -> int:
        """The bytes that should be there for the passes."""
        return max(self.at_loss.need, self.at_end.need)

    @property
    def peak(self) -> int:
        """The most bytes at any moment."""
        return max(self.training, self.at_sampling.peak)

    @property
    def need(self) -> int:
        """The bytes that should be there for the step to fit."""
        return max(self.training_need, self.at_sampling.need)


def dims(config: ModelConfig) -> Dims:
    """The sizes in a `transformers` config; those that it does not name are guessed from its width."""
    text = config.get_text_config()

    def of(*names: str, default: int = 0) -> int:
        return next((int(v) for n in names if isinstance(v := _largest(text, n), int)), default)

    hidden, heads = of("hidden_size", "n_embd", "d_model"), of("num_attention_heads", "n_head", default=1)
    size = of("head_dim", default=hidden // heads)
    inner = of("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    if experts := of("num_experts_per_tok"):
        inner = experts * of("moe_intermediate_size", "intermediate_size", default=inner)
    keys = of("num_key_value_heads", default=heads) * size
    layers = of("num_hidden_layers", "n_layer")
    eager = getattr(config, "_attn_implementation", None) == "eager"
    return Dims(layers, hidden, inner, heads * size, keys, heads, of("vocab_size"), eager)


def _largest(config: ModelConfig, name: str) -> object:
    """A setting, or the largest of those that layers have for it; None where there is none."""
    try:
        return getattr(config, name, None)
    except RuntimeError:  # how transformers refuses to read a setting that differs from layer to layer
        return max(getattr(layer, name) for layer in config.per_layer_config)


def lasting(recipe: Recipe, counts: Counts, width: int) -> Lasting:
    """Bytes that outlast a step, and its gradients. ``width``: bytes of one of the model's weights.

    peft holds adapters in fp32, whatever the base's precision.
    """
    wide = 4 if counts.lora else width
    masters = counts.trained * 4 if wide < 4 and recipe.train.master != "stochastic" else 0
    moments = 2 if recipe.train.optimizer == "adamw8bit" else 8  # in 8 bits also a scale of 4 bytes per 256 numbers
    return Lasting(
        weights=(counts.total - counts.packed) * width
        + packed_bytes(counts.packed)
        + (counts.trained * 4 if counts.lora else 0),
        masters=masters,
        optimizer=counts.trained * moments + (counts.trained // 32 if moments == 2 else 0),
        teacher=teacher(recipe.teacher, counts, wide),
        sampler_copy=counts.trained * wide if prefetches(recipe) and recipe.engine.name == "transformers" else 0,
        gradients=counts.trained * wide,
    )


def prefetches(recipe: Recipe) -> bool:
    """Whether completions are sampled while the model trains, which takes a copy of the trained weights."""
    return recipe.engine.prefetch > 0 and recipe.sampler.source == "student"


def _is_live(settings: Teacher | None) -> bool:
    """Whether no teacher has weights of its own."""
    return settings is None or (settings.update_rate == 1 and settings.update_every == 1)


def teacher(settings: Teacher | None, counts: Counts, wide: int) -> int:
    """Bytes of a teacher on the device; a live one needs none."""
    if settings is None or _is_live(settings):
        return 0
    moves = 0 < settings.update_rate < 1
    if moves and settings.storage == "half" and not counts.lora:
        head = 0 if counts.shards else counts.largest * wide  # kept for the loss; whole, where weights are sharded
        return counts.trained * 2 + head
    if counts.shards and not counts.lora:  # the average takes the place of the student's shards while it computes
        return counts.trained * (4 if moves else wide)
    on_host = settings.storage == "cpu"
    return counts.trained * (wide + (4 if moves and wide < 4 and not on_host else 0))


def activations(lora: bool, d: Dims, width: int, load: Load) -> tuple[int, int]:
    """Bytes that a forward pass keeps for the backward pass, and bytes that the latter adds while in one layer."""
    tokens = load.tokens
    # a norm keeps its input (in fp32), its quotient where its weight is trained, and the input of the next products
    cast = lora and width < 4  # peft: an adapter's input in fp32, for each of a layer's seven products
    norm = d.hidden * (4 + width * (0 if cast else 1 if lora else 2))
    attention = width * (2 * d.queries + 2 * d.keys) + 4 * d.heads
    if d.eager:
        attention += d.heads * load.length * (4 + 2 * width)
    mlp = 3 * d.inner * width + (4 * (5 * d.hidden + d.queries + d.inner) if cast else d.inner * width)
    layer = tokens * (2 * norm + attention + mlp)
    ends = tokens * d.hidden * (4 + (0 if lora else width))  # the last norm
    kept = d.layers * tokens * width * d.hidden + layer if load.recompute else d.layers * layer
    return kept + ends, tokens * width * (2 * d.inner + 2 * d.hidden)


def loss(recipe: Recipe, lora: bool, d: Dims, width: int, load: Load, device: str) -> tuple[int, int]:
    """Bytes of a fused loss: those kept until the backward pass (gradients of hidden states and head), and scratch."""
    goal = recipe.objective
    kind = goal.divergence if goal.target == "teacher" and goal.estimator == "analytic" else "nll"
    rows = min(load.positions, LOSS_ROWS.get(device, 256))
    scratch = LOSS_TENSORS[kind] * rows * d.vocab * 4
    hidden = load.positions * d.hidden * width * 2  # and their gradient
    hidden += (load.scored if recipe.teacher else 0) * d.hidden * width
    if lora:
        return hidden, scratch
    # the head's gradient is summed in fp32, and briefly exists in the weights' precision as well
    return hidden + d.vocab * d.hidden * width, scratch + d.vocab * d.hidden * (4 if width < 4 else 0)


def rollout(d: Dims, counts: Counts, width: int, load: Load, device: str) -> int:
    """Bytes of sampling ``rows`` completions together: keys and values, a temporary copy of one layer's, logits, and a
    copy of the weights where the engine makes one."""
    cache = load.rows * load.length * 2 * d.keys * width
    total = counts.shards.whole if counts.shards else counts.total
    copies = device == "cpu" and width == 4 and not counts.lora and total <= COPIED_PARAMETERS
    copied = 4 * total if copies and load.rows else 0
    return copied + cache * (d.layers + 1) + SAMPLER_TENSORS * load.rows * d.vocab * 4


def updating(recipe: Recipe, counts: Counts, width: int, device: str) -> int:
    """Bytes that an optimizer step needs temporarily."""
    if counts.lora and counts.shards:
        return 4 * counts.trained  # gradients of adapters are summed as one tensor
    if counts.lora or width == 4:
        fused = device == "cuda" or counts.trained >= FUSED_FROM
        return 0 if fused or recipe.train.optimizer == "adamw8bit" else 2 * 4 * counts.largest
    return PIECE_TENSORS * 4 * min(counts.largest, PIECE)


def predict(recipe: Recipe, d: Dims, counts: Counts, width: int, load: Load, device: str) -> Prediction:
    """Bytes of a step of ``recipe`` on a device. ``device``: "cpu" or "cuda"."""
    outlasting = lasting(recipe, counts, width)
    kept, adds = activations(counts.lora, d, width, load)
    adds += counts.unpacked * width
    held, scratch = loss(recipe, counts.lora, d, width, load, device)
    sampled, update = rollout(d, counts, width, load, device), updating(recipe, counts, width, device)
    shared_head = counts.lora or _is_live(recipe.teacher)
    whole = gathered(counts, width, 0 if shared_head else d.vocab * d.hidden * width)
    heap, gradients = (HEAP_LORA if counts.lora else HEAP).get(device, 1.0), outlasting.gradients
    least, beside = sum(outlasting) - gradients, heap * sampled if prefetches(recipe) else 0
    at_loss = Moment(
        least + whole.forward + (gradients if load.accumulate else 0),
        int(heap * (kept + held + max(scratch, adds)) + beside),
    )
    at_end = Moment(
        least + whole.backward + gradients, int(heap * max(kept / max(1, d.layers) + adds, update) + beside)
    )
    here = recipe.engine.name not in OWN_MEMORY  # as do evaluations, whatever the method samples
    at_sampling = Moment(least + (whole.sampling if here else 0), int(heap * sampled))
    passes = (kept + adds, held + scratch, sampled, update, max(whole))
    return Prediction(outlasting, *passes, at_loss, at_end, at_sampling)
