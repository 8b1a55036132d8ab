"""A base of 4-bit weights under an adapter (QLoRA, arXiv 2305.14314), quantised by bitsandbytes when it is loaded.

Every linear layer but the output head is held as NF4: 4 bits for each weight, and for every 64 of them a scale of one
byte, which is scaled in turn (double quantisation). A layer dequantises its weights for each product, which is computed
in the precision of ``runtime.dtype``. Embeddings, norms, the head, and a mixture's experts that are one tensor each
stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

    from sdft_cli.models.protocols import CausalLM, ModelConfig

#: What the ``quantization_config`` of a checkpoint with bitsandbytes' 4-bit weights is called here.
FOUR_BITS = "bitsandbytes, 4 bits"
#: What is said, and what to do, where a vLLM engine would sample for a base that was quantised here.
SERVED_WHOLE = (
    "lora.bits=4: vLLM holds the base in 16 bits, and would sample from another model than the one in training",
    "leave out --engine (transformers samples from the 4-bit base itself), or set lora.bits=16",
)
#: Methods whose weights `transformers` may dequantise when it loads them; what came of it shows in the model.
_PERHAPS_LOADED_WHOLE = ("mxfp4",)


# --- before the weights are loaded -----------------------------------------------------------------------------------


def check_installed() -> None:
    """Refuse a base of 4 bits where bitsandbytes is missing."""
    if find_spec("bitsandbytes") is None:
        raise UsageError("lora.bits=4 needs bitsandbytes", "pip install 'sdft-cli[memory]'")


def quiet() -> None:
    """Without what bitsandbytes recommends for CPUs whenever it is imported, which `peft` does too."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def method_of(config: ModelConfig) -> str:
    """How the weights of a checkpoint are quantised, such as ``gptq``; empty where they are not."""
    given: Any = getattr(config, "quantization_config", None) or {}
    given = given if isinstance(given, dict) else given.to_dict()
    method = str(given.get("quant_method") or "").lower().rpartition(".")[2]
    if method in ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"):
        return FOUR_BITS if given.get("load_in_4bit") else "bitsandbytes, 8 bits"
    return method or ("an unnamed method" if given else "")


def check_base(location: str, config: ModelConfig, bits: int) -> None:
    """Refuse weights that are quantised already, unless they are what ``bits=4`` would make of them."""
    method = method_of(config)
    if method and bits == 4 and method != FOUR_BITS:
        raise UsageError(
            f"{location}: its weights are quantised already ({method}), and lora.bits=4 needs whole ones",
            "name the model that it was made from",
        )


def check_trained(location: str, config: ModelConfig, bits: int) -> None:
    """Refuse to train a model with quantised weights, with an adapter or without, unless ``bits`` says that they are
    of 4 bits, and they are bitsandbytes' own."""
    check_base(location, config, bits)
    method = method_of(config)
    if not method or bits == 4 or method in _PERHAPS_LOADED_WHOLE:
        return
    hint = "set lora.rank and lora.bits=4" if method == FOUR_BITS else "name the model that it was made from"
    raise UsageError(f"{location} is quantised ({method}): its weights cannot be trained", hint)


# --- loading ---------------------------------------------------------------------------------------------------------


def settings(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> dict[str, object]:
    """What `from_pretrained` is to be told, so that a base comes in 4 bits onto ``device``.

    The weights are quantised one by one on their way there: neither the host nor the device ever holds them all whole.
    """
    return {"device_map": {"": device}} | ({} if method_of(config) else {"quantization_config": _nf4(dtype)})


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


@contextmanager
def finite_weights(location: str) -> Iterator[None]:
    """Raise `UsageError` where weights that are quantised inside are not all finite.

    Afterwards it could not be told everywhere: whether NaN gets into a block's scale is up to the device's kernel.
    """
    from bitsandbytes import functional

    quantize, sums = functional.quantize_4bit, list[Tensor]()

    def counted(weights: Tensor, *args: object, **kwargs: object) -> object:
        sums.append(weights.sum(dtype=torch.float32))
        return quantize(weights, *args, **kwargs)

    functional.quantize_4bit = counted
    try:
        yield
    finally:
        functional.quantize_4bit = quantize
    if not all(bool(each.isfinite()) for each in sums):
        raise UsageError(f"{location}: its weights are not all finite", "the checkpoint is broken: use another model")


# --- a loaded model --------------------------------------------------------------------------------------------------


def is_four_bit(core: nn.Module) -> bool:
    """Whether the model's linear layers hold 4 bits for a weight."""
    return bool(getattr(core, "is_loaded_in_4bit", False))


def made_here(core: nn.Module) -> bool:
    """Whether a 4-bit model was quantised when it was loaded: what other programs read at its place has more bits."""
    return is_four_bit(core) and not getattr(getattr(core, "hf_quantizer", None), "pre_quantized", False)


def states(core: nn.Module) -> list[Any]:
    """The scales of a model's 4-bit weights, which are no parameters."""
    each = [getattr(p, "quant_state", None) for p in core.parameters()]
    return [state for state in each if state is not None]


def misshapen(core: nn.Module) -> list[str]:
    """The names of 4-bit weights that are not of their layer's shape: `transformers` cannot tell of packed ones."""
    layers = [(name, module) for name, module in core.named_modules() if hasattr(module, "out_features")]
    weights = [(f"{name}.weight", layer, getattr(layer.weight, "quant_state", None)) for name, layer in layers]
    return [
        name
        for name, layer, state in weights
        if state is not None and tuple(state.shape) != (layer.out_features, layer.in_features)
    ]


def scales_of(param: Tensor) -> Tensor | None:
    """The largest scales of a 4-bit weight, from which it gets its size; None of any other weight."""
    state = getattr(param, "quant_state", None)
    if state is None:
        return None
    return torch.cat((state.state2.absmax, state.offset.view(1))) if state.nested else state.absmax


def prepare(core: CausalLM, location: str, dtype: torch.dtype) -> str:
    """Make a 4-bit model compute the same everywhere; returns a note where little of it is in 4 bits, or "".

    On a CPU with bf16 instructions bitsandbytes would, in the first pass without gradient, round all scales to bf16 for
    good, compute every product in bf16, and give layers no gradient to pass on. Raises `UsageError` where no layer is
    in 4 bits.
    """
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in core.modules() if isinstance(module, Linear4bit)]
    if not layers:
        raise UsageError(f"{location}: lora.bits=4: it has no linear layer besides its output head", "set lora.bits=16")
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
    held = sum(state.shape.numel() for state in states(core))
    others = sum(p.numel() for p in core.parameters() if p.is_floating_point())
    share = held / (held + others)
    if share >= 0.5:
        return ""
    kept = "embeddings, the output head and a mixture's experts stay as they are"
    return f"{location}: {share:.0%} of its weights are held in 4 bits; {kept}"
