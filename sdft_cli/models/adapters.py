"""LoRA adapters, by `peft`: put into a model, read from a folder, called by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.config.model_locations import is_adapter, locate

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Lora
    from sdft_cli.models.protocols import CausalLM, PeftModel

#: Names of adapters in a model; `peft` calls the first one "default".
STUDENT, TEACHER = "default", "teacher"


def base_of(location: str) -> str:
    """The folder or hub id of the model itself: an adapter folder names its base, any other location is its own."""
    if not is_adapter(location):
        return location
    config = json.loads((Path(location) / "adapter_config.json").read_text(encoding="utf-8"))
    return locate(config["base_model_name_or_path"])


def attach(model: CausalLM, location: str, lora: Lora | None) -> PeftModel | None:
    """Put a trainable adapter into ``model``: the one at ``location``, or else a new one as ``lora`` describes it.

    None for full fine-tuning, where there is neither.
    """
    if is_adapter(location):
        from peft import PeftModel

        adapted: PeftModel = PeftModel.from_pretrained(model, location, is_trainable=True)
        return adapted
    return _attach_new(model, lora) if lora and lora.rank else None


def attach_untrained(model: CausalLM, location: str, lora: Lora) -> PeftModel | None:
    """As `attach`, without reading an adapter's weights: enough for a model of which only the shapes matter."""
    if not is_adapter(location):
        return attach(model, location, lora)
    from peft import PeftConfig, get_peft_model

    adapted: PeftModel = get_peft_model(model, PeftConfig.from_pretrained(location))
    return adapted


def _attach_new(model: CausalLM, lora: Lora) -> PeftModel:
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    adapted: PeftModel = get_peft_model(model, config)
    return adapted
