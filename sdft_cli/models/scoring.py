"""What a model's rows are scored with, established by comparison when it loads.

The reference is the model's own forward pass over one row alone, with the attention that every model is written for
(``eager``). Whatever is faster (another attention, padding, packing) is used only where it gives the same logits, and
only what no comparison of a few tokens can show is decided by the config: windows longer than the trial's rows, soft
caps that matter for rare scores, ropes that change beyond a length.
Shapes: L tokens, N tokens of all rows, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sdft_cli.losses.fused import Head
from sdft_cli.models import devices, packing, rope
from sdft_cli.models.batching import PADDED, Layout

if TYPE_CHECKING:
    from sdft_cli.models.protocols import CausalLM, ModelConfig

#: What may go wrong in a forward pass that a model was not made for.
MISFITS = (TypeError, ValueError, RuntimeError, ImportError, AttributeError, LookupError, AssertionError)
#: Tokens of the longest row of the trial; the others are its beginning, and shorter still.
LONGEST = 24
#: How far the logits of a beginning may move when tokens are added behind it, as a share of their norm. A model that
#: looks ahead moves them by 0.1 and more; in 16 bits a mixture of experts may choose another one by rounding.
LOOKAHEAD, LOOKAHEAD_16 = 1e-2, 0.3
#: How far the head may move the logits of the same hidden states, as a share of their norm.
SAME_STATES, SAME_STATES_16 = 1e-4, 2e-2
#: Settings whose effect sdpa loses or scales otherwise, in so few scores or by so little that a trial may miss it.
ONLY_EAGER = ("attn_logit_softcapping", "alibi")


Through = Literal["decoder", "model"]


class Unsupported(Exception):
    """The model cannot be scored right; says why in one line, and what to do."""

    def __init__(self, reason: str, hint: str = "use another model"):
        super().__init__(reason)
        self.hint = hint


class HeadForm(NamedTuple):
    """How logits come from the output embeddings' product: times ``scale``, and then a soft ``cap``."""

    scale: float = 1.0
    cap: float | None = None


class Scoring(NamedTuple):
    """What a model's rows are scored with.

    ``attention`` has transformers' name; ``through`` says whether hidden states are the decoder's output, or what the
    whole model gives to its output embeddings; ``model`` is its class, ``left_out`` says which weights of the
    checkpoint that has no place for, and ``four_bits`` whether its linear layers are quantised.
    """

    attention: str = "sdpa"
    layout: Layout = PADDED
    through: Through = "decoder"
    head: HeadForm = HeadForm()
    model: str = ""
    left_out: str = ""
    four_bits: bool = False

    @property
    def text(self) -> str:
        """For people and a run's record: ``LlamaForCausalLM, packed rows, attention sdpa``."""
        limit = self.layout.limit
        parts = (
            f"{self.model} in 4 bits" if self.four_bits else self.model,
            "one row at a time" if self.layout.kind == "row by row" else f"{self.layout.kind} rows",
            "" if limit is None else f"those of more than {limit} tokens one at a time",
            f"attention {self.attention}",
            f"without {self.left_out} of the checkpoint" if self.left_out else "",
        )
        return ", ".join(filter(None, parts))


# --- forward passes --------------------------------------------------------------------------------------------------


def states(core: CausalLM, through: Through, ids_BL: Tensor, lengths: list[int] | None = None) -> Tensor:
    """Final hidden states [B, L, H], which `head` turns into logits; packed if there are ``lengths``."""
    called: nn.Module = core.get_decoder() if through == "decoder" else core
    forward = partial(called, input_ids=ids_BL, use_cache=False)
    if lengths:
        forward = partial(forward, **packing.bounds(lengths, ids_BL.device))
    return forward().last_hidden_state if through == "decoder" else _given_to_head(core, forward)


class _Given(Exception):
    def __init__(self, hidden_BLH: Tensor):
        self.hidden_BLH = hidden_BLH


def _given_to_head(core: CausalLM, forward: Callable[[], object]) -> Tensor:
    """What ``forward`` passes to the output embeddings; it ends there, so that there are never logits of all tokens."""

    def stop(_: object, inputs: tuple[Tensor, ...]) -> None:
        raise _Given(inputs[0])

    hook = core.get_output_embeddings().register_forward_pre_hook(stop)
    try:
        forward()
    except _Given as given:
        return given.hidden_BLH
    finally:
        hook.remove()
    raise RuntimeError("the output embeddings are not used")


def head(core: CausalLM, form: HeadForm) -> Head:
    """The output head; its tensors are the live parameters."""
    module = core.get_output_embeddings()
    return Head(module.weight, getattr(module, "bias", None), form.scale, form.cap)


# --- the trial -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def examine(core: CausalLM, asked: str = "auto") -> Scoring:
    """How ``core`` is to be scored; its attention is set accordingly. `Unsupported` where nothing gives its logits.

    ``asked`` is an attention by name, which then is used or refused, or ``auto``.
    """
    trial, chosen = _Trial(core), _attention(core)
    _set_attention(core, "eager")
    reference = trial.reference()
    through, form = trial.fit_head(reference)
    only_eager = any(getattr(core.config.get_text_config(), name, None) for name in ONLY_EAGER)
    if not (only_eager and asked == "auto"):
        _set_attention(core, chosen)
        if (only_eager and asked == "sdpa") or not trial.agrees(reference, through, form):
            if asked not in ("auto", "eager"):
                raise Unsupported(
                    f"{asked} attention gives other logits than eager attention, for which the model is written",
                    "set runtime.attention=auto",
                )
            _set_attention(core, "eager")
    if not trial.agrees(reference, through, form):
        raise Unsupported("its hidden states and output head do not give its logits")
    attention = _attention(core)[""]
    return Scoring(attention, trial.layout(reference, through, form), through, form, type(core).__name__)


def _attention(core: CausalLM) -> dict[str, str]:
    """The attention of the model and of its parts that have a config of their own."""
    parts = {"": core.config, **{part: getattr(core.config, part, None) for part in core.config.sub_configs}}
    named = {part: getattr(config, "_attn_implementation", None) for part, config in parts.items()}
    return {part: name for part, name in named.items() if name is not None}


def _set_attention(core: CausalLM, attention: str | dict[str, str]) -> None:
    everywhere = dict.fromkeys(_attention(core), attention) if isinstance(attention, str) else attention
    if core._can_set_attn_implementation():
        core.set_attn_implementation(everywhere)
    else:  # some of these models read it in every pass, the others have it from their construction
        core.config._attn_implementation = everywhere


class _Trial:
    """Rows of a few tokens; the first is the beginning of the second."""

    def __init__(self, core: CausalLM):
        self.core, self.limit = core, rope.shared_up_to(core.config)
        embedding = core.get_input_embeddings()
        self.wide = embedding.weight.dtype in (torch.float32, torch.float64)
        self.exact = SAME_STATES if self.wide else SAME_STATES_16
        self.allowed = packing.TOLERANCE if self.wide else packing.TOLERANCE_16
        window = getattr(core.config.get_text_config(), "max_position_embeddings", None) or LONGEST
        longest = max(4, min(LONGEST, window, self.limit or LONGEST))
        # ordinary tokens: the first ids are often the padding's, on which some models' positions depend, and special
        # ones that are hardly trained: in bf16, SmolLM2's logits for these move by their whole norm with the attention
        vocabulary = embedding.weight.shape[0]
        ids_L = (torch.arange(longest) + max(3, vocabulary // 3)) % vocabulary
        ids_L = ids_L.to(embedding.weight.device)
        self.rows = [ids_L[: longest * 3 // 8], ids_L, ids_L[: max(2, longest // 6)].flip(0)]
        self.lengths = [len(ids) for ids in self.rows]

    def reference(self) -> list[Tensor]:
        """Logits [L, V] of every row, passed alone, by the model itself; `Unsupported` where they cannot be right."""
        try:
            logits = [self.core(input_ids=ids_L[None], use_cache=False).logits[0].float() for ids_L in self.rows]
        except torch.OutOfMemoryError:
            raise
        except MISFITS as error:
            devices.raise_if_failed(error)
            reason = str(error).strip().partition("\n")[0]
            raise Unsupported(f"its forward pass fails: {reason}", "try another runtime.dtype or model") from error
        if not all(bool(each.isfinite().all()) for each in logits):
            raise Unsupported("its logits are not finite: the weights are broken")
        beginning, whole = logits[0], logits[1][: self.lengths[0]]
        if self.distance([whole], [beginning]) > (LOOKAHEAD if self.wide else LOOKAHEAD_16):
            raise Unsupported("its tokens attend to later ones: it is no model that writes from left to right")
        return logits

    def fit_head(self, reference: list[Tensor]) -> tuple[Through, HeadForm]:
        """Where hidden states come from, and the form of the head with which they give the ``reference``."""
        if self.core.get_output_embeddings() is None:
            raise Unsupported("it has no output embeddings")
        reason: Exception | None = None
        ways: tuple[Through, ...] = ("decoder", "model")
        for through in ways:
            try:
                hidden = [states(self.core, through, ids_L[None])[0] for ids_L in self.rows]
                return through, _form(self.core, torch.cat(hidden), torch.cat(reference), self.exact)
            except torch.OutOfMemoryError:
                raise
            except (*MISFITS, Unsupported) as error:
                devices.raise_if_failed(error)
                reason = reason if isinstance(reason, Unsupported) else error
        raise reason if isinstance(reason, Unsupported) else Unsupported(f"it has no readable hidden states: {reason}")

    def agrees(self, reference: list[Tensor], through: Through, form: HeadForm, layout: str = "row by row") -> bool:
        """Whether hidden states and head give the ``reference``, with the attention that is set."""
        try:
            ours_NV = head(self.core, form).logits(self._hidden(through, layout))
            return self.distance(list(ours_NV.split(self.lengths)), reference) <= self.allowed
        except torch.OutOfMemoryError:
            raise
        except MISFITS as error:
            devices.raise_if_failed(error)
            return False  # the decoder does not take the keywords, or this machine lacks the kernel

    def distance(self, ours: list[Tensor], theirs: list[Tensor]) -> float:
        """That of the rows [L, V] that are furthest apart. In 16 bits it is their middle token's, since rounding may
        choose other experts for a few tokens, and what is computed otherwise shows in most."""
        if self.wide:
            return max(_distance(a, b) for a, b in zip(ours, theirs, strict=True))
        tokens = [[_distance(*each) for each in zip(a, b, strict=True)] for a, b in zip(ours, theirs, strict=True)]
        return max(median(each) for each in tokens)

    def _hidden(self, through: Through, layout: str) -> Tensor:
        if layout == "packed":
            return states(self.core, through, torch.cat(self.rows)[None], self.lengths)[0]
        if layout == "padded":
            ids_BL = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True, padding_value=1)
            hidden_BLH = states(self.core, through, ids_BL)
            return torch.cat([row[:n] for row, n in zip(hidden_BLH, self.lengths, strict=True)])
        return torch.cat([states(self.core, through, ids_L[None])[0] for ids_L in self.rows])

    def layout(self, reference: list[Tensor], through: Through, form: HeadForm) -> Layout:
        """The fastest layout that gives the ``reference``; the model is switched to packed attention if that does."""
        if not self.agrees(reference, through, form, "padded"):
            return Layout("row by row")
        before = _attention(self.core)
        if packing.switch_on(self.core) and self.agrees(reference, through, form, "packed"):
            return Layout("packed", self.limit)
        _set_attention(self.core, before)
        return Layout("padded", self.limit)


def _form(core: CausalLM, hidden_NH: Tensor, logits_NV: Tensor, allowed: float) -> HeadForm:
    """The form of the head that turns ``hidden_NH`` into ``logits_NV``, up to ``allowed``; found by trial."""
    config, plain_NV = core.config.get_text_config(), head(core, HeadForm()).logits(hidden_NH)
    if plain_NV.shape != logits_NV.shape:
        raise Unsupported(f"its output embeddings have {plain_NV.shape[-1]} rows, its logits {logits_NV.shape[-1]}")
    for cap in _caps(config):
        # near the cap the inverse of tanh is mostly rounding
        inside_NV = torch.ones_like(logits_NV) if cap is None else (logits_NV.abs() < 0.9 * cap).float()
        uncapped_NV = logits_NV if cap is None else cap * torch.atanh(logits_NV / cap * inside_NV)
        scale = float((plain_NV * uncapped_NV * inside_NV).sum() / (plain_NV**2 * inside_NV).sum().clamp(min=1e-30))
        form = HeadForm(_as_configured(config, scale, allowed / 4), cap)
        if _distance(head(core, form).logits(hidden_NH), logits_NV) <= allowed:
            return form
    raise Unsupported("its logits are more than output embeddings, a scale and a soft cap")


def _caps(config: ModelConfig) -> Iterator[float | None]:
    """What a soft cap on logits may be, likely ones first: small logits hardly show it, least of all in 16 bits."""
    numbers = {k: float(v) for k, v in vars(config).items() if "cap" in k and isinstance(v, (int, float)) and v > 0}
    elsewhere = [name for name in numbers if any(part in name for part in ("attn", "router", "gate"))]
    yield from (value for name, value in numbers.items() if name not in elsewhere)
    yield None


def _as_configured(config: ModelConfig, scale: float, allowed: float) -> float:
    """1, or the number of the config or the inverse of one, that ``scale`` is up to rounding; else ``scale`` itself."""
    numbers = [v for v in vars(config).values() if isinstance(v, (int, float)) and not isinstance(v, bool) and v]
    near = [x for x in (*numbers, *(1 / n for n in numbers)) if abs(x - scale) <= allowed * abs(scale)]
    return 1.0 if abs(scale - 1) <= allowed else float(min(near, key=lambda x: abs(x - scale), default=scale))


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference of logits [..., V] as a share of their norm; a token's mean, on which no probability
    depends, is left out."""
    ours, theirs = (x.float() - x.float().mean(-1, keepdim=True) for x in (ours, theirs))
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))
