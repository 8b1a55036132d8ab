"""A model's weights, read whole: the right class for its config, every parameter from the checkpoint, none made up.

`transformers` gives random values to parameters that a checkpoint lacks, leaves out weights for which its class has no
place, and only warns about either. Here a model is what its checkpoint says, or it is refused in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from sdft_cli.errors import SdftError, UsageError

if TYPE_CHECKING:
    from sdft_cli.models.protocols import CausalLM, ModelConfig

T = TypeVar("T")

ANOTHER = "use another model"
#: What a library's message has in it, and what to do then.
HINTS = (
    ("trust_remote_code", "code that comes with a model is not run: use one for which transformers has a class"),
    ("does not recognize this architecture", "use a newer transformers, or another model"),
    ("No module named", "install the package that the model needs"),
    ("requires the", "install the package that the model needs"),
    ("pip install", "install the package that the model needs"),
    ("bitsandbytes", "install the package that the model needs"),
    ("Can't load the configuration", "check the path or hub id, and HF_TOKEN"),
    ("safetensors", "a file of weights is damaged or incomplete: copy or download it again"),
)


def explained(location: str, load: Callable[[], T]) -> T:
    """What ``load`` returns; whatever a library raises as `UsageError` in one line."""
    try:
        return load()
    except (SdftError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = _reason(error)
        hint = next((hint for part, hint in HINTS if part.lower() in f"{type(error)} {error}".lower()), None)
        raise UsageError(
            f"cannot load the model {location!r}: {reason}", hint or "check the path or hub id, and HF_TOKEN"
        ) from error


def _reason(error: Exception) -> str:
    """The first line that says something, with the kind of the error where the line alone may not be understood."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def read(location: str, base: str, config: ModelConfig, dtype: torch.dtype, attention: str) -> tuple[CausalLM, str]:
    """The model at ``base`` with all its parts, and which weights of its checkpoint it has no place for (or "").

    ``attention`` is one by name, or ``auto``.

    Raises `UsageError` where it cannot be loaded, where parameters are missing from its checkpoint or not finite, or
    where it is no model that writes text.
    """
    kind = _class_of(location, config)
    chosen = {} if attention == "auto" else {"attn_implementation": attention}
    core, info = explained(
        location, lambda: kind.from_pretrained(base, dtype=dtype, output_loading_info=True, **chosen)
    )
    _check_whole(location, core, info)
    _check_finite(location, core)
    if is_multimodal(config):
        _freeze_other_parts(core)
    return core, _some(info["unexpected_keys"]) if info["unexpected_keys"] else ""


def is_multimodal(config: ModelConfig) -> bool:
    """Whether the language model is a part of the model, beside others such as an image tower."""
    return config.get_text_config() is not config


def _class_of(location: str, config: ModelConfig) -> Any:
    """The auto class that loads the whole of such a model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM

    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"{location}: {config.model_type} is an encoder with a decoder, not a causal language model", ANOTHER
        )
    if is_multimodal(config):  # the causal class of such a config may be the language model alone
        for kind in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
            if type(config) in kind._model_mapping:
                return kind
    if type(config) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM
    raise UsageError(f"{location}: transformers has no causal language model of type {config.model_type!r}", ANOTHER)


def _check_whole(location: str, core: nn.Module, info: Mapping[str, Collection[Any]]) -> None:
    if missing := info["missing_keys"]:
        raise UsageError(
            f"{location}: the checkpoint lacks {_some(missing)} of a {type(core).__name__}, which would be random",
            "complete the checkpoint, or use another model",
        )
    if mismatched := info["mismatched_keys"]:
        raise UsageError(
            f"{location}: the shapes of {_some(key for key, *_ in mismatched)} differ between config and checkpoint",
            "mend config.json, or use another model",
        )
    if errors := info.get("error_msgs"):
        raise UsageError(f"{location}: {next(iter(errors))}", ANOTHER)


def _check_finite(location: str, core: nn.Module) -> None:
    for name, param in core.named_parameters():
        if param.is_floating_point() and not bool(param.detach().sum(dtype=torch.float32).isfinite()):
            raise UsageError(f"{location}: the weights {name} are not finite", "the checkpoint is broken: " + ANOTHER)


def _freeze_other_parts(core: CausalLM) -> None:
    """Towers take no part in text: they are kept as they are, and need neither gradients nor an optimizer's memory."""
    parts = (core.get_decoder(), core.get_output_embeddings(), core.get_input_embeddings())
    kept = {id(p) for part in parts for p in part.parameters()}
    for param in core.parameters():
        param.requires_grad_(id(param) in kept)


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"{len(ordered)} weights ({', '.join(ordered[:3])}{', …' if len(ordered) > 3 else ''})"
