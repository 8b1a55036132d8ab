"""LoRA adapters, by `peft`: put into a model, read from a folder, called by name; its refusals are made one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sdft_cli.config.adapter_settings import ALL_LINEAR, MERGE_FIRST, adapter_config, check_same
from sdft_cli.config.model_locations import is_adapter
from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from peft import LoraConfig

    from sdft_cli.config.recipe import Lora
    from sdft_cli.models.protocols import CausalLM, PeftModel

T = TypeVar("T")
#: Names of adapters in a model; `peft` calls the first one "default".
STUDENT, TEACHER = "default", "teacher"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
#: Kinds of LoRA that change more than products with weights, or the base itself: neither teacher nor engines know them.
_REFUSED = (
    *("alora_invocation_tokens", "use_qalora", "layer_replication", "use_bdlora", "arrow_config", "kasa_config"),
    *("monteclora_config", "velora_config", "trainable_token_indices", "loftq_config"),
)
#: What a ``lora`` section cannot say: an adapter with any of these is trained, but no new one can be made like it.
_UNSAID = (
    *("use_rslora", "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "exclude_modules", "lora_bias"),
    *("layers_to_transform", "target_parameters"),
)


def attach(model: CausalLM, location: str, lora: Lora | None) -> PeftModel | None:
    """Put a trainable adapter into ``model``: the one at ``location``, or else a new one as ``lora`` describes it.

    None for full fine-tuning, where there is neither. Raises `UsageError` for an adapter that is broken, of a kind that
    is not supported, or not what ``lora`` says (None: it is not trained), and for layers that are not there.
    """
    if not is_adapter(location):
        return _attach_new(model, lora) if lora and lora.rank else None
    _check_weights(location)
    adapted = _attach_empty(model, location, lora)
    renamed = getattr(model, "_checkpoint_conversion_mapping", {})
    loaded = _explained(
        f"the adapter {location} cannot be loaded",
        lambda: adapted.load_adapter(location, STUDENT, is_trainable=True, key_mapping=renamed),
    )
    for wrong, keys in (("lacks", loaded.missing_keys), ("has, beyond its settings,", loaded.unexpected_keys)):
        if keys:  # `peft` would draw the first at random, and drop the second
            what = f"the adapter {location} {wrong} {len(keys)} weights, such as {keys[0]}"
            raise UsageError(what, "restore its files, or name another model")
    return adapted


def attach_untrained(model: CausalLM, location: str, lora: Lora) -> PeftModel | None:
    """As `attach`, without reading an adapter's weights: enough for a model of which only the shapes matter."""
    return _attach_empty(model, location, lora) if is_adapter(location) else attach(model, location, lora)


def check_mergeable(location: str) -> None:
    """Refuse ``lora.merge=stage`` for an adapter after which no new one of its kind could be made."""
    config = adapter_config(location)
    if unsaid := [key for key in _UNSAID if config.get(key)]:
        raise UsageError(
            f"lora.merge=stage: the adapter {location} has {', '.join(unsaid)}, which a new adapter would not have",
            f"set lora.merge=never, or {MERGE_FIRST}",
        )


def check_embeddings(model: CausalLM) -> None:
    """Refuse to merge an adapter on embeddings that are the output head as well, which would change with them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_input_embeddings(), BaseTunerLayer) and model.config.get_text_config().tie_word_embeddings:
        raise UsageError(
            "lora.merge=stage: an adapter on embeddings that are tied to the output head cannot be merged",
            "set lora.merge=never, or leave the embeddings out of lora.target_modules",
        )


def _attach_empty(model: CausalLM, location: str, lora: Lora | None) -> PeftModel:
    """The adapter at ``location`` without its weights."""
    from peft import PeftConfig

    _check_kind(location, lora)
    names = linear_layers(model)

    def make() -> PeftModel:
        config = PeftConfig.from_pretrained(location)
        config.base_model_name_or_path = None  # it may have moved; `peft` puts in where the model came from
        config.inference_mode = False
        return _put(model, config)

    adapted = _explained(f"the adapter {location} cannot be used", make)
    _check_layers(model, lora, names)
    return adapted


def _attach_new(model: CausalLM, lora: Lora) -> PeftModel:
    from peft import LoraConfig

    if getattr(model, "_hf_peft_config_loaded", False):
        raise UsageError("the model is an adapter on the hub", "download it, and name its folder")
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    alpha = int(lora.alpha) if lora.alpha.is_integer() else lora.alpha  # other tools expect a whole number
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    names = linear_layers(model)
    if targets == ALL_LINEAR and not names:
        raise UsageError("lora.rank: the model has no linear layer besides its output head", "set lora.rank=0")
    choices = f"the model's linear layers: {', '.join(_endings(names)) or 'none'}"
    what = f"lora.target_modules={_text(targets)}"
    adapted = _explained(what, lambda: _put(model, config), choices)
    _check_found(adapted, targets, choices)
    _check_layers(model, lora, names)
    return adapted


def _put(model: CausalLM, config: LoraConfig) -> PeftModel:
    from peft import get_peft_model

    with warnings.catch_warnings():  # peft makes patterns for a mixture's experts, uses them, and says they are ignored
        warnings.filterwarnings("ignore", "The following .*_pattern keys did not match")
        adapted: PeftModel = get_peft_model(model, config)
    return adapted


def linear_layers(model: CausalLM) -> list[str]:
    """The names of the layers that ``all-linear`` stands for: linear ones, without the output head."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head]


def _endings(names: list[str]) -> list[str]:
    """The last parts of ``names``, each once: what ``target_modules`` usually lists."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def _check_found(adapted: PeftModel, targets: str | list[str], choices: str) -> None:
    """Refuse names that fit no layer: `peft` is content where another one does.

    Names of a mixture's experts are not among its modules: `peft` turns those into names of parameters.
    """
    left = adapted.peft_config[STUDENT].target_modules
    if isinstance(targets, str) or isinstance(left, str):
        return
    modules = [name for name, _ in adapted.named_modules()]
    for target in targets:
        if target in left and not any(name.endswith(f".{target}") for name in modules):
            raise UsageError(f"lora.target_modules: the model has no layer {target!r}", choices)


# checks of what is loaded --------------------------------------------------------------------------------------------


def _check_kind(location: str, lora: Lora | None) -> None:
    config = adapter_config(location)
    if special := [key for key in _REFUSED if config.get(key)]:
        raise UsageError(f"{location} is an adapter with {special[0]}, which is not supported", MERGE_FIRST)
    if lora is None:
        return
    if config.get("bias", "none") != "none":
        raise UsageError(
            f"{location} is an adapter that trains biases of its base (bias={config['bias']})", MERGE_FIRST
        )
    if lora.rank:  # 0 where a caller of this package said nothing
        check_same(lora, location)


def _check_weights(location: str) -> None:
    if not any((Path(location) / name).is_file() for name in WEIGHTS):
        raise UsageError(f"{location} has an adapter's settings and no weights", f"it needs {' or '.join(WEIGHTS)}")


def _check_layers(model: CausalLM, lora: Lora | None, linear: list[str]) -> None:
    """Refuse an adapter on the output head, and one that lacks some of the layers that ``all-linear`` stands for."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UsageError(
            "an adapter on the output head is not supported: losses are computed from the head's own weights",
            "name other layers in lora.target_modules; all-linear leaves the head out",
        )
    if lora is None or not lora.rank or lora.target_modules != ALL_LINEAR:
        return
    layers = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    if left_out := set(linear) - set(layers):
        raise UsageError(
            f"lora.target_modules={ALL_LINEAR}: the model is an adapter that leaves out {min(left_out)}",
            f"leave lora.target_modules out; or {MERGE_FIRST}",
        )


def _explained(what: str, make: Callable[[], T], hint: str = "restore its files, or name another model") -> T:
    """What ``make`` returns; the errors of `peft`, and of the readers that it uses, in one line."""
    import torch

    try:
        return make()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # peft raises errors of many kinds, and its reader of weights some of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if "ParamWrapper" in lines[0] and "dropout" in lines[0]:
            raise UsageError(
                "lora.dropout: the model's experts are one tensor each, and adapters on them know no dropout",
                "set lora.dropout=0, or name other layers in lora.target_modules",
            ) from error
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        if "not found in the base model" in reason:
            reason = "the model has none of these layers"
        elif reason.startswith("Target module "):
            kind = reason.removeprefix("Target module ").partition("(")[0]
            reason = f"an adapter cannot be put on a layer of the kind {kind}"
        raise UsageError(f"{what}: {reason[:300]}", hint) from error


def _text(targets: str | list[str]) -> str:
    return targets if isinstance(targets, str) else ",".join(targets)
