"""Adapters that are not ours: made and saved by `peft` itself, with weights that change the model."""

from pathlib import Path
from typing import Any

import torch


def foreign_adapter(model: Path, folder: Path, **settings: Any) -> Path:
    """An adapter on ``model`` as another tool would leave it, with weights that are not zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **settings})
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of a few fixed tokens, in fp32."""
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 13)[None]).logits.float()
