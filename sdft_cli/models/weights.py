"""A model's weights, read whole: the right class for its config, every parameter from the checkpoint, none made up.

`transformers` gives random values to parameters that a checkpoint lacks, leaves out weights for which its class has no
place, and only warns about either. Here a model is what its checkpoint says, or it is refused in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import nn

from sdft_cli import errors
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import quantization
from sdft_cli.models.base_models import Base

if TYPE_CHECKING:
    from sdft_cli.models.protocols import CausalLM, ModelConfig

T = TypeVar("T")

ANOTHER = "use another model"
DAMAGED = "a file of weights is damaged or incomplete: copy or download it again, or use another model"
PACKAGE = "install the package that the model needs, or use another model"
#: What a library's error has in it, and what to do then; the first that fits.
HINTS = (
    ("trust_remote_code", "code that comes with a model is not run: use one for which transformers has a class"),
    ("custom code", "code that comes with a model is not run: use one for which transformers has a class"),
    ("does not recognize this architecture", "use a newer transformers, or another model"),
    ("FlashAttention", "install its package, or set runtime.attention=auto"),
    ("attn_implementation", "set runtime.attention=auto"),
    ("no module named", PACKAGE),
    ("pip install", PACKAGE),
    ("safetensor", DAMAGED),
    ("unpickl", DAMAGED),
    ("corrupted", DAMAGED),
)
#: Buffers that old checkpoints have, and that are computed today.
NO_WEIGHTS = ("inv_freq", "position_ids", "masked_bias", "attn.bias", "attention.bias")
#: A line of a library's error is cut here.
LONGEST_REASON = 200


def explained(location: str, load: Callable[[], T]) -> T:
    """What ``load`` returns; whatever a library raises as `UsageError` in one line."""
    try:
        return load()
    except (SdftError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and errors.explained(error):  # no memory: not the model's fault
            raise
        whole = f"{type(error).__name__} {error}".lower()
        elsewhere = (
            "mend its files, or use another model"
            if Path(location).is_dir()
            else "check the path or hub id, and HF_TOKEN"
        )
        hint = next((hint for part, hint in HINTS if part.lower() in whole), elsewhere)
        raise _unloadable(location, _reason(error), hint) from error


def _reason(error: Exception) -> str:
    """What the error's first line says, with its kind where a line alone may not be understood."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    text = text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1].rstrip() + "…"


class Form(NamedTuple):
    """How weights are held: in which precision, and where. ``bits`` of 4: linear layers as `quantization` says, and on
    ``device`` at once; other models come into the host's memory."""

    dtype: torch.dtype
    attention: str = "auto"
    bits: int = 16
    device: torch.device = torch.device("cpu")


def read(location: str, base: Base, config: ModelConfig, form: Form) -> tuple[CausalLM, str]:
    """The model at ``base`` with all its parts, and which weights of its checkpoint it has no place for (or "").

    ``form.attention`` is one by name, or ``auto``.
    Raises `UsageError` where it cannot be loaded, where parameters are missing from its checkpoint or not finite, or
    where it is no model that writes text.
    """
    kind = class_of(location, config)
    settings: dict[str, object] = {"dtype": form.dtype, "output_loading_info": True, "trust_remote_code": False}
    settings |= {"revision": base.revision or "main"}
    settings |= {"ignore_mismatched_sizes": True}  # they are refused below, where it can be said which
    settings |= {} if form.attention == "auto" else {"attn_implementation": form.attention}
    with _quiet(), _quantising(location, config, form) as further:
        core, info = explained(location, lambda: kind.from_pretrained(base.location, **settings, **further))
    _check_whole(location, core, info)
    _check_finite(location, core)
    if is_multimodal(config):
        _freeze_other_parts(core)
    left_out = {*info["unexpected_keys"], *_ignored(core, base.location)}
    return core, _some(left_out) if left_out else ""


@contextmanager
def _quantising(location: str, config: ModelConfig, form: Form) -> Iterator[dict[str, object]]:
    """What `from_pretrained` is told beside the usual, where weights are to come in 4 bits."""
    if form.bits != 4:
        yield {}
        return
    quantization.check_installed()
    quantization.check_base(location, config, form.bits)
    with quantization.finite_weights(location):
        yield quantization.settings(config, form.dtype, form.device)


def shaped(location: str, config: ModelConfig) -> CausalLM:
    """The model that `read` would read, without weights."""
    with torch.device("meta"), _quiet():
        core: CausalLM = explained(location, lambda: class_of(location, config).from_config(config))
    if is_multimodal(config):
        _freeze_other_parts(core)
    return core


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of `transformers`: what they say of a checkpoint is said here, once."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def is_multimodal(config: ModelConfig) -> bool:
    """Whether the language model is a part of the model, beside others such as an image tower."""
    return config.get_text_config() is not config


def class_of(location: str, config: ModelConfig) -> Any:
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
    mend, kinds = "mend config.json, or use another model", {_numberless(name) for name, _ in core.named_parameters()}
    if missing := info["missing_keys"]:
        lacks = f"the checkpoint lacks {_some(missing)} of a {type(core).__name__}, which would be random"
        raise _unloadable(location, lacks, "complete the checkpoint, or use another model")
    if mismatched := [*(key for key, *_ in info["mismatched_keys"]), *quantization.misshapen(core)]:
        shapes = _some(mismatched)
        raise _unloadable(location, f"config.json and the checkpoint differ in the shapes of {shapes}", mend)
    if errors := info.get("error_msgs"):
        raise _unloadable(location, next(iter(errors)), ANOTHER)
    if further := [key for key in info["unexpected_keys"] if _numberless(key) in kinds]:
        raise _unloadable(location, f"the checkpoint has more layers than config.json says: {_some(further)}", mend)


def _unloadable(location: str, reason: str, hint: str) -> UsageError:
    return UsageError(f"cannot load the model {location!r}: {reason}", hint)


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _ignored(core: CausalLM, base: str) -> set[str]:
    """Weights of the checkpoint that the class leaves out without a word, such as those that predict several tokens."""
    patterns = getattr(core, "_keys_to_ignore_on_load_unexpected", None)
    if not patterns:
        return set()
    named = re.compile("|".join(f"({pattern})" for pattern in patterns))
    there = {name for name, _ in (*core.named_parameters(), *core.named_buffers())}
    found = {key for key in _keys(base) if named.search(key) and key not in there}
    return {key for key in found if not key.endswith(NO_WEIGHTS)}


def _keys(base: str) -> list[str]:
    """The names in the checkpoint's safetensors files; none where it has none."""
    from safetensors import safe_open
    from transformers.utils.hub import cached_file

    with suppress(OSError, ValueError):
        if index := cached_file(base, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False):
            return list(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"])
        if whole := cached_file(base, "model.safetensors", _raise_exceptions_for_missing_entries=False):
            with safe_open(whole, "pt") as file:
                return list(file.keys())
    return []


def _check_finite(location: str, core: nn.Module) -> None:
    for name, param in core.named_parameters():
        scales = quantization.scales_of(param)
        numbers = param.detach() if scales is None else scales
        if numbers.is_floating_point() and not bool(numbers.sum(dtype=torch.float32).isfinite()):
            raise UsageError(f"{location}: the weights {name} are not finite", "the checkpoint is broken: " + ANOTHER)


def _freeze_other_parts(core: CausalLM) -> None:
    """Towers take no part in text: they are kept as they are, and need neither gradients nor an optimizer's memory."""
    parts = (core.get_decoder(), core.get_output_embeddings(), core.get_input_embeddings())
    kept = {id(p) for part in parts for p in part.parameters()}
    for param in core.parameters():
        param.requires_grad_(id(param) in kept and param.is_floating_point())


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return (
        f"{len(ordered)} weight{'s' * (len(ordered) > 1)} ({', '.join(ordered[:3])}{', …' if len(ordered) > 3 else ''})"
    )
